"""The nodes that load upscale models and enlarge pictures."""

import pytest
import torch

import comfy.upscalers
import comfy_depot.hooks
import folder_paths
from comfy_extras import nodes_upscale_model
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader
from tests.comfy.test_upscalers import small_compact


@pytest.fixture
def name(tmp_path):
    """An upscale model in the folder for them."""
    paths = folder_paths.folder_names_and_paths["upscale_models"][0]
    folder_paths.add_model_folder_path("upscale_models", str(tmp_path))
    torch.save({"params": small_compact(2).state_dict()}, tmp_path / "small.pth")
    yield "small.pth"
    paths.remove(str(tmp_path))


def test_a_picture_is_enlarged_by_the_model_of_a_file(name):
    assert name in UpscaleModelLoader.INPUT_TYPES()["required"]["model_name"][1]["options"]
    model = UpscaleModelLoader.execute(name)[0]
    picture = torch.rand(2, 6, 8, 3)
    enlarged = ImageUpscaleWithModel.execute(model, picture)[0]
    assert enlarged.shape == (2, 12, 16, 3) and enlarged.dtype == torch.float32
    again = ImageUpscaleWithModel().upscale(UpscaleModelLoader().load_model(name)[0], picture)
    assert torch.equal(again[0], enlarged)


def test_the_loader_asks_the_store_of_models_in_memory(name, monkeypatch):
    class Residents:
        def load(self, function, args, kwargs, *, parameter, folder):
            return args, parameter, folder

    path = folder_paths.get_full_path("upscale_models", name)
    with monkeypatch.context() as started:
        started.setattr(comfy_depot.hooks, "_depot", type("Depot", (), {"residents": Residents()})())
        model = comfy.upscalers.load_upscale_model(path)
    assert model == ((path,), "path", None)


async def test_the_topic_gives_its_nodes_by_an_entry_point():
    listed = await nodes_upscale_model.comfy_entrypoint().get_node_list()
    assert listed == [UpscaleModelLoader, ImageUpscaleWithModel]
