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
            patch.setattr(management, "get_torch_device", lambda: device)
        patch.setattr(management, "_choose_cpu_state", lambda: management.CPUState.GPU)
        patch.setattr(management, "should_use_fp16", lambda *_, **__: half is torch.float16)
        patch.setattr(management, "should_use_bf16", lambda *_, **__: half is torch.bfloat16)
        if mode in ("gpu_only", "highvram", "normalvram"):
            patch.setattr(management, "text_encoder_device", lambda: device)
        undo.enter_context(_own_models())
        yield device


@contextlib.contextmanager
def _own_models() -> Iterator[None]:
    """Models that are loaded inside are forgotten at the end, those that were loaded before are back."""
    before = list(management.current_loaded_models)
    management.current_loaded_models.clear()
    try:
        yield
    finally:
        management.current_loaded_models[:] = before
