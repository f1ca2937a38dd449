"""Layers whose weights rest in host memory and come to the device when they compute.

    layer k computes          the weights of layer k + 1 are on their way, on a stream of their own

A layer's forward finds its weights where its input is, and knows nothing of it: they are put into the layer
just before and taken out just after, also when it fails. The order of layers is learned from the last run.
"""

from __future__ import annotations

import torch

Weights = dict[str, torch.Tensor]


class Streamer:
    """Streams the weights of `layers` to `device` while they compute, until it is closed.

    At least the next `layers_ahead` are on their way while one computes, and more of them as long as they
    are no more bytes than the largest.
    """

    def __init__(
        self, layers: list[torch.nn.Module], device: torch.device, *, layers_ahead: int = 1
    ) -> None:
        self.bytes_copied = 0
        self._layers_ahead = layers_ahead
        self._bytes_ahead = max((_size(layer) for layer in layers), default=0) if layers_ahead else 0
        self._lane = _Lane(device)
        self._next: dict[torch.nn.Module, torch.nn.Module] = {}
        self._last: torch.nn.Module | None = None
        self._coming: dict[torch.nn.Module, tuple[Weights, object]] = {}
        self._at_home: dict[torch.nn.Module, Weights] = {}
        self._hooks = [hook for layer in layers for hook in (
            layer.register_forward_pre_hook(self._before),
            layer.register_forward_hook(self._after, always_call=True),
        )]  # fmt: skip

    def rest(self) -> None:
        """Give back the memory of what is on its way; it comes again when it is needed."""
        self._coming.clear()

    def close(self) -> None:
        """Leave the layers alone; their weights are in host memory."""
        for hook in self._hooks:
            hook.remove()
        self.rest()

    def _before(self, layer: torch.nn.Module, _inputs) -> None:
        if layer not in self._coming:
            self._coming.clear()  # the order was another one this time
        weights, ticket = self._coming.pop(layer, None) or self._fetch(layer)
        self._lane.wait(ticket)
        self._at_home.setdefault(layer, dict(layer._parameters))
        for name, tensor in weights.items():
            layer._parameters[name] = torch.nn.Parameter(tensor, requires_grad=False)
        if self._last is not None:
            self._next[self._last] = layer
        self._last = layer
        if self._layers_ahead:
            self._fetch_ahead(layer)

    def _after(self, layer: torch.nn.Module, _inputs, _output) -> None:
        layer._parameters.update(self._at_home.pop(layer, {}))

    def _fetch_ahead(self, layer: torch.nn.Module) -> None:
        """Start the copies of the next layers."""
        count = size = 0
        following = self._next.get(layer)
        while following is not None and following not in self._at_home:
            count += 1
            size += _size(following)
            if count > self._layers_ahead and size > self._bytes_ahead:
                return
            if following not in self._coming:
                self._coming[following] = self._fetch(following)
            following = self._next.get(following)

    def _fetch(self, layer: torch.nn.Module) -> tuple[Weights, object]:
        home = _weights_of(layer)
        self.bytes_copied += sum(tensor.nbytes for tensor in home.values())
        return self._lane.copy(home)


def _size(layer: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in _weights_of(layer).values())


def _weights_of(layer: torch.nn.Module) -> Weights:
    return {name: tensor for name, tensor in layer._parameters.items() if tensor is not None}


class _Lane:
    """Copies to a device, on a stream of their own where the device has streams."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module = torch.get_device_module(device)
        has_streams = device.type != "cpu" and hasattr(self._module, "Stream")
        self._stream = self._module.Stream(device) if has_streams else None

    def copy(self, weights: Weights) -> tuple[Weights, object]:
        """(the weights on the device, what to wait for before they are used).

        The copy waits for what the device was to compute before. So it may take the memory of weights that
        were let go, while what is asked of the device from now on runs beside it.
        """
        if self._stream is None:
            return {name: tensor.to(self._device) for name, tensor in weights.items()}, None
        self._stream.wait_stream(self._module.current_stream(self._device))
        with self._module.stream(self._stream):
            copies = {name: tensor.to(self._device, non_blocking=True) for name, tensor in weights.items()}
            return copies, self._stream.record_event()

    def wait(self, ticket) -> None:
        """Let the device use a copy not before it has arrived."""
        if ticket is not None:
            self._module.current_stream(self._device).wait_event(ticket)
