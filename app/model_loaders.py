"""Models are loaded as a workflow would load them, before any does: what is warmed up here, a workflow finds.

The loader node of the model's folder type runs, with the inputs that a workflow gave it last
(`loader_recipes.py`), so that the model in memory has the key that the workflow will ask for. Files are read
in the caller's thread; the store lets one model be read at a time. Which weights are on which device is
nobody's but the worker's to change, so they are brought to their device between two prompts.

The node runs outside of any prompt: it has no progress to show, and cancelling a prompt does not stop it. For
the same reason it would not have a missing file fetched, so files are fetched before.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import folder_paths
import nodes
from app.loader_recipes import LOADERS, Recipe, Recipes, default_recipe
from comfy_depot import hooks
from comfy_execution import schema_nodes
from comfy_execution.inputs import collect_inputs
from comfy_execution.mapping import single_arguments
from comfy_execution.node_facts import NodeFacts
from comfy_execution.node_run import merge_returns

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

NODE_ID = "warm-up"
LORAS = "loras"
"""No node gives a LoRA alone: the file itself is what is kept."""


def folders() -> list[str]:
    """The folder types whose models can be kept in memory."""
    return sorted({LORAS, *(folder for loader in LOADERS.values() for folder in loader.files.values())})


class ModelLoaders:
    """Loads models ahead of workflows. `between_prompts(act)` calls `act` while no prompt runs, in the thread
    that runs prompts, and returns when it has.
    """

    def __init__(self, recipes: Recipes, *, between_prompts: Callable[[Callable[[], None]], None]) -> None:
        self.recipes = recipes
        self._between_prompts = between_prompts

    def load_model(self, folder: str, name: str) -> bool:
        """Load a model and bring it to its device; whether it is kept in memory now (the budget may be full).

        May be called from any thread but the one that runs prompts, with gradients off (`inference_mode`).
        It waits for a download, for another model that is being read, and for the end of a running prompt.

        Raises:
            ValueError: models of this folder type cannot be kept, or how to load this one is not known.
            ModelUnavailable: a file is neither here nor in a manifest.
            Other errors are the loader's own.
        """
        folder, depot = folder_paths.map_legacy(folder), _depot()
        if folder == LORAS:
            depot.fetch(folder, name)
            _read_lora(name)
        else:
            recipe = self._recipe(folder, name)
            for file in recipe.files:
                depot.fetch(*file)
            self._place(_run(recipe))
        return any(f"{folder}/{name}" in model["names"] and (model["kept"] or model["in_use"])
                   for model in depot.residents.models())

    def _recipe(self, folder: str, name: str) -> Recipe:
        """How to load a model: as a workflow did, else as usual."""
        if folder not in folders():
            raise ValueError(f"Models of the type '{folder}' cannot be pinned in memory, since no loader "
                             f"keeps them there. Those of these types can: {', '.join(folders())}.")
        found = self.recipes.find(folder, name)
        if found is None or found.class_type not in nodes.NODE_CLASS_MAPPINGS:
            found = default_recipe(folder, name)
        if found is None:
            raise ValueError(f"No workflow has loaded '{folder}/{name}' yet, so the type that it is loaded "
                             "as is not known: it is pinned when one does.")
        return found

    def _place(self, outputs: Iterable[Any]) -> None:
        """Bring what a loader gave to its device. What is there already stays as it is, with the patches that
        the next prompt may want again.
        """
        import comfy.model_management

        patchers = [patcher for output in outputs for patcher in _patchers_of(output)]

        def place() -> None:
            missing = [patcher for patcher in patchers if not _is_placed(patcher)]
            if missing:
                comfy.model_management.load_models_gpu(missing)

        if patchers:
            self._between_prompts(place)


def _depot() -> Depot:
    depot: Depot | None = hooks.armed()
    if depot is None:
        raise ValueError("The depot is off (--depot-off), and without it no model is kept in memory.")
    return depot


def _read_lora(name: str) -> None:
    path = folder_paths.get_full_path_or_raise(LORAS, name)
    import comfy.lora_file

    comfy.lora_file.read_lora(path)


def _run(recipe: Recipe) -> list[Any]:
    """What the loader node gives: an object for each of its outputs."""
    class_def = nodes.NODE_CLASS_MAPPINGS[recipe.class_type]
    inputs = collect_inputs(recipe.inputs, NodeFacts(class_def), NODE_ID)
    if schema_nodes.is_schema_class(class_def):
        function = schema_nodes.bound_function(class_def, class_def.FUNCTION, inputs.schema)
    else:
        function = getattr(class_def(), class_def.FUNCTION)
    returned = function(**(single_arguments(inputs.values) or {}))
    if inspect.iscoroutine(returned):
        returned = asyncio.run(returned)
    outputs, _, expands = merge_returns([returned], class_def)
    if expands:
        raise ValueError(f"The node {recipe.class_type} of this server loads models by other nodes, so they "
                         "cannot be loaded ahead of a workflow.")
    return [value for values in outputs for value in values]


def _patchers_of(output: Any) -> list[Any]:
    """Of a MODEL, CLIP, VAE, CONTROL_NET, CLIP_VISION or UPSCALE_MODEL; none of anything else."""
    import comfy.model_patcher

    found = output.get_models() if hasattr(output, "get_models") else [getattr(output, "patcher", output)]
    return [patcher for patcher in found if isinstance(patcher, comfy.model_patcher.ModelPatcher)]


def _is_placed(patcher: Any) -> bool:
    is_there = patcher.current_loaded_device() == patcher.load_device
    return bool(is_there and patcher.loaded_size() >= patcher.model_size())
