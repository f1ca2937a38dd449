"""A model loaded before a workflow asks for it: its usual loader node runs between two prompts, in the thread
that runs these, and what it gives is brought to its device. What a workflow loads later with the same node
and the usual settings is then in memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import folder_paths
from comfy_depot import hooks
from comfy_depot.upstream import core, running

LOADERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "checkpoints": ("CheckpointLoaderSimple", "ckpt_name", {}),
    "diffusion_models": ("UNETLoader", "unet_name", {"weight_dtype": "default"}),
    "vae": ("VAELoader", "vae_name", {}),
    "clip_vision": ("CLIPVisionLoader", "clip_name", {}),
}
"""{folder type: (class of the node, its input for the file, its other inputs)}"""
LOOK_SECONDS = 0.1


def load_model(folder: str, name: str) -> bool:
    """Load a model as a workflow would, and place it; whether it is kept in memory now.

    Waits for the server to be there, for a download, and for the end of a running prompt.

    Raises:
        ValueError: why that cannot be done before a workflow does it.
    """
    folder, depot = folder_paths.map_legacy(folder), hooks.armed()
    if depot is None:
        raise ValueError("The depot is off (--depot-off), and without it no model is kept in memory.")
    if folder not in LOADERS:
        raise ValueError(f"How '{folder}/{name}' is loaded is known when a workflow does it: it is pinned "
                         f"then. Loaded before are models of these types: {', '.join(LOADERS)}.")
    depot.fetch(folder, name)
    while core.server() is None:
        time.sleep(LOOK_SECONDS)
    running.between_prompts(core.server(), lambda: _load(folder, name))
    return any(f"{folder}/{name}" in model["names"] and (model["kept"] or model["in_use"])
               for model in depot.residents.models())


def _load(folder: str, name: str) -> None:
    class_type, parameter, settings = LOADERS[folder]
    node = core.nodes().NODE_CLASS_MAPPINGS[class_type]()
    given = getattr(node, node.FUNCTION)(**{parameter: name}, **settings)
    outputs = given if isinstance(given, tuple) else getattr(given, "args", ())
    patchers = list(_patchers(outputs))
    if patchers:
        core.model_management().load_models_gpu(patchers)


def _patchers(outputs: Iterable[Any]) -> Iterable[Any]:
    for output in outputs:
        patcher = getattr(output, "patcher", output)
        if hasattr(patcher, "load_device"):
            yield patcher
