"""What happens to models and conditioning just before and after sampling."""

import collections
import math
import uuid

import comfy.hooks
import comfy.model_management
import comfy.patcher_extension
import comfy.utils

# Bytes that a model says it needs, over what it was seen to need on a CPU (SD1.x, 512x512: 4.5 per picture).
ESTIMATE_IS_HIGH_BY = 4


def prepare_mask(noise_mask, shape, device):
    """A mask in the latent's shape, on its device."""
    return comfy.utils.reshape_mask(noise_mask, shape).to(device)


def get_models_from_cond(cond, model_type):
    """Everything that the conditioning carries under this key, lists flattened."""
    models = []
    for entry in cond:
        if model_type in entry:
            value = entry[model_type]
            models.extend(value if isinstance(value, list) else [value])
    return models


def convert_cond(cond):
    """From the node's form [tokens, {...}] to one dictionary per conditioning, each with an identity."""
    converted = []
    for tokens, extras in cond:
        entry = dict(extras)
        entry.setdefault("model_conds", {})
        if tokens is not None:
            entry["cross_attn"] = tokens
        entry["uuid"] = uuid.uuid4()
        converted.append(entry)
    return converted


def get_hooks_from_cond(cond, full_hooks):
    """Add all hooks of a side to the group `full_hooks`, also those of its ControlNets; returns it."""
    for entry in cond:
        found = [entry.get("hooks")]
        control = entry.get("control")
        found += [] if control is None else control.get_extra_hooks()
        for hook in (hook for hooks in found if hooks is not None for hook in hooks.hooks):
            full_hooks.add(hook)
    return full_hooks


def get_additional_models(conds, dtype):
    """(models that the conditioning needs loaded, bytes they need to run)."""
    found = {"control": [], "gligen": [], "additional_models": []}
    for cond in conds.values():
        for kind, models in found.items():
            models.extend(get_models_from_cond(cond, kind))
    models, inference_memory = [], 0
    for control in set(found["control"]):
        models.extend(control.get_models())
        inference_memory += control.inference_memory_requirements(dtype)
    models.extend(gligen[1] for gligen in found["gligen"])
    return models + found["additional_models"], inference_memory


def get_additional_models_from_model_options(model_options=None):
    """The models that registered hooks ask for."""
    registered = (model_options or {}).get("registered_hooks")
    kind = comfy.hooks.EnumHookType.AdditionalModels
    return [] if registered is None else [m for hook in registered.get_type(kind) for m in hook.models or ()]


def cleanup_additional_models(models):
    """Let go of what models keep from the run."""
    for model in models:
        if hasattr(model, "cleanup"):
            model.cleanup()


def estimate_memory(model, noise_shape, conds):
    """(bytes to run all conditioning in one batch, bytes to run the largest alone)."""
    shapes = collections.defaultdict(list)
    for cond in conds.values():
        for entry in cond:
            for name, shape in model.model.extra_conds_shapes(**entry).items():
                shapes[name].append(shape)
    largest = {name: [max(known, key=math.prod)] for name, known in shapes.items()}
    batch, rest = noise_shape[0], list(noise_shape[1:])
    both = model.model.memory_required([batch * 2, *rest], cond_shapes=shapes)
    least = model.model.memory_required([batch, *rest], cond_shapes=largest)
    return both, least


def prepare_sampling(model, noise_shape, conds, model_options=None, force_full_load=False):
    """Load the model and what the conditioning needs: (the model, conds, the additional models)."""
    executor = comfy.patcher_extension.WrapperExecutor.new_executor(
        _prepare_sampling,
        comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, model_options or {}, is_model_options=True
        ),
    )
    return executor.execute(
        model, noise_shape, conds, model_options=model_options, force_full_load=force_full_load
    )


def _prepare_sampling(model, noise_shape, conds, model_options=None, force_full_load=False):
    models, inference_memory = get_additional_models(conds, model.model_dtype())
    models += model.get_nested_additional_models()
    models += get_additional_models_from_model_options(model_options)
    wanted, least = estimate_memory(model, noise_shape, conds)
    if comfy.model_management.is_device_cpu(model.load_device):  # a GPU says by itself that it is full
        what = f"{noise_shape[0]} latents of {' x '.join(str(side) for side in noise_shape[2:])}"
        comfy.model_management.refuse_what_can_never_fit(least / ESTIMATE_IS_HIGH_BY, what)
    comfy.model_management.load_models_gpu(
        [model, *models],
        memory_required=wanted + inference_memory,
        minimum_memory_required=least + inference_memory,
        force_full_load=force_full_load,
    )
    return model.model, conds, models


def cleanup_models(conds, models):
    """Undo `prepare_sampling`."""
    cleanup_additional_models(models)
    controls = set()
    for cond in conds.values():
        controls.update(get_models_from_cond(cond, "control"))
    cleanup_additional_models(controls)


def prepare_model_patcher(model, conds, model_options):
    """Put the wrappers and callbacks of the patcher where the network and the samplers look for them, and
    register the hooks of the conditioning.
    """
    options = model_options["transformer_options"]
    for kind, registered in (("wrappers", model.wrappers), ("callbacks", model.callbacks)):
        comfy.patcher_extension.merge_nested_dicts(options.setdefault(kind, {}), registered, copy_dict1=False)
    hooks = comfy.hooks.HookGroup()
    for cond in conds.values():
        get_hooks_from_cond(cond, hooks)
    known = comfy.hooks.HookGroup()
    target = comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model)
    for hook in hooks.hooks:
        if hook.hook_type != comfy.hooks.EnumHookType.Weight:
            hook.add_hook_patches(model, model_options, target, known)
    model.register_all_hook_patches(hooks, target, model_options, known)
    if len(known):
        model_options["registered_hooks"] = known
    keep_registered_hooks(conds, known)


def keep_registered_hooks(conds, registered):
    """Each entry's hooks, with its ControlNets', without those that are not registered. Entries that had one
    group have one afterwards, and so are evaluated together.
    """
    made = {}
    for cond in conds.values():
        for entry in cond:
            own, control = entry.get("hooks"), entry.get("control")
            key = (own, *([] if control is None else control.get_extra_hooks()))
            if key not in made:
                group = comfy.hooks.HookGroup.combine_all_hooks(list(key[::-1]))
                if group is not None and not group.is_subset_of(registered):
                    group = group.new_with_common_hooks(registered)
                made[key] = group or None
            entry["hooks"] = made[key]
