"""Real models stay in memory: no file is opened twice, and no patch of one user reaches another's weights."""

import gc
import hashlib
import json
import random
import shutil
import weakref

import pytest
import safetensors.torch
import torch

import comfy_depot
import folder_paths
import main
import nodes
from comfy.cli_args import args
from comfy_depot import hooks
from comfy_depot.host import Host
from comfy_depot.options import Budget, Options
from tests.fakes.opened_files import COUNTING, counted_opens
from tests.fakes.origin import Origin, sha256
from tests.fakes.server_process import ROOT, ServerProcess
from tests.fakes.waiting import wait_until

DEMO_MODEL = ROOT / "tests/data/demo_shapes.safetensors"
DEMO_LORA = ROOT / "tests/data/demo_green.safetensors"

COUNTING_PACK = COUNTING + '''
class Opened:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"after": ("*",)}}
    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"
    def run(self, after):
        return {"ui": {"opened": list(opened)}}

NODE_CLASS_MAPPINGS = {"Opened": Opened}
'''


def prompt(loader="1", name="demo.safetensors"):
    """Loads a checkpoint, uses its VAE, and tells which files have been opened so far."""
    return {
        loader: {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": [loader, 2]}},
        "4": {"class_type": "Opened", "inputs": {"after": ["3", 0]}},
    }


@pytest.mark.slow
def test_the_server_opens_a_checkpoint_once_whatever_is_forced(tmp_path):
    (tmp_path / "custom_nodes/counting").mkdir(parents=True)
    (tmp_path / "custom_nodes/counting/__init__.py").write_text(COUNTING_PACK)
    (tmp_path / "models/checkpoints").mkdir(parents=True)
    path = tmp_path / "models/checkpoints/demo.safetensors"
    shutil.copy(DEMO_MODEL, path)
    with ServerProcess(tmp_path, "--no-cache") as server:

        def opened(graph, **fields):
            entry = server.run_prompt(graph, **fields)
            assert entry["status"]["status_str"] == "success", entry["status"]
            return entry["outputs"]["4"]["opened"]

        def residents():
            return server.get_json("/depot/models")["resident"]

        assert opened(prompt()) == [str(path)]
        assert opened(prompt()) == [str(path)]
        assert opened(prompt(), force=True) == [str(path)]
        assert opened(prompt(), force=["CheckpointLoaderSimple"]) == [str(path)]
        assert opened(prompt(), cache="off") == [str(path)]
        assert opened(prompt(loader="77")) == [str(path)]
        (resident,) = residents()
        assert (resident["loads"], resident["hits"], resident["in_use"]) == (1, 5, False)
        assert resident["names"] == ["checkpoints/demo.safetensors"]

        server.request("POST", "/free", {"free_memory": True})
        wait_until(lambda: not residents())
        (drop,) = server.get_json("/depot/models")["dropped"]
        assert drop["why"] == "memory was to be freed"
        assert opened(prompt()) == [str(path)] * 2


WARMING_PACK = """
import threading
from comfy_depot import hooks

loaded = threading.Thread(target=lambda: hooks.armed().host.load_model("checkpoints", "demo.safetensors"))
loaded.start()  # before the server answers

class Warm:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"
    def run(self):
        return {"ui": {"warm": [not loaded.is_alive()]}}

NODE_CLASS_MAPPINGS = {"Warm": Warm}
"""


@pytest.mark.slow
def test_a_model_that_the_server_has_loaded_by_itself_is_not_opened_by_the_first_workflow(tmp_path):
    for name, text in (("counting", COUNTING_PACK), ("warming", WARMING_PACK)):
        (tmp_path / "custom_nodes" / name).mkdir(parents=True)
        (tmp_path / "custom_nodes" / name / "__init__.py").write_text(text)
    path = tmp_path / "models/checkpoints/demo.safetensors"
    path.parent.mkdir(parents=True)
    shutil.copy(DEMO_MODEL, path)
    with ServerProcess(tmp_path) as server:
        asked = {"1": {"class_type": "Warm", "inputs": {}}}
        wait_until(lambda: server.run_prompt(asked, force=True)["outputs"]["1"]["warm"] == [True], seconds=60)
        (resident,) = server.get_json("/depot/models")["resident"]
        assert (resident["loads"], resident["in_use"], resident["kept"]) == (1, False, True)
        entry = server.run_prompt(prompt())
        assert entry["outputs"]["4"]["opened"] == [str(path)], "once, by the server itself"
        (resident,) = server.get_json("/depot/models")["resident"]
        assert (resident["loads"], resident["hits"]) == (1, 1)
        wait_until((tmp_path / "depot/loaders.json").exists)
    (recipe,) = json.loads((tmp_path / "depot/loaders.json").read_text())
    assert (recipe["class_type"], recipe["inputs"]) == (
        "CheckpointLoaderSimple", {"ckpt_name": "demo.safetensors"})  # fmt: skip


def decode(name):
    """Shows a picture that a checkpoint's VAE makes of nothing."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }


@pytest.mark.slow
def test_models_in_stored_results_make_room_on_a_small_disk_for_the_next_workflow(tmp_path):
    """Four checkpoints in turn on a disk for two and a half, while results of all workflows are kept."""
    weights = safetensors.torch.load_file(DEMO_MODEL)
    with safetensors.safe_open(DEMO_MODEL, "pt") as file:
        facts = file.metadata() or {}
    names = [f"{letter}.safetensors" for letter in "abcd"]
    bodies = [safetensors.torch.save(weights, {**facts, "is": name}) for name in names]
    folder = tmp_path / "models/checkpoints"
    with Origin() as origin:
        (tmp_path / "model_manifests").mkdir()
        (tmp_path / "model_manifests/models.json").write_text(json.dumps({"checkpoints": {
            name: {"url": origin.put(f"/{name}", body), "size": len(body), "sha256": sha256(body)}
            for name, body in zip(names, bodies)
        }}))
        limit = str(len(bodies[0]) * 5 // 2)
        with ServerProcess(tmp_path, "--depot-max-size", limit, "--depot-reserve", "0",
                           "--depot-allow-hosts", "127.0.0.1") as server:
            for name in names:
                entry = server.run_prompt(decode(name))
                assert entry["status"]["status_str"] == "success", entry["status"]
                assert (folder / name).exists() and len(list(folder.glob("*.safetensors"))) <= 2
            again = server.run_prompt(decode("a.safetensors"))
            assert again["status"]["status_str"] == "success"
            assert again["reasons"]["3"] == {"reason": "cached"}, "pictures stay"
            dropped = server.get_json("/depot/models")["dropped"]
            assert {drop["why"] for drop in dropped} == {"the disk was full"}


# --- in this process ---


@pytest.fixture
def depot(tmp_path, monkeypatch):
    """A depot on a folder with the demo model; `opened` counts what is read."""
    settings = dict(vars(args))
    args.cpu, args.base_directory = True, str(tmp_path)
    folder_paths.apply_arguments(args)
    for folder in ("checkpoints", "vae"):
        (tmp_path / "models" / folder).mkdir(parents=True)
    shutil.copy(DEMO_MODEL, tmp_path / "models/checkpoints/demo.safetensors")
    host = Host(load_settings=main.load_settings, bytes_free=main.bytes_free)
    depot = comfy_depot.start(Options(model_manifests=tmp_path, depot_dir=tmp_path / "depot",
                                      resident_budget=Budget(size=1 << 30)), host)
    depot.opened = counted_opens(monkeypatch)
    with torch.inference_mode():
        yield depot
    comfy_depot.stop()
    vars(args).clear()
    vars(args).update(settings)
    folder_paths.apply_arguments(args)


def load():
    return nodes.CheckpointLoaderSimple().load_checkpoint("demo.safetensors")


def digest(patcher):
    """Of the weights as a user without patches sees them."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher])
    found = hashlib.sha256()
    for name, tensor in sorted(patcher.model.state_dict().items()):
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def test_no_patch_of_any_user_ever_reaches_the_weights_of_another(depot):
    import comfy.model_management

    chance = random.Random(5)
    model, clip, vae = load()
    clean = [digest(part.patcher if hasattr(part, "patcher") else part) for part in (model, clip, vae)]
    assert len(set(clean)) == 3
    for _ in range(8):
        model, clip, vae = load()
        for patcher in (model, clip.patcher, vae.patcher):
            names = chance.sample(sorted(patcher.model_state_dict()), 4)
            changes = {name: (torch.full_like(patcher.model_state_dict()[name], 0.5, dtype=torch.float32),)
                       for name in names}
            assert patcher.add_patches(changes, chance.uniform(-2, 2), chance.choice([1.0, 0.5]))
            patcher.model_options["transformer_options"]["mine"] = True
        model.add_object_patch("latent_format", object())
        clip.clip_layer(-2)
        clip.set_tokenizer_option("mine", 1)
        patchers = [model, clip.patcher, vae.patcher]
        comfy.model_management.load_models_gpu(chance.sample(patchers, chance.randint(1, 3)))
        if chance.random() < 0.3:
            comfy.model_management.unload_all_models()
    del model, clip, vae, patchers, patcher
    model, clip, vae = load()
    assert [digest(model), digest(clip.patcher), digest(vae.patcher)] == clean
    assert "mine" not in model.model_options["transformer_options"]
    assert clip.layer_idx is None and clip.tokenizer_options == {}
    assert model.get_model_object("latent_format") is model.model.latent_format is not None
    assert len(depot.opened) == 1
    hooks.disarm()
    fresh = load()
    assert [digest(fresh[0]), digest(fresh[1].patcher), digest(fresh[2].patcher)] == clean


@pytest.mark.slow
def test_a_model_that_nobody_uses_and_nobody_keeps_is_freed_at_once(depot):
    model, clip, vae = load()
    modules = [weakref.ref(one) for one in (model.model, clip.cond_stage_model, vae.first_stage_model)]
    del model, clip, vae
    assert all(module() is not None for module in modules)
    depot.residents.free_idle()
    gc.disable()
    try:
        load()
        assert all(module() is None for module in modules)
    finally:
        gc.enable()


def test_every_way_to_read_a_checkpoint_shares_one_model(depot):
    import comfy.sd

    path = folder_paths.get_full_path("checkpoints", "demo.safetensors")
    embeddings = folder_paths.get_folder_paths("embeddings")
    loaded = comfy.sd.load_checkpoint(ckpt_path=path, embedding_directory=embeddings)
    assert len(loaded) == 3 and loaded[0].model is load()[0].model and len(depot.opened) == 1


def test_a_lora_is_read_once_and_changes_only_the_clones_of_its_users(depot, tmp_path):
    (tmp_path / "models/loras").mkdir()
    shutil.copy(DEMO_LORA, tmp_path / "models/loras/green.safetensors")
    model, clip, _ = load()
    clean = digest(model)
    depot.opened.clear()
    patched = [nodes.LoraLoader().load_lora(model, clip, "green.safetensors", 1.0, 1.0)[0]]
    patched += [nodes.LoraLoaderModelOnly().load_lora_model_only(model, "green.safetensors", s)[0]
                for s in (1.0, 0.5)]  # fmt: skip
    assert len(depot.opened) == 1 and all(one.is_clone(model) for one in patched)
    hashes = [digest(one) for one in patched]
    assert hashes[0] == hashes[1] != hashes[2] and clean not in hashes
    assert digest(model) == digest(load()[0]) == clean
    assert nodes.LoraLoader().load_lora(model, clip, "no matter", 0, 0) == (model, clip)


def test_the_error_of_a_lora_for_another_family_names_it(depot, tmp_path):
    from comfy.errors import LoraMismatch

    (tmp_path / "models/loras").mkdir()
    layer = "lora_unet_double_blocks_0_img_mod_lin"
    tensors = {layer + ".lora_up.weight": torch.ones(18432, 1),
               layer + ".lora_down.weight": torch.ones(1, 3072)}  # fmt: skip
    safetensors.torch.save_file(tensors, tmp_path / "models/loras/flux.safetensors")
    model, clip, _ = load()
    with pytest.raises(LoraMismatch, match=r"'flux.safetensors' .*\(SD15\): 0 of 2 keys .* for flux1\."):
        nodes.LoraLoader().load_lora(model, clip, "flux.safetensors", 1.0, 1.0)


def test_a_vae_and_a_diffusion_model_of_their_own_files_stay_too(depot, tmp_path):
    import comfy.sd
    import comfy.utils

    weights = comfy.utils.load_torch_file(str(DEMO_MODEL))
    prefix = "first_stage_model."
    vae = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    comfy.utils.save_torch_file(vae, str(tmp_path / "models/vae/own.safetensors"))
    unet = {name: weight for name, weight in weights.items() if name.startswith("model.diffusion_model.")}
    comfy.utils.save_torch_file(unet, str(tmp_path / "unet.safetensors"))
    depot.opened.clear()
    vaes = [nodes.VAELoader().load_vae("own.safetensors")[0] for _ in range(2)]
    models = [comfy.sd.load_diffusion_model(str(tmp_path / "unet.safetensors")) for _ in range(2)]
    other = comfy.sd.load_diffusion_model(str(tmp_path / "unet.safetensors"), {"dtype": torch.float16})
    assert vaes[0].first_stage_model is vaes[1].first_stage_model and vaes[0].patcher is not vaes[1].patcher
    assert models[0].model is models[1].model is not other.model and models[0] is not models[1]
    assert other.model_dtype() == torch.float16
    assert len(depot.opened) == 3


def test_control_models_of_every_kind_are_read_once(depot, tmp_path):
    import comfy.controlnet
    import comfy.utils
    from tests.comfy import tiny_control

    net = tiny_control.controlnet()
    kinds = {
        "controlnet": net.state_dict(),
        "adapter": tiny_control.adapter("full_adapter").state_dict(),
        "flux": tiny_control.flux_controlnet().state_dict(),
        "lora": tiny_control.control_lora_file(net, net)[0],
    }
    for kind, weights in kinds.items():
        path = str(tmp_path / f"{kind}.safetensors")
        comfy.utils.save_torch_file(weights, path)
        depot.opened.clear()
        one, two = (comfy.controlnet.load_controlnet(path) for _ in range(2))
        assert len(depot.opened) == 1 and one is not two
        owner = {"adapter": "t2i_model", "lora": "control_weights"}.get(kind, "control_model")
        assert getattr(one, owner) is getattr(two, owner)


@pytest.mark.slow
def test_out_of_memory_lets_go_of_what_nobody_uses(depot):
    import execution

    used = load()
    path = folder_paths.get_full_path("checkpoints", "demo.safetensors")
    import comfy.sd

    comfy.sd.load_checkpoint_guess_config(path, output_clip=False)  # another model that nobody keeps
    assert len(depot.residents.models()) == 2
    assert "memory" in execution._advice(MemoryError("can't allocate memory"), "KSampler")
    (kept,) = depot.residents.models()
    assert kept["in_use"] and load()[0].model is used[0].model


def test_the_devices_of_the_moment_are_a_part_of_what_a_model_is(depot, monkeypatch):
    import comfy.model_management

    before = main.load_settings()
    monkeypatch.setattr(comfy.model_management, "unet_offload_device", lambda: torch.device("meta"))
    assert main.load_settings() != before and json.dumps(before)
    assert main.bytes_free(torch.device("cpu")) > 0

