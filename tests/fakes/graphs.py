"""Prompts written as Python, and a bench that runs them on a device.

g = Graph()
model, clip, vae = g.CheckpointLoaderSimple(ckpt_name="sd1.safetensors")
g.keep(g.CLIPTextEncode(text="a cat", clip=clip))
(conditioning,) = Bench("gpu_only").run(g)
"""

from __future__ import annotations

import asyncio
import contextlib

import torch

import comfy.model_management
import execution
import nodes
from comfy_execution.caching import CacheType
from tests.comfy_execution.rig import Host
from tests.fakes.accelerator import accelerated

KEEP = "KeepForTest"


class Graph:
    """A prompt. A method of the name of a node adds it, and gives its output, or the list of its outputs."""

    def __init__(self) -> None:
        self.prompt: dict[str, dict] = {}
        self._known: dict[str, object] = {}

    def __getattr__(self, class_type: str):
        return lambda **inputs: self.add(class_type, **inputs)

    def add(self, class_type: str, **inputs):
        """A node; inputs that are not given have their default, lists of choices their first one."""
        declared = nodes.NODE_CLASS_MAPPINGS[class_type].INPUT_TYPES()["required"]
        for name, (kind, *options) in declared.items():
            default = options[0].get("default") if options else None
            default = kind[0] if default is None and isinstance(kind, list) and kind else default
            if name not in inputs and default is not None:
                inputs[name] = default
        key = f"{class_type} {inputs}"
        if key not in self._known:
            number = f"{class_type} {len(self.prompt) + 1}"
            self.prompt[number] = {"class_type": class_type, "inputs": inputs}
            count = len(nodes.NODE_CLASS_MAPPINGS[class_type].RETURN_TYPES)
            self._known[key] = [number, 0] if count == 1 else [[number, place] for place in range(count)]
        return self._known[key]

    def keep(self, *links) -> None:
        """These outputs are what the graph gives."""
        for link in links:
            self.add(KEEP, value=link, place=len(self.prompt))


class _Keep:
    """Gives a value to the bench that runs the prompt."""

    CATEGORY, RETURN_TYPES, FUNCTION, OUTPUT_NODE = "test", (), "keep", True
    kept: dict[int, object] = {}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*", {}), "place": ("INT", {})}}

    @classmethod
    def IS_CHANGED(cls, **_inputs):
        return float("nan")

    def keep(self, value, place):
        self.kept[place] = value
        return {}


@contextlib.contextmanager
def all_nodes(**more):
    """Inside, all nodes are known, and these."""
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    asyncio.run(nodes.init_builtin_extra_nodes())
    nodes.NODE_CLASS_MAPPINGS.update({KEEP: _Keep, **more})
    try:
        yield
    finally:
        nodes.NODE_CLASS_MAPPINGS.clear()
        nodes.NODE_CLASS_MAPPINGS.update(before)


class Bench:
    """An executor on a device in one mode; it keeps what it has loaded from one prompt to the next.

    Args:
        mode: one of `accelerator.MODES`, or None for the CPU.
        device: options of `accelerated`.
    """

    def __init__(self, mode: str | None = None, **device) -> None:
        self.mode, self.device = mode, device
        self.executor = execution.PromptExecutor(Host(), cache_type=CacheType.LRU, cache_args={"lru": 1000})
        self._loaded: list = []

    @contextlib.contextmanager
    def active(self):
        """Inside, `comfy` works on the device of this bench."""
        loaded = comfy.model_management.current_loaded_models
        on_device = accelerated(mode=self.mode, **self.device) if self.mode else contextlib.nullcontext()
        with on_device as device:
            before, loaded[:] = list(loaded), self._loaded
            try:
                yield device
            finally:
                self._loaded[:], loaded[:] = list(loaded), before

    def run(self, graph: Graph) -> list:
        """What the graph keeps, in order. Raises AssertionError with the error of a node."""
        with self.active():
            _Keep.kept.clear()
            checked = asyncio.run(execution.validate_prompt("p", graph.prompt, None))
            valid, error, roots, node_errors = checked
            assert valid, (error, node_errors)
            self.executor.server.sent = []
            self.executor.execute(graph.prompt, "p", {"client_id": "test"}, roots)
            failures = [data for event, data, _ in self.executor.server.sent if event == "execution_error"]
            assert not failures, "{node_type}: {exception_message}\n".format(**failures[0]) + "".join(
                failures[0]["traceback"]
            )
            return [_Keep.kept.pop(place) for place in sorted(_Keep.kept)]


def tensors_in(value) -> list[torch.Tensor]:
    """All tensors of a value that passes between nodes, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for key in sorted(value, key=str) for tensor in tensors_in(value[key])]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in tensors_in(part)]
    return tensors_in(vars(value)) if type(value).__module__ == "comfy.clip_vision" else []
