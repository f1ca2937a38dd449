"""What is loaded ahead of a workflow is what its loader nodes find: they open no file any more."""

import json
import shutil
import threading

import pytest
import torch

import comfy.model_management
import comfy.utils
import comfy_depot
import folder_paths
import main
import nodes
from app import loader_recipes, worker
from app.loader_recipes import Recipes
from app.model_loaders import ModelLoaders, folders
from comfy.cli_args import args
from comfy_depot.errors import ModelUnavailable
from comfy_depot.host import Host
from comfy_depot.options import Budget, Options
from comfy_extras import nodes_upscale_model
from tests.app.test_worker import Host as Sink
from tests.comfy import test_style_model, tiny_control, tiny_sdxl, tiny_vision
from tests.comfy.test_upscalers import small_compact
from tests.fakes.opened_files import counted_opens
from tests.fakes.origin import Origin, sha256
from tests.fakes.server_process import ROOT

DEMO_MODEL = ROOT / "tests/data/demo_shapes.safetensors"
DEMO_LORA = ROOT / "tests/data/demo_green.safetensors"
BUDGET = 1 << 30


class Keep:
    """An output node that takes anything."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {"a": ("*",), "b": ("*",)}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, a=None, b=None):
        return {"ui": {}}


@pytest.fixture
def library(base):
    """The folder of models, with tiny real ones."""
    models = base / "models"
    shutil.copy(DEMO_MODEL, models / "checkpoints/demo.safetensors")
    shutil.copy(DEMO_LORA, models / "loras/green.safetensors")
    whole = comfy.utils.load_torch_file(str(DEMO_MODEL))

    def part(prefix, keep=""):
        return {keep + key.removeprefix(prefix): tensor
                for key, tensor in whole.items() if key.startswith(prefix)}  # fmt: skip

    torch.manual_seed(3)
    net = tiny_control.controlnet()
    own = {
        "diffusion_models/unet": part("model.diffusion_model."),
        "vae/vae": part("first_stage_model."),
        "text_encoders/l": tiny_sdxl.text_encoder(64, open_clip=False).state_dict(),
        "text_encoders/g": tiny_sdxl.text_encoder(128).state_dict(),
        "controlnet/net": net.state_dict(),
        "controlnet/adapter": tiny_control.adapter("full_adapter").state_dict(),
        "controlnet/lora": tiny_control.control_lora_file(net, net)[0],
        "clip_vision/vision": tiny_vision.clip().state_dict(),
        "upscale_models/up": small_compact().state_dict(),
        "style_models/style": test_style_model.redux(),
    }
    for name, weights in own.items():
        path = models / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        comfy.utils.save_torch_file({key: t.contiguous() for key, t in weights.items()}, str(path))
    nodes.NODE_CLASS_MAPPINGS.update(Keep=Keep, UpscaleModelLoader=nodes_upscale_model.UpscaleModelLoader)
    return models


@pytest.fixture
def depot(library, tmp_path, monkeypatch):
    """A started depot; `opened` counts what is read."""
    args.cpu = True
    host = Host(load_settings=main.load_settings, bytes_free=main.bytes_free)
    depot = comfy_depot.start(
        Options(model_manifests=tmp_path / "manifests", depot_dir=tmp_path / "depot",
                resident_budget=Budget(size=BUDGET), depot_allow_hosts=("127.0.0.1",)), host)  # fmt: skip
    depot.opened = counted_opens(monkeypatch)
    with torch.inference_mode():
        yield depot
    comfy_depot.stop()


@pytest.fixture
def loaders(depot, tmp_path):
    """Loaders that place models at once: no prompt runs in another thread."""
    return ModelLoaders(Recipes(tmp_path / "depot"), between_prompts=lambda act: act())


@pytest.fixture
def house(loaders):
    """A worker that keeps no results, in whose queue prompts are put; it teaches the loaders."""
    import execution

    sink = Sink()
    sink.prompt_succeeded = loaders.recipes.learn
    sink.queue = execution.PromptQueue(sink)
    args.cache_none = True
    return worker.Worker(sink.queue, sink)


def run(house, graph, outputs=("out",)):
    """Run a graph whose output is "out"; the status."""
    number = str(house.queue.task_counter)
    house.queue.put((0, number, graph, {}, list(outputs)))
    house.run_next()
    return house.queue.history[number]["status"]["status_str"]


def workflow(class_type, **inputs):
    """A loader, and an output that takes what it loads."""
    return {"load": {"class_type": class_type, "inputs": inputs},
            "out": {"class_type": "Keep", "inputs": {"a": ["load", 0]}}}  # fmt: skip


def on_device():
    """The kinds of the models that are on their device."""
    return {type(patcher.model).__name__ for patcher in comfy.model_management.loaded_models()}


LORA = {
    "load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "demo.safetensors"}},
    "lora": {"class_type": "LoraLoader", "inputs": {
        "model": ["load", 0], "clip": ["load", 1], "lora_name": "green.safetensors", "strength_model": 1.0,
        "strength_clip": 1.0}},
    "out": {"class_type": "Keep", "inputs": {"a": ["lora", 0], "b": ["lora", 1]}},
}  # fmt: skip
UNET = workflow("UNETLoader", unet_name="unet.safetensors", weight_dtype="default")
KINDS = {
    "checkpoints/demo": (workflow("CheckpointLoaderSimple", ckpt_name="demo.safetensors"), 3),
    "diffusion_models/unet": (UNET, 1),
    "unet/unet": (UNET, 1),
    "vae/vae": (workflow("VAELoader", vae_name="vae.safetensors"), 1),
    "controlnet/net": (workflow("ControlNetLoader", control_net_name="net.safetensors"), 1),
    "controlnet/adapter": (workflow("ControlNetLoader", control_net_name="adapter.safetensors"), 1),
    "controlnet/lora": (workflow("ControlNetLoader", control_net_name="lora.safetensors"), 0),
    "clip_vision/vision": (workflow("CLIPVisionLoader", clip_name="vision.safetensors"), 1),
    "upscale_models/up": (workflow("UpscaleModelLoader", model_name="up.safetensors"), 1),
    "style_models/style": (workflow("StyleModelLoader", style_model_name="style.safetensors"), 1),
}
LEARNED = {
    "CLIPLoader": ("text_encoders", ["l"], {"clip_name": "l.safetensors", "type": "stable_diffusion"}),
    "DualCLIPLoader": ("clip", ["g", "l"], {
        "clip_name1": "l.safetensors", "clip_name2": "g.safetensors", "type": "sdxl", "device": "cpu"}),
    "UNETLoader": ("unet", ["unet"], {"unet_name": "unet.safetensors", "weight_dtype": "fp8_e4m3fn"}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", KINDS)
def test_the_workflow_of_a_model_that_was_loaded_ahead_opens_no_file(depot, loaders, house, model):
    folder, name = model.split("/")
    graph, parts = KINDS[model]
    comfy.model_management.unload_all_models()
    assert loaders.load_model(folder, f"{name}.safetensors") is True
    (resident,) = depot.residents.models()
    assert resident["kept"] and not resident["in_use"], "the clones are gone"
    assert len(depot.opened) == 1 and len(on_device()) == parts
    assert run(house, graph) == "success"
    assert len(depot.opened) == 1 and depot.residents.stats()["loads"] == 1
    assert depot.residents.stats()["hits"] == 1


@pytest.mark.slow
def test_the_file_of_a_lora_that_was_loaded_ahead_is_not_opened_by_its_node(depot, loaders, house):
    assert loaders.load_model("loras", "green.safetensors") is True
    assert len(depot.opened) == 1
    assert run(house, LORA) == "success"
    assert len(depot.opened) == 2, "the checkpoint"


@pytest.mark.slow
@pytest.mark.parametrize("class_type", LEARNED)
def test_a_model_is_loaded_in_the_way_in_which_the_last_workflow_has_loaded_it(
    depot, loaders, house, tmp_path, class_type
):
    folder, names, inputs = LEARNED[class_type]
    assert run(house, workflow(class_type, **inputs)) == "success"
    depot.residents.free_idle()
    read = len(depot.opened)
    after_restart = ModelLoaders(Recipes(tmp_path / "depot"), between_prompts=lambda act: act())
    for name in names:
        assert after_restart.load_model(folder, f"{name}.safetensors") is True
    assert len(depot.opened) == 2 * read, "two files of one model are one load"
    assert run(house, workflow(class_type, **inputs)) == "success"
    assert len(depot.opened) == 2 * read


@pytest.mark.slow
def test_of_two_ways_the_newest_counts(depot, loaders, house):
    for dtype in ("default", "fp8_e5m2", "fp8_e4m3fn"):
        run(house, workflow("UNETLoader", unet_name="unet.safetensors", weight_dtype=dtype))
    assert loaders.recipes.find("unet", "unet.safetensors").inputs["weight_dtype"] == "fp8_e4m3fn"
    run(house, workflow("UNETLoader", unet_name="unet.safetensors", weight_dtype="fp8_e5m2"))
    assert loaders.recipes.find("unet", "unet.safetensors").inputs["weight_dtype"] == "fp8_e5m2"


@pytest.mark.slow
def test_only_what_has_run_and_says_all_itself_is_learned(depot, loaders, house):
    clip = {"clip_name": "l.safetensors", "type": "stable_diffusion"}
    graph = workflow("CLIPLoader", clip_name="l.safetensors", type="no type")
    assert run(house, graph) == "error"
    graph = {**workflow("VAELoader", vae_name="vae.safetensors"),
             "aside": {"class_type": "CLIPLoader", "inputs": clip}}  # fmt: skip
    assert run(house, graph) == "success"
    assert loaders.recipes.find("text_encoders", "l.safetensors") is None
    assert run(house, workflow("CLIPLoader", **clip, more=["x"], junk="y" * 1000)) == "success"
    assert loaders.recipes.find("clip", "l.safetensors").inputs == clip
    linked = {"1": {"class_type": "CLIPLoader", "inputs": {**clip, "clip_name": ["2", 0]}},
              "2": {"class_type": "CLIPLoader", "inputs": {**clip, "type": ["3", 0]}}}  # fmt: skip
    assert list(loader_recipes.recipes_in(linked, ["1"])) == []
    long = workflow("CLIPLoader", **{**clip, "device": "y" * 1001})
    assert list(loader_recipes.recipes_in(long, ["out"])) == []


def test_a_node_of_a_pack_in_the_place_of_a_loader_is_asked(depot, loaders):
    class Loader(nodes.CheckpointLoaderSimple):
        FUNCTION = "load_later"

        async def load_later(self, ckpt_name):
            return self.load_checkpoint(ckpt_name)[:2]

    nodes.NODE_CLASS_MAPPINGS["CheckpointLoaderSimple"] = Loader
    comfy.model_management.unload_all_models()
    assert loaders.load_model("checkpoints", "demo.safetensors") is True
    assert len(on_device()) == 2

    class Expanding(Loader):
        FUNCTION = "expand"

        def expand(self, ckpt_name):
            return {"result": (), "expand": {"1": {"class_type": "Keep", "inputs": {}}}}

    nodes.NODE_CLASS_MAPPINGS["CheckpointLoaderSimple"] = Expanding
    with pytest.raises(ValueError, match="CheckpointLoaderSimple of this server loads models by other nodes"):
        loaders.load_model("checkpoints", "demo.safetensors")


def test_a_way_whose_node_is_gone_is_passed_over(depot, loaders, house, monkeypatch):
    run(house, workflow("CLIPLoader", clip_name="l.safetensors", type="stable_diffusion"))
    monkeypatch.delitem(nodes.NODE_CLASS_MAPPINGS, "CLIPLoader")
    with pytest.raises(ValueError, match="No workflow has loaded 'text_encoders/l.safetensors' yet"):
        loaders.load_model("clip", "l.safetensors")


def test_weights_that_are_on_their_device_keep_the_patches_of_the_last_prompt(depot, loaders):
    model, clip, _ = nodes.CheckpointLoaderSimple().load_checkpoint("demo.safetensors")
    patched = nodes.LoraLoaderModelOnly().load_lora_model_only(model, "green.safetensors", 1.0)[0]
    comfy.model_management.load_models_gpu([patched])
    assert loaders.load_model("checkpoints", "demo.safetensors") is True
    assert model.model.current_weight_patches_uuid == patched.patches_uuid
    assert {"DemoCLIP", *on_device()} > {type(model.model).__name__} and len(on_device()) == 3


@pytest.mark.slow
def test_weights_are_brought_to_their_device_between_two_prompts_in_the_worker(house, tmp_path):
    placed = []
    load = comfy.model_management.load_models_gpu

    def noting(models, *more, **options):
        assert torch.is_inference_mode_enabled()
        placed.append((threading.get_ident(), list(house.queue.history)))
        return load(models, *more, **options)

    loaders = ModelLoaders(Recipes(tmp_path), between_prompts=house.server.between_prompts)
    found = []

    def ahead():
        with worker.inference_environment():
            found.append(loaders.load_model("vae", "vae.safetensors"))

    other = threading.Thread(target=ahead)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.model_management, "load_models_gpu", noting)
        other.start()
        house.run_next()  # nothing is in the queue: the errand wakes it
        other.join()
    assert found == [True] and placed == [(threading.get_ident(), [])]


def test_what_the_budget_has_no_room_for_is_not_said_to_be_in_memory(depot, loaders):
    depot.residents.budget = 1000
    assert loaders.load_model("vae", "vae.safetensors") is False


@pytest.mark.slow
def test_a_file_that_only_a_manifest_names_is_fetched_first_and_so_is_the_other_file(
    depot, loaders, house, library, tmp_path
):
    inputs = LEARNED["DualCLIPLoader"][2]
    run(house, workflow("DualCLIPLoader", **inputs))
    with Origin() as origin:
        entries = {}
        for name in ("l", "g"):
            path = library / f"text_encoders/{name}.safetensors"
            body = path.read_bytes()
            path.unlink()
            entries[path.name] = {"url": origin.put(f"/{name}", body), "sha256": sha256(body)}
        (tmp_path / "manifests").mkdir()
        (tmp_path / "manifests/text.json").write_text(json.dumps({"text_encoders": entries}))
        depot.catalogue.refresh()
        assert loaders.load_model("text_encoders", "g.safetensors") is True
    assert (library / "text_encoders/l.safetensors").exists()


def test_a_vocabulary_is_fetched_too_though_no_node_runs(depot, tmp_path):
    with Origin() as origin:
        body = b'{"model": {}}'
        entry = {"url": origin.put("/words", body), "sha256": sha256(body)}
        (tmp_path / "manifests").mkdir()
        (tmp_path / "manifests/words.json").write_text(json.dumps({"tokenizers": {"words.json": entry}}))
        depot.catalogue.refresh()
        with open(main.tokenizer_path("words.json"), "rb") as file:
            assert file.read() == body


def test_a_model_that_is_nowhere_is_said_to_be_in_no_manifest(depot, loaders):
    for folder in ("checkpoints", "loras"):
        with pytest.raises(ModelUnavailable, match=f"is in no manifest and not in models/{folder}"):
            loaders.load_model(folder, "gone.safetensors")


def test_a_folder_type_without_a_loader_is_refused_with_those_that_have_one(loaders):
    with pytest.raises(ValueError, match="type 'embeddings' cannot be pinned.*: checkpoints, clip_vision, "):
        loaders.load_model("embeddings", "x.pt")
    assert folders() == ["checkpoints", "clip_vision", "controlnet", "diffusion_models", "loras",
                         "style_models", "text_encoders", "upscale_models", "vae"]  # fmt: skip


def test_without_a_depot_nothing_is_loaded(loaders):
    comfy_depot.stop()
    with pytest.raises(ValueError, match="The depot is off"):
        loaders.load_model("vae", "vae.safetensors")


def test_the_newest_ways_stay_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(loader_recipes, "MOST_KEPT", 3)
    recipes = Recipes(tmp_path / "new")

    def learn(name):
        recipes.learn(workflow("VAELoader", vae_name=name), ["out"])

    for name in ("a", "b", "c", "a", "d"):
        learn(name)
    names = [item["name"] for item in json.loads(recipes.file.read_text())]
    assert names == ["c", "a", "d"] and recipes.find("vae", "b") is None
    written = recipes.file.stat().st_mtime_ns, recipes.file.stat().st_ino
    learn("c")
    assert (recipes.file.stat().st_mtime_ns, recipes.file.stat().st_ino) == written, "nothing is new"


@pytest.mark.parametrize(
    "content",
    ["{", "[1]", "{}x", '[{"folder": "vae"}]',
     '[{"folder": "vae", "name": "a", "class_type": "SaveImage", "inputs": {"vae_name": "a"}}]',
     '[{"folder": "vae", "name": "a", "class_type": "VAELoader", "inputs": {"vae_name": "b"}}]',
     '[{"folder": "vae", "name": "a", "class_type": "VAELoader", "inputs": {"vae_name": "a", "x": []}}]'],
)  # fmt: skip
def test_a_damaged_file_is_said_and_begun_anew(tmp_path, content, caplog):
    (tmp_path / "loaders.json").write_text(content)
    recipes = Recipes(tmp_path)
    assert recipes.find("vae", "a") is None
    assert "loaders.json, which tells how workflows load models, cannot be read" in caplog.text
    recipes.learn(workflow("VAELoader", vae_name="a"), ["out"])
    assert Recipes(tmp_path).find("vae", "a").inputs == {"vae_name": "a"}


def test_a_disk_that_takes_no_file_is_said(tmp_path, caplog):
    (tmp_path / "state").write_text("a file in the place of the folder")
    recipes = Recipes(tmp_path / "state")
    recipes.learn(workflow("VAELoader", vae_name="a"), ["out"])
    assert "is forgotten when the server ends: " in caplog.text
    assert recipes.find("vae", "a").class_type == "VAELoader"


def test_names_of_windows_are_those_of_everybody(tmp_path):
    recipes = Recipes(tmp_path)
    recipes.learn(workflow("VAELoader", vae_name="sub\\a"), ["out"])
    assert recipes.find("vae", "sub/a").inputs == {"vae_name": "sub\\a"}
    assert folder_paths.map_legacy("unet") == "diffusion_models"
