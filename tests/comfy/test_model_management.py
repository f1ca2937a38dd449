"""Devices, precisions, and the list of models that are loaded."""

import gc
import subprocess
import sys

import pytest
import torch

from comfy import model_management as mm
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(args, "cpu", True)
    mm._choose_cpu_state.cache_clear()
    mm.current_loaded_models.clear()
    yield
    mm.current_loaded_models.clear()
    mm._choose_cpu_state.cache_clear()


def patcher() -> ModelPatcher:
    return ModelPatcher(torch.nn.Linear(4, 4).requires_grad_(False), CPU, CPU)


def test_importing_it_neither_reads_options_nor_touches_a_device():
    code = (
        "import comfy.model_management as m, sys, torch; from comfy.cli_args import args;"
        "assert not torch.cuda.is_initialized(); args.cpu = True;"
        "assert m.get_torch_device().type == 'cpu' and m.vram_state is m.VRAMState.DISABLED;"
        "assert 'diffusers' not in sys.modules and 'transformers' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_on_the_cpu_everything_is_there_and_computes_in_fp32():
    assert {mm.get_torch_device(), mm.vae_device(), mm.text_encoder_device(), mm.intermediate_device()} == {
        CPU
    }
    assert mm.unet_dtype(weight_dtype=torch.float16) is torch.float32
    assert mm.unet_manual_cast(torch.float16, CPU) is torch.float32
    assert mm.unet_manual_cast(torch.float32, CPU) is None
    assert mm.vae_dtype(CPU, [torch.bfloat16, torch.float32]) is torch.float32
    assert mm.text_encoder_dtype(CPU) is torch.float16
    assert mm.lora_compute_dtype(CPU) is torch.float32
    assert mm.cpu_mode() and not mm.mps_mode() and not mm.is_nvidia()
    assert mm.get_torch_device_name(CPU) == "cpu"


@pytest.mark.parametrize(
    ("option", "function", "expected"),
    [
        ("fp16_unet", mm.unet_dtype, torch.float16),
        ("bf16_unet", mm.unet_dtype, torch.bfloat16),
        ("fp8_e4m3fn_unet", mm.unet_dtype, torch.float8_e4m3fn),
        ("fp32_text_enc", mm.text_encoder_dtype, torch.float32),
        ("fp16_vae", mm.vae_dtype, torch.float16),
    ],
)
def test_the_command_line_decides_the_precision(monkeypatch, option, function, expected):
    monkeypatch.setattr(args, option, True)
    assert function() is expected


def test_a_flag_that_a_pack_sets_is_obeyed(monkeypatch):
    assert mm.EXTRA_RESERVED_VRAM == 400 * 1024 * 1024
    monkeypatch.setattr(mm, "EXTRA_RESERVED_VRAM", 7, raising=False)
    assert mm.extra_reserved_memory() == 7
    monkeypatch.setattr(mm, "vram_state", mm.VRAMState.HIGH_VRAM, raising=False)
    assert mm.unet_offload_device() == mm.get_torch_device()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mm.nonsense  # noqa: B018


def test_loaded_models_stand_in_the_list_newest_first_and_once():
    first, second = patcher(), patcher()
    mm.load_models_gpu([first, second])
    mm.load_model_gpu(first)
    assert mm.loaded_models() == [first, second]
    assert first.loaded_size() == first.model_size() == mm.module_size(first.model) == 80


def test_a_clone_takes_the_place_of_its_base():
    base = patcher()
    clone = base.clone()
    mm.load_models_gpu([base])
    mm.load_models_gpu([clone])
    assert mm.loaded_models() == [clone]


def test_a_patcher_that_nobody_holds_leaves_the_list_to_its_parent():
    base = patcher()
    clone = base.clone()
    mm.load_models_gpu([clone])
    del clone
    assert mm.loaded_models() == [base]
    del base
    mm.cleanup_models_gc()
    assert mm.current_loaded_models == []


def test_clones_that_go_together_leave_the_list_to_their_base():
    base = patcher()
    between = base.clone()
    clone = between.clone()
    mm.load_models_gpu([clone])
    clone.loop, between.loop = between, clone  # only the collector can free them, both at once
    del clone, between
    gc.collect()
    assert mm.loaded_models() == [base]


def test_free_memory_unloads_the_least_recently_used_first_and_only_as_many_as_needed(monkeypatch):
    models = [patcher() for _ in range(3)]
    mm.load_models_gpu(models)
    free = iter([10, 10, 1000])
    monkeypatch.setattr(mm, "get_free_memory", lambda device: next(free))
    unloaded = mm.free_memory(100, CPU)
    assert [loaded.model for loaded in unloaded] == [models[0], models[1]]
    assert mm.loaded_models() == [models[2]]
    assert models[0].loaded_size() == 0


def test_models_that_are_kept_survive_and_unload_all_takes_the_rest():
    first, second = patcher(), patcher()
    mm.load_models_gpu([first, second])
    mm.free_memory(1e30, CPU, keep_loaded=[mm.current_loaded_models[0]])
    assert mm.loaded_models() == [second]
    mm.unload_all_models()
    assert mm.loaded_models() == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (mm.OOM_EXCEPTION("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (MemoryError(), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (KeyError("x"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error, expected):
    assert mm.is_oom(error) is expected


def test_interruption_is_the_hosts():
    import comfy.interruption

    assert mm.InterruptProcessingException is comfy.interruption.InterruptProcessingException
    mm.interrupt_current_processing()
    assert mm.processing_interrupted()
    with pytest.raises(mm.InterruptProcessingException):
        mm.throw_exception_if_processing_interrupted()
    assert not mm.processing_interrupted()


def test_free_memory_of_the_machine_is_measured():
    assert 0 < mm.get_free_memory(CPU) <= mm.get_total_memory(CPU)
    assert mm.get_free_memory(CPU, torch_free_too=True)[0] > 0


@pytest.mark.gpu
def test_on_a_gpu_weights_go_there_and_come_back_without_a_copy():
    model = ModelPatcher(torch.nn.Linear(4, 4).requires_grad_(False), torch.device("cuda", 0), CPU)
    host = model.model.weight.data_ptr()
    mm.load_models_gpu([model])
    assert model.model.weight.device.type == "cuda"
    model.detach()
    assert model.model.weight.data_ptr() == host
