"""Upstream's modules. They are imported here and nowhere else in this package, and each when it is asked for:
most of them load torch, and all of them are there only when upstream's `main.py` has begun.

They are given as `Any`, since their types are those of another program.
"""

from __future__ import annotations

from typing import Any


def arguments() -> Any:
    """The parsed command line."""
    from comfy.cli_args import args

    return args


def has_dynamic_vram() -> bool:
    """Whether weights come to the GPU and leave it piece by piece, as upstream of 2026 does by itself."""
    import comfy.cli_args

    enables: Any = getattr(comfy.cli_args, "enables_dynamic_vram", None)
    return enables is not None and bool(enables())


def nodes() -> Any:
    """The node classes."""
    import nodes

    return nodes


def model_management() -> Any:
    """The devices, and what is loaded on them."""
    import comfy.model_management

    return comfy.model_management


def progress_bar(total: int) -> Any:
    """A bar of the node that runs."""
    import comfy.utils

    return comfy.utils.ProgressBar(total)


def executing_context() -> Any:
    """The node that runs, of the calling task; None where there is none.

    Raises:
        ImportError: this upstream is from before July 2025 and keeps none.
    """
    from comfy_execution.utils import get_executing_context

    return get_executing_context()


def server() -> Any:
    """The server; None as long as there is none."""
    import server

    return getattr(server.PromptServer, "instance", None)


def without_gradients() -> Any:
    """What the worker runs prompts in."""
    import torch

    return torch.inference_mode()
