"""Compiling parts of a model, in place only while it is applied: the patches stay on the plain parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

COMPILE_KEY = "torch.compile"
TORCH_COMPILE_KWARGS = "torch_compile_kwargs"


def _swap(root: Any, path: str, part: Any) -> Any:
    """Put a part at a path with dots; returns what was there."""
    *parents, name = path.split(".")
    for parent in parents:
        root = getattr(root, parent)
    before = getattr(root, name)
    setattr(root, name, part)
    return before


def _with_parts(parts: dict[str, Any]) -> Callable[..., Any]:
    """A wrapper of apply_model that runs it with these parts in place."""

    def apply(executor: Any, *args: Any, **kwargs: Any) -> Any:
        replaced: dict[str, Any] = {}
        try:
            for path, part in parts.items():
                replaced[path] = _swap(executor.class_obj, path, part)
            return executor(*args, **kwargs)
        finally:
            for path, part in replaced.items():
                _swap(executor.class_obj, path, part)

    return apply


def set_torch_compile_wrapper(
    model: Any,
    backend: str,
    options: dict[str, str] | None = None,
    mode: str | None = None,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    keys: list[str] | None = None,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Let a model sample with compiled parts: those at `keys`, the diffusion model if there are none."""
    import torch

    from comfy.patcher_extension import WrappersMP

    chosen = {
        "backend": backend, "options": options, "mode": mode, "fullgraph": fullgraph, "dynamic": dynamic,
    }  # fmt: skip
    paths = keys or ["diffusion_model"]
    parts = {path: torch.compile(model=model.get_model_object(path), **chosen) for path in paths}
    model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY, _with_parts(parts))
    model.model_options[TORCH_COMPILE_KWARGS] = chosen
