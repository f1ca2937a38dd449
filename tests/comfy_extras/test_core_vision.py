"""The nodes for pictures as prompts, from files in the folders of models to what the model is told."""

import pytest
import torch
from safetensors.torch import save_file

import comfy.errors
import folder_paths
import nodes
from comfy_extras import core_vision
from tests.comfy import tiny_sd1, tiny_sdxl, tiny_vision
from tests.comfy.test_style_model import redux
from tests.comfy.test_unclip import SD21, VISION, WIDTH


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Writes a model file into a folder of models."""

    def write(folder, name, weights):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, place / name)
        suffixes = folder_paths.supported_pt_extensions
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(place)], suffixes))

    return write


def test_a_picture_is_encoded_by_a_model_of_the_list(put):
    reference = tiny_vision.clip()
    put("clip_vision", "tiny.safetensors", reference.state_dict())
    (names, _) = core_vision.CLIPVisionLoader.INPUT_TYPES()["required"]["clip_name"]
    (model,) = core_vision.CLIPVisionLoader().load_clip(names[0])
    image = tiny_vision.pictures()
    squeezed = core_vision.CLIPVisionEncode().encode(model, image, "none")[0]
    cut = core_vision.CLIPVisionEncode().encode(model, image, "center")[0]
    assert torch.equal(squeezed.image_embeds, model.encode_image(image, crop=False).image_embeds)
    assert torch.equal(cut.image_embeds, model.encode_image(image).image_embeds)
    assert not torch.allclose(cut.image_embeds, squeezed.image_embeds, atol=1e-3)


def test_an_unclip_checkpoint_gives_a_model_that_is_told_of_pictures(put):
    text = tiny_sdxl.in_open_clip(tiny_sdxl.text_encoder(128))
    made = tiny_sdxl.checkpoint(SD21, {"cond_stage_model.model.": text})
    vision = tiny_vision.in_open_clip(tiny_vision.clip(projection=WIDTH))
    put("checkpoints", "unclip.safetensors", {**made, **tiny_sdxl.below(VISION, vision)})
    model, clip, _, vision = core_vision.unCLIPCheckpointLoader().load_checkpoint("unclip.safetensors")
    seen = vision.encode_image(tiny_vision.pictures(batch=1))
    plain = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))
    node = core_vision.unCLIPConditioning()
    assert node.apply_adm(plain, seen, 0.0, 0.5) == (plain,)
    (once,) = node.apply_adm(plain, seen, 0.7, 0.0)
    (twice,) = node.apply_adm(once, seen, 0.2, 0.0)
    assert [len(cond[0][1]["unclip_conditioning"]) for cond in (once, twice)] == [1, 2]
    assert "unclip_conditioning" not in plain[0][1]
    y = model.model.extra_conds(noise=torch.zeros(1, 4, 8, 8), device="cpu", **once[0][1])["y"].cond
    torch.testing.assert_close(
        y[:, :WIDTH], 0.7 * seen.image_embeds, atol=0.03, rtol=0
    )  # level 0 is not quite clean


def test_a_checkpoint_without_a_vision_model_says_which_ones_have_one(put):
    put("checkpoints", "plain.safetensors", tiny_sd1.checkpoint())
    with pytest.raises(
        comfy.errors.UnknownArchitecture, match="'plain.safetensors'.*unCLIP.*Load Checkpoint"
    ):
        core_vision.unCLIPCheckpointLoader().load_checkpoint("plain.safetensors")


def test_a_style_model_of_the_list_is_loaded(put):
    put("style_models", "redux.safetensors", redux())
    (model,) = core_vision.StyleModelLoader().load_style_model("redux.safetensors")
    assert type(model.model).__name__ == "ReduxImageEncoder" and model.model.width == 24


def test_the_nodes_are_registered_under_upstreams_titles():
    titles = nodes.NODE_DISPLAY_NAME_MAPPINGS
    assert (
        titles["CLIPVisionLoader"] == "Load CLIP Vision" and titles["StyleModelApply"] == "Apply Style Model"
    )
    apply = nodes.NODE_CLASS_MAPPINGS["StyleModelApply"].INPUT_TYPES()["required"]
    assert apply["strength_type"][0] == ["multiply", "attn_bias"] and apply["strength"][1]["step"] == 0.001
