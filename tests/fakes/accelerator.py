"""A device that is not the CPU under `comfy`: the accounting device anywhere, a GPU where there is one.

    with accelerated(mode="gpu_only", capacity=1 << 30) as device:
        ...                             # comfy.model_management works on `device`

The one place that knows how `comfy.model_management` finds its device. All is undone at the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

import comfy.model_management as management
from comfy.cli_args import args
from tests.fakes import accounting_device, accounting_module

MODES = ("gpu_only", "highvram", "normalvram", "lowvram", "novram")
_NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
KINDS = (accounting_device.NAME, pytest.param("cuda", marks=[pytest.mark.gpu, _NEEDS_CUDA]))


@contextlib.contextmanager
def accelerated(
    kind: str = "acct", *, mode: str = "normalvram", capacity: int = 1 << 34, half: torch.dtype | None = None
) -> Iterator[torch.device]:
    """`comfy` runs on a device of this kind, "acct" or "cuda", in one of `MODES`.

    Args:
        capacity: bytes of the accounting device.
        half: what the device is said to be fast in, torch.float16 or torch.bfloat16; None: only in fp32.
    """
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as undo:
        for option in ("cpu", *MODES):
            patch.setattr(args, option, option == mode)
        device = torch.device("cuda", 0)
        if kind == accounting_device.NAME:
            accounting_device.register()
            undo.enter_context(accounting_module.present())
            undo.enter_context(accounting_device.limited_to(capacity))
            device = accounting_device.DEVICE
            _say_what_only_cuda_is_asked(patch, device)
        patch.setattr(management, "_choose_cpu_state", lambda: management.CPUState.GPU)
        patch.setattr(management, "should_use_fp16", lambda *_, **__: half is torch.float16)
        patch.setattr(management, "should_use_bf16", lambda *_, **__: half is torch.bfloat16)
        if mode in ("gpu_only", "highvram", "normalvram"):
            patch.setattr(management, "text_encoder_device", lambda: device)
        undo.enter_context(_own_models())
        yield device


def _say_what_only_cuda_is_asked(patch: pytest.MonkeyPatch, device: torch.device) -> None:
    """The answers of `comfy.model_management` that it has from `torch.cuda`."""
    of_cpu = {name: getattr(management, name) for name in ("get_total_memory", "get_free_memory")}
    module = torch.get_device_module(device)

    def total(dev=None, torch_total_too=False):
        if dev is not None and torch.device(dev).type == "cpu":
            return of_cpu["get_total_memory"](dev, torch_total_too)
        count = module.mem_get_info(device)[1]
        return (count, module.memory_reserved(device)) if torch_total_too else count

    def free(dev=None, torch_free_too=False):
        if dev is not None and torch.device(dev).type == "cpu":
            return of_cpu["get_free_memory"](dev, torch_free_too)
        kept = module.memory_reserved(device) - module.memory_allocated(device)
        count = module.mem_get_info(device)[0] + kept
        return (count, kept) if torch_free_too else count

    patch.setattr(management, "get_torch_device", lambda: device)
    patch.setattr(management, "get_total_memory", total)
    patch.setattr(management, "get_free_memory", free)
    patch.setattr(management, "soft_empty_cache", lambda force=False: module.empty_cache())


@contextlib.contextmanager
def _own_models() -> Iterator[None]:
    """Models that are loaded inside are forgotten at the end, those that were loaded before are back."""
    before = list(management.current_loaded_models)
    management.current_loaded_models.clear()
    try:
        yield
    finally:
        management.current_loaded_models[:] = before
