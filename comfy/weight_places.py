"""Where the weights of one model are: on its device, in host memory, or streamed from there.

    place(model, device, bytes)     so much of it on the device, the rest streamed
    move(model, device)             all of it somewhere
    bring_home(model, names)        these weights to host memory

What all patchers of a model must agree about is kept on the model itself:

    weights_in_host_memory   {name: tensor} of weights that are on the device: to move back copies nothing.
                             Of a safetensors file they are mapped, not read, and take address space only
    streamed_weights         names of the weights that rest in host memory
    streamer                 brings them to the device
    placed_on                the device that all weights are on for sure, or None
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch

from comfy import host_memory, placement
from comfy.cli_args import args
from comfy.streaming import Streamer

# --- names ------------------------------------------------------------------------------------------


def owner_of(model: torch.nn.Module, key: str) -> tuple[torch.nn.Module | None, str]:
    """(the module that a weight belongs to, its name there); None where there is no such module."""
    *path, name = key.split(".")
    owner: torch.nn.Module | None = model
    for part in path:
        owner = None if owner is None else owner._modules.get(part)
    return owner, name


def size_of(model: torch.nn.Module, key: str) -> int:
    """Bytes of a weight; 0 where there is none of that name."""
    owner, name = owner_of(model, key)
    tensor = None if owner is None else owner._parameters.get(name)
    return 0 if tensor is None else tensor.nbytes


def set_tensor(owner: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Put a tensor in the place of a parameter or a buffer."""
    if name in owner._parameters:
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        owner._parameters[name] = tensor if is_parameter else torch.nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[name] = tensor


def own_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """(dotted name, tensor) of every parameter and buffer, also the buffers that are not saved."""
    for prefix, part in model.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                yield (f"{prefix}.{name}" if prefix else name), tensor


def _replace(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    for key, tensor in tensors.items():
        owner, name = owner_of(model, key)
        set_tensor(owner, name, tensor)


# --- places -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A layer whose weights nobody but itself uses, while it computes."""

    name: str
    module: torch.nn.Module
    weights: tuple[str, ...]
    """Their names in the model."""
    size: int


def layers_to_stream(model: torch.nn.Module) -> list[Layer]:
    """The layers without layers inside; buffers, and the weights of others, stay on the device."""
    attentions = [module for module in model.modules() if isinstance(module, torch.nn.MultiheadAttention)]
    read_from_outside = {part for attention in attentions for part in attention.modules()}
    layers = []
    for name, module in model.named_modules():
        weights = {key: tensor for key, tensor in module._parameters.items() if tensor is not None}
        if weights and not module._modules and module not in read_from_outside:
            names = tuple(f"{name}.{key}" if name else key for key in weights)
            layers.append(Layer(name, module, names, sum(t.nbytes for t in weights.values())))
    return layers


def place(
    model: torch.nn.Module, device: torch.device, size: int, budget: int | None, *, home: torch.device,
    patched: Collection[str],
) -> bool:
    """Have so many bytes of the weights on `device` (None: all) and the others streamed to it; False where
    all of them were there.

    Args:
        size: bytes of all weights.
        home: where they rest when the model is not loaded.
        patched: names of weights that are patched now.
    """
    is_whole = budget is None or budget >= size
    if is_whole and model.__dict__.get("placed_on") == device and not model.model_lowvram:
        model.model_loaded_weight_memory = size
        return False
    stop_streaming(model)
    layers = [] if is_whole else layers_to_stream(model)
    left = 0 if budget is None else budget - (size - sum(layer.size for layer in layers))
    resident = placement.choose_resident([(layer.name, layer.size) for layer in layers], left)
    streamed = [layer for layer in layers if layer.name not in resident]
    names = {name for layer in streamed for name in layer.weights}
    if names:
        bring_home(model, names, patched=patched)
        _replace(model, host_memory.lock_pages(dict(_named(model, names)), device))
        ahead = 0 if args.disable_async_offload else max(1, args.async_offload or 1)
        model.streamer = Streamer([layer.module for layer in streamed], device, layers_ahead=ahead)
    move(model, device, home=home, patched=patched, stay=names)
    model.streamed_weights = names
    model.model_lowvram = bool(names)
    model.placed_on = None if names else device
    model.model_loaded_weight_memory = size - sum(layer.size for layer in streamed)
    return True


def move(
    model: torch.nn.Module, device: torch.device, *, home: torch.device, patched: Collection[str] = (),
    stay: Collection[str] = (),
) -> None:
    """Move the weights to `device`, but those that `stay`."""
    kept = model.__dict__.setdefault("weights_in_host_memory", {})
    moving = {name: tensor for name, tensor in own_tensors(model)
              if tensor.device != device and name not in stay}  # fmt: skip
    if device.type == "cpu":
        moved = _back_home(moving, kept)
        kept.clear()
    else:
        if home.type == "cpu":
            kept.update({name: tensor for name, tensor in moving.items()
                         if tensor.device.type == "cpu" and name not in patched})  # fmt: skip
        moved = host_memory.to_device(moving, device)
    _replace(model, moved)
    model.device = device
    model.placed_on = None if stay else device


def bring_home(model: torch.nn.Module, names: Collection[str], *, patched: Collection[str]) -> None:
    """Move these weights, patched or not, to host memory."""
    kept = model.__dict__.get("weights_in_host_memory", {})
    away = {name: tensor for name, tensor in _named(model, names) if tensor.device.type != "cpu"}
    here = {name: kept[name] for name in away if name in kept and name not in patched}
    moved = host_memory.to_host({name: tensor for name, tensor in away.items() if name not in here})
    _replace(model, {**here, **moved})
    model.placed_on = None


def stop_streaming(model: torch.nn.Module) -> None:
    """Leave the layers alone; streamed weights stay in host memory."""
    streamer = model.__dict__.pop("streamer", None)
    if streamer is not None:
        streamer.close()
        model.placed_on = None
    model.streamed_weights = set()
    model.model_lowvram = False


def _named(model: torch.nn.Module, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for key in names:
        owner, name = owner_of(model, key)
        yield key, owner._parameters[name]


def _back_home(moving: Mapping[str, torch.Tensor], kept: Mapping[str, torch.Tensor]) -> host_memory.Weights:
    back = {name: kept[name] for name, tensor in moving.items() if _is_kept(kept.get(name), tensor)}
    return back | host_memory.to_host({name: tensor for name, tensor in moving.items() if name not in back})


def _is_kept(kept: torch.Tensor | None, tensor: torch.Tensor) -> bool:
    """Is this host copy all that must be kept? Where page-locked memory helps, a mapped file is not."""
    if kept is None or kept.dtype != tensor.dtype:
        return False
    return kept.is_pinned() or not host_memory.locks_pages(tensor.device)
