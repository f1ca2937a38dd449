"""Pinned models stay, whatever happens: the same weights at the same place, and no file is opened again."""

import gc
import re
import shutil

import pytest
import safetensors.torch
import torch

import comfy.model_management
import comfy_depot
import execution
import folder_paths
import main
import nodes
from comfy.cli_args import args
from comfy_depot.host import Executing, Host
from comfy_depot.options import Budget, Options
from tests.fakes.accelerator import accelerated
from tests.fakes.accounting_device import limited_to
from tests.fakes.opened_files import COUNTING, counted_opens
from tests.fakes.server_process import ROOT, ServerProcess
from tests.fakes.waiting import wait_until

DEMO_MODEL = ROOT / "tests/data/demo_shapes.safetensors"


class Stage:
    """A depot on a folder with two checkpoints; counts what is read, and a test sets the running node."""

    def __init__(self, tmp_path, monkeypatch):
        self.base, self.node = tmp_path, None
        for name in ("a", "b"):
            tensors = safetensors.torch.load_file(DEMO_MODEL)
            with safetensors.safe_open(DEMO_MODEL, "pt") as file:
                facts = {**(file.metadata() or {}), "is": name}
            safetensors.torch.save_file(tensors, tmp_path / f"models/checkpoints/{name}.safetensors", facts)
        self.opened = counted_opens(monkeypatch)

    def start(self, **options):
        host = Host(load_settings=main.load_settings, bytes_free=main.bytes_free,
                    current_node=lambda: self.node)
        settings = {"model_manifests": self.base, "depot_dir": self.base / "depot",
                    "resident_budget": Budget(size=1 << 30), "pin": ("checkpoints/a*",), **options}
        self.depot = comfy_depot.start(Options(**settings), host)
        return self.depot

    def resident(self, name):
        (found,) = [one for one in self.depot.residents.models() if f"checkpoints/{name}" in one["names"]]
        return found


@pytest.fixture
def stage(tmp_path, monkeypatch):
    settings = dict(vars(args))
    args.cpu, args.base_directory = True, str(tmp_path)
    folder_paths.apply_arguments(args)
    (tmp_path / "models/checkpoints").mkdir(parents=True)
    made = Stage(tmp_path, monkeypatch)
    with torch.inference_mode():
        yield made
    comfy_depot.stop()
    vars(args).clear()
    vars(args).update(settings)
    folder_paths.apply_arguments(args)


def load(name="a"):
    return nodes.CheckpointLoaderSimple().load_checkpoint(f"{name}.safetensors")


def parts(name="a"):
    model, clip, vae = load(name)
    return [model.model, clip.cond_stage_model, vae.first_stage_model]


def places(modules):
    """Which objects they are and where each of their weights is."""
    return [(id(module), [weight.data_ptr() for weight in module.parameters()]) for module in modules]


def free_everything():
    import comfy.model_management

    comfy.model_management.free_memory(1e30, torch.device("cpu"))
    comfy.model_management.unload_all_models()
    comfy.model_management.cleanup_models()
    comfy.model_management.cleanup_models_gc()


def run_out_of_memory():
    assert "memory" in execution._advice(torch.OutOfMemoryError("CUDA out of memory"), "KSampler")


def fill_the_disk():
    comfy_depot.hooks.armed().residents.free_idle("the disk was full", most=1)


def cancelled():
    import comfy.model_management

    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        comfy.model_management.throw_exception_if_processing_interrupted()
    free_everything()


@pytest.mark.slow
@pytest.mark.parametrize("is_used", [True, False])
def test_a_pinned_model_stays_where_it_is_and_another_one_goes(stage, is_used):
    import comfy.model_management

    stage.start()
    pinned, other = load("a"), load("b")
    comfy.model_management.load_models_gpu([pinned[0], pinned[1].patcher, pinned[2].patcher, other[0]])
    before = places(parts())
    kept = pinned if is_used else None
    del pinned, other
    gc.collect()
    for trouble in (free_everything, run_out_of_memory, fill_the_disk, cancelled):
        trouble()
        there = comfy.model_management.loaded_models()
        assert [patcher.model.is_pinned for patcher in there] == [True] * 3, trouble
        assert places(parts()) == before and len(stage.opened) == 2, trouble
    assert [one["names"] for one in stage.depot.residents.models()] == [["checkpoints/a.safetensors"]]
    assert stage.resident("a.safetensors")["pinned"]["by"] == ["--pin checkpoints/a*"]
    del kept


@pytest.mark.slow
def test_a_pinned_model_stays_when_the_resident_budget_is_full(stage):
    stage.start(resident_budget=Budget(size=0))
    before = places(parts())
    load("b")
    gc.collect()
    assert places(parts()) == before and len(stage.opened) == 2
    assert [one["names"] for one in stage.depot.residents.models()] == [["checkpoints/a.safetensors"]]


@pytest.mark.slow
def test_without_a_pin_the_same_model_goes(stage):
    import comfy.model_management

    stage.start(pin=())
    model = load("a")[0]
    comfy.model_management.load_models_gpu([model])
    free_everything()
    assert comfy.model_management.current_loaded_models == []
    del model
    comfy_depot.hooks.free_idle_models()
    assert stage.depot.residents.models() == []


@pytest.mark.slow
def test_out_of_memory_says_what_is_pinned_and_once(stage):
    stage.start()
    load("a")
    error = torch.OutOfMemoryError("CUDA out of memory")
    message = execution._advice(error, "KSampler")
    size = f"{stage.resident('a.safetensors')['bytes'] / 1e6:.1f} MB"
    assert f"are {size}: checkpoints/a.safetensors ({size}, by --pin checkpoints/a*)." in message
    assert "python -m comfy_depot unpin --memory" in message
    assert "Pinned" not in execution._advice(RuntimeError("something else"), "KSampler")
    error.args = (f"CUDA out of memory {message}",)
    assert "Pinned" not in execution._advice(error, "KSampler"), "it stands in the error already"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cuda", "machine"])
def test_models_that_do_not_fit_beside_the_pinned_ones_are_an_error_of_the_same_kind(
    stage, monkeypatch, kind
):
    import comfy.model_management
    from comfy.errors import NotEnoughMemory

    stage.start()
    load("a")
    other = load("b")[0]
    error = torch.OutOfMemoryError("CUDA out of memory") if kind == "cuda" else NotEnoughMemory("too large")

    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(type(other), "partially_load", fail)
    with pytest.raises(type(error), match=r"(out of memory|too large)\nPinned in memory are .*--pin check"):
        comfy.model_management.load_models_gpu([other])
    pins = stage.depot.memory_pins
    pins.change(lambda state: state.unpinned("checkpoints/a*", pins.setup))
    stage.depot.residents.apply_pins()
    error.args = ("too large",)
    with pytest.raises(type(error), match="^too large$"):
        comfy.model_management.load_models_gpu([other])


@pytest.mark.slow
def test_two_tenants_share_one_copy_and_the_list_says_so(stage):
    stage.start()
    stage.node = Executing("p1", "3", "alice")
    first = load("a")
    stage.node = Executing("p2", "3", "bob")
    second = load("a")
    stage.node = Executing("p3", "3", None)
    third = load("a")[0]
    assert first[0].model is second[0].model is third.model and len(stage.opened) == 1
    found = stage.resident("a.safetensors")
    assert (found["users"], found["shared_by"]) == (3, ["alice", "bob", "prompt p3"])
    assert found["bytes"] == sum(part.model_size() for part in (first[0], first[1].patcher, first[2].patcher))
    assert sum(found["on"].values()) == found["on"]["cpu"] > 0
    del second, third
    gc.collect()
    assert stage.resident("a.safetensors")["shared_by"] == ["alice"]


@pytest.mark.slow
def test_a_pinned_model_whose_file_is_deleted_stays_and_says_so(stage):
    stage.start()
    before = places(parts())
    path = stage.base / "models/checkpoints/a.safetensors"
    shutil.move(path, path.with_suffix(".moved"))
    with pytest.raises(FileNotFoundError):
        load("a")
    load("b")
    assert stage.resident("a.safetensors")["why"].endswith("; its file is gone")
    shutil.move(path.with_suffix(".moved"), path)
    assert places(parts()) == before


@pytest.mark.slow
def test_a_replaced_file_takes_over_the_pin_and_who_has_the_old_one_keeps_it(stage):
    stage.start()
    old = load("a")
    path = stage.base / "models/checkpoints/a.safetensors"
    shutil.copy(stage.base / "models/checkpoints/b.safetensors", path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    new = load("a")
    assert new[0].model is not old[0].model
    assert (old[0].model.is_pinned, new[0].model.is_pinned) == (False, True)
    (outdated,) = [one for one in stage.depot.residents.models() if not one["names"]]
    assert outdated["pinned"] is None and "nobody can ask for it any more" in outdated["why"]
    del old, outdated
    gc.collect()
    assert [one["pinned"] is None for one in stage.depot.residents.models()] == [False]


# --- a whole server ---

# Tells where the weights of a model are and what was opened, and makes trouble.
PACK = COUNTING + '''
import threading
import torch
from comfy import model_management

class Where:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "trouble": ("STRING",)}}
    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"
    def run(self, model, trouble):
        model_management.load_models_gpu([model])
        if trouble == "full":
            raise torch.OutOfMemoryError("the device is out of memory")
        if trouble == "error":
            raise ValueError("broken")
        while trouble == "endless":
            model_management.throw_exception_if_processing_interrupted()
            threading.Event().wait(0.01)
        places = [id(model.model), *(weight.data_ptr() for weight in model.model.parameters())]
        return {"ui": {"places": [hash(tuple(places))], "opened": list(opened)}}

NODE_CLASS_MAPPINGS = {"Where": Where}
'''


def prompt(name="a.safetensors", trouble=""):
    return {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
            "2": {"class_type": "Where", "inputs": {"model": ["1", 0], "trouble": trouble}}}


@pytest.mark.slow
def test_a_server_keeps_pinned_weights_where_they_are_whatever_prompts_do(tmp_path):
    (tmp_path / "custom_nodes/where").mkdir(parents=True)
    (tmp_path / "custom_nodes/where/__init__.py").write_text(PACK)
    folder = tmp_path / "models/checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(DEMO_MODEL, folder / "a.safetensors")
    shutil.copy(DEMO_MODEL, folder / "b.safetensors")
    options = ("--pin", "checkpoints/a*", "--resident-budget", "0", "--cache-lru", "1")
    with ServerProcess(tmp_path, *options) as server:

        def run(**options):
            return server.run_prompt(prompt(**options))

        def where():
            return run()["outputs"]["2"]

        def message(entry):
            (found,) = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
            return found["exception_message"]

        before = where()
        assert before["opened"].count(str(folder / "a.safetensors")) == 1

        def is_where_it_was():
            now = where()
            opened = now["opened"].count(str(folder / "a.safetensors"))
            return (now["places"], opened) == (before["places"], 1)

        for flags in (["unload_models"], ["free_memory"], ["unload_models", "free_memory"]):
            server.request("POST", "/free", dict.fromkeys(flags, True))
            assert is_where_it_was(), flags
        for _ in range(3):  # results of the pinned one are dropped for those of others
            run(name="b.safetensors")
        assert is_where_it_was()
        assert "broken" in message(run(trouble="error")) and is_where_it_was()
        for name in ("a.safetensors", "b.safetensors"):
            text = message(run(trouble="full", name=name))
            assert "Pinned in memory are" in text and "checkpoints/a.safetensors (" in text
            assert is_where_it_was()
        queued = server.post_json("/prompt", {"prompt": prompt(trouble="endless")})
        wait_until(lambda: server.get_json("/queue")["queue_running"])
        server.request("POST", "/interrupt", {})
        wait_until(lambda: server.get_json(f"/history/{queued['prompt_id']}"))
        assert is_where_it_was()
        found = server.get_json("/depot/models")
        (resident,) = [one for one in found["resident"] if one["pinned"]]
        assert resident["names"] == ["checkpoints/a.safetensors"] and resident["loads"] == 1
        assert found["memory"]["devices"][0]["total"] > 0


@pytest.mark.slow
def test_with_gpu_only_an_unpinned_model_that_must_leave_a_full_device_says_why(stage, monkeypatch):
    depot = stage.start(pin=())
    monkeypatch.setattr(comfy.model_management, "minimum_inference_memory", lambda: 0)
    monkeypatch.setattr(comfy.model_management, "EXTRA_RESERVED_VRAM", 0, raising=False)
    with accelerated(mode="gpu_only") as device:
        first, second = load("a")[0], load("b")[0]
        comfy.model_management.load_models_gpu([first])
        (move,) = stage.resident("a.safetensors")["moves"]
        assert (move["from"], move["to"], move["bytes"]) == ("cpu", str(device), first.model_size())
        assert stage.resident("a.safetensors")["on"][str(device)] >= first.model_size()
        stage.node = Executing("p1", "4")
        with limited_to(int(1.5 * first.model_size())):
            comfy.model_management.load_models_gpu([second])
        move = stage.resident("a.safetensors")["moves"][0]
        assert (move["from"], move["to"]) == (str(device), "cpu")
        why = r"[\d.]+ MB were needed for checkpoints/b.safetensors in node 4 of prompt p1"
        assert re.fullmatch(why, move["why"])
        assert stage.resident("a.safetensors")["why"].endswith(f"moved to host memory: {move['why']}")
        assert str(device) not in stage.resident("a.safetensors")["on"]
        assert depot.residents.memory_stats()["moves"] == 3
