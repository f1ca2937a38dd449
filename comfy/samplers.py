"""From conditioning to denoised latents: schedulers, guidance, regions, batching, and the samplers by name.

How one picture is made:

    KSampler / sample_custom
      -> CFGGuider.sample            masks, copies of the conditioning, wrappers
        -> outer_sample              models are loaded
          -> inner_sample            latents scaled, conditioning resolved for this model and size
            -> KSAMPLER.sample       noise mixed in, the sampler function walks the schedule
              -> KSamplerX0Inpaint   the kept region of an inpainted latent is put back at each call
                -> CFGGuider.predict_noise -> sampling_function -> calc_cond_batch -> model.apply_model

Each function of that chain is looked up when it is called, since node packs replace them.
"""

import collections
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

import comfy.interruption
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.utils
from comfy import sampler_names
from comfy.cond_regions import (
    add_area_dims,
    apply_empty_x_to_equal_area,
    calculate_start_end_timesteps,
    create_cond_with_same_area_if_none,
    encode_model_conds,
    get_mask_aabb,
    resolve_areas_and_cond_masks,
    resolve_areas_and_cond_masks_multidim,
)
from comfy.extra_samplers import uni_pc
from comfy.k_diffusion import own_levels
from comfy.k_diffusion import sampling as k_diffusion_sampling
from comfy.schedulers import (
    beta_scheduler,
    ddim_scheduler,
    kl_optimal_scheduler,
    linear_quadratic_schedule,
    normal_scheduler,
    simple_scheduler,
)

# What node packs import from here although it lives in a neighbour.
REEXPORTED = (get_mask_aabb, resolve_areas_and_cond_masks)

# --- one conditioning on one latent --------------------------------------------------------------------

# The default of option arguments; read only.
NO_OPTIONS: dict = {}

# How many latent rows and columns an area fades over where it does not touch the picture's edge.
AREA_FEATHER = 8


class cond_obj(NamedTuple):  # noqa: N801 - the name that node packs know
    """One conditioning, ready to be evaluated on (a region of) the latent."""

    input_x: torch.Tensor
    mult: torch.Tensor  # weight of the result, in the region's shape
    conditioning: dict
    area: list[int] | None  # sizes, then offsets
    control: Any
    patches: dict | None
    uuid: Any
    hooks: Any


def get_area_and_mult(conds, x_in, timestep_in):
    """The conditioning as a `cond_obj` for this latent and noise level; None outside its timestep range."""
    if not _is_active(conds, timestep_in[0]):
        return None
    area = _area_within(conds, x_in)
    input_x = _cut(x_in, area, first_dim=2)
    conditioning = {
        name: value.process_cond(batch_size=x_in.shape[0], area=area)
        for name, value in conds["model_conds"].items()
    }
    return cond_obj(
        input_x=input_x,
        mult=_weights(conds, input_x, x_in, area),
        conditioning=conditioning,
        area=area,
        control=conds.get("control"),
        patches=_gligen_patches(conds.get("gligen"), input_x),
        uuid=conds["uuid"],
        hooks=conds.get("hooks"),
    )


def _is_active(conds, sigma):
    # Noise falls during a run, so a range starts at its larger sigma.
    if "timestep_start" in conds and sigma > conds["timestep_start"]:
        return False
    return not ("timestep_end" in conds and sigma < conds["timestep_end"])


def _area_within(conds, x):
    if "area" not in conds:
        return None
    dims = x.ndim - 2
    area = add_area_dims(conds["area"], dims)
    sizes, offsets = area[: len(area) // 2][:dims], area[len(area) // 2 :][:dims]
    sizes = [min(length - offset, size) for length, offset, size in zip(x.shape[2:], offsets, sizes)]
    return sizes + offsets


def _cut(tensor, area, first_dim):
    if area is None:
        return tensor
    dims = len(area) // 2
    for dim, (size, offset) in enumerate(zip(area[:dims], area[dims:])):
        tensor = tensor.narrow(first_dim + dim, offset, size)
    return tensor


def _weights(conds, input_x, x_in, area):
    strength = conds.get("strength", 1.0)
    if "mask" in conds:
        mask = _cut(conds["mask"][: input_x.shape[0]], area, first_dim=1) * conds.get("mask_strength", 1.0)
        repeats = (input_x.shape[0] // mask.shape[0], input_x.shape[1]) + (1,) * (mask.ndim - 1)
        return mask.unsqueeze(1).repeat(repeats) * strength
    weights = torch.ones_like(input_x) * strength
    return weights if area is None else _feathered(weights, area, x_in.shape)


def _feathered(weights, area, full_shape):
    dims = len(area) // 2
    for dim, (size, offset) in enumerate(zip(area[:dims], area[dims:])):
        rows = min(AREA_FEATHER, size // 4)
        ramp = torch.arange(1, rows + 1, device=weights.device, dtype=weights.dtype) / max(1, rows)
        along = torch.ones(size, device=weights.device, dtype=weights.dtype)
        if rows and offset != 0:
            along[:rows] *= ramp
        if rows and offset + size < full_shape[dim + 2]:
            along[size - rows :] *= ramp.flip(0)
        weights = weights * along.reshape((size,) + (1,) * (dims - 1 - dim))
    return weights


def _gligen_patches(gligen, input_x):
    if gligen is None:
        return None
    kind, patcher, *positions = gligen
    if kind == "position":
        patch = patcher.model.set_position(input_x.shape, positions[0], input_x.device)
    else:
        patch = patcher.model.set_empty(input_x.shape, input_x.device)
    return {"middle_patch": [patch]}


# --- evaluating conditioning in batches ----------------------------------------------------------------


def cond_equal_size(c1, c2):
    """Can these two sets of values be joined, value by value?"""
    if c1 is c2:
        return True
    return c1.keys() == c2.keys() and all(c1[name].can_concat(c2[name]) for name in c1)


def can_concat_cond(c1, c2):
    """Can these two conditionings be evaluated in one batch?"""
    return (
        c1.input_x.shape == c2.input_x.shape
        and c1.control is c2.control
        and c1.patches is c2.patches
        and cond_equal_size(c1.conditioning, c2.conditioning)
    )


def cond_cat(c_list):
    """The values of several conditionings joined along the batch."""
    grouped = collections.defaultdict(list)
    for values in c_list:
        for name, value in values.items():
            grouped[name].append(value)
    return {name: first.concat(rest) for name, (first, *rest) in grouped.items()}


class _Blend:
    """The weighted mean of the predictions for one group of conditionings (positive, negative, ...)."""

    def __init__(self, x):
        self.total = torch.zeros_like(x)
        # Nearly nothing instead of zero, so that a place nobody predicts divides to 0.
        self.weight = torch.full_like(x, 1e-37)

    def add(self, output, cond):
        """Take in one prediction, where its area is."""
        _cut(self.total, cond.area, first_dim=2).add_(output * cond.mult)
        _cut(self.weight, cond.area, first_dim=2).add_(cond.mult)

    def mean(self):
        """The blended prediction."""
        return self.total / self.weight


def calc_cond_batch(model, conds, x_in, timestep, model_options):
    """The denoised latent for each group of `conds`: as few model calls as memory allows."""
    handler = model_options.get("context_handler")
    if handler is None or not handler.should_use_context(model, conds, x_in, timestep, model_options):
        return _calc_cond_batch_outer(model, conds, x_in, timestep, model_options)
    return handler.execute(_calc_cond_batch_outer, model, conds, x_in, timestep, model_options)


def _calc_cond_batch_outer(model, conds, x_in, timestep, model_options):
    wrappers = comfy.patcher_extension.get_all_wrappers(
        comfy.patcher_extension.WrappersMP.CALC_COND_BATCH, model_options, is_model_options=True
    )
    executor = comfy.patcher_extension.WrapperExecutor.new_executor(_calc_cond_batch, wrappers)
    return executor.execute(model, conds, x_in, timestep, model_options)


def _calc_cond_batch(model, conds, x_in, timestep, model_options):
    return calc_cond_batches(model, [(conds, x_in, timestep)], model_options)[0]


def calc_cond_batches(model, parts, model_options):
    """`calc_cond_batch` for several (conds, latent, timestep) at one noise level, in shared model calls."""
    blends, waiting = [], collections.defaultdict(list)
    for number, (conds, x, timestep) in enumerate(parts):
        blends.append([_Blend(x) for _ in conds])
        for hooks, queue in _conds_to_run(model, conds, x, timestep, model_options).items():
            waiting[hooks] += [(cond, (number, group)) for cond, group in queue]
    model.current_patcher.prepare_state(parts[0][2])
    for hooks, queue in waiting.items():
        while queue:
            batch = _take_batch(model, queue, parts[0][1].device)
            _, (number, _) = batch[0]
            outputs = _evaluate(model, batch, hooks, parts[number][2], model_options)
            for output, (cond, (number, group)) in zip(outputs, batch):
                blends[number][group].add(output, cond)
    return [[blend.mean() for blend in sides] for sides in blends]


def _conds_to_run(model, conds, x_in, timestep, model_options):
    """{hooks: [(cond_obj, group index)]}; conditionings marked "default" get the weight that others leave."""
    waiting = collections.defaultdict(list)

    def add(cond, group, mult=None):
        ready = get_area_and_mult(cond, x_in, timestep)
        if ready is None:
            return
        if ready.hooks is not None:
            model.current_patcher.prepare_hook_patches_current_keyframe(timestep, ready.hooks, model_options)
        waiting[ready.hooks].append((ready if mult is None else ready._replace(mult=mult), group))

    for group, entries in enumerate(conds):
        for cond in entries or ():
            if "default" not in cond:
                add(cond, group)
    for group, entries in enumerate(conds):
        defaults = [cond for cond in entries or () if "default" in cond]
        if not defaults:
            continue
        left = torch.ones_like(x_in)
        for ready, other in [item for queue in waiting.values() for item in queue]:
            if other == group:
                _cut(left, ready.area, first_dim=2).sub_(ready.mult)
        left = left.clamp(min=0)
        if left.any():
            for cond in defaults:
                add(cond, group, mult=left)
    return waiting


def _take_batch(model, queue, device):
    """Remove from the queue what is evaluated next: what fits with its first entry and into memory."""
    first = queue[0][0]
    fitting = [index for index, (cond, _) in enumerate(queue) if can_concat_cond(cond, first)][::-1]
    free_memory = comfy.model_management.get_free_memory(device)
    chosen = fitting[:1]
    for parts in range(1, len(fitting) + 1):
        candidate = fitting[: len(fitting) // parts]
        shapes = collections.defaultdict(list)
        for index in candidate:
            for name, value in queue[index][0].conditioning.items():
                shapes[name].append(value.size())
        batch, *rest = first.input_x.shape
        needed = model.memory_required([len(candidate) * batch, *rest], cond_shapes=shapes)
        if needed * 1.5 < free_memory:
            chosen = candidate
            break
    return [queue.pop(index) for index in chosen]  # from the back, so the indices stay right


def _evaluate(model, batch, hooks, timestep, model_options):
    """One model call for a batch of (cond_obj, (part, group)): its predictions, one per entry."""
    comfy.interruption.throw_exception_if_processing_interrupted()
    ready = [cond for cond, _ in batch]
    cond_or_uncond = [group for _, (_, group) in batch]
    input_x = torch.cat([cond.input_x for cond in ready])
    timestep_ = torch.cat([timestep] * len(batch))
    c = cond_cat([cond.conditioning for cond in ready])
    options = _transformer_options(model, ready, hooks, timestep, model_options)
    options["cond_or_uncond"] = list(cond_or_uncond)
    c["transformer_options"] = options
    if ready[0].control is not None:
        c["control"] = ready[0].control.get_control(input_x, timestep_, c, len(batch), options)
    wrapper = model_options.get("model_function_wrapper")
    if wrapper is not None:
        args = {"input": input_x, "timestep": timestep_, "c": c, "cond_or_uncond": cond_or_uncond}
        output = wrapper(model.apply_model, args)
    else:
        output = model.apply_model(input_x, timestep_, **c)
    return output.chunk(len(batch))


def _transformer_options(model, ready, hooks, timestep, model_options):
    options = comfy.patcher_extension.merge_nested_dicts(
        model.current_patcher.apply_hooks(hooks=hooks), model_options.get("transformer_options", {})
    )
    patches = ready[0].patches
    if patches is not None:
        options["patches"] = comfy.patcher_extension.merge_nested_dicts(options.get("patches", {}), patches)
    options["uuids"] = [cond.uuid for cond in ready]
    options["sigmas"] = timestep
    return options


def calc_cond_uncond_batch(model, cond, uncond, x_in, timestep, model_options):
    """Kept for node packs: `calc_cond_batch` for two groups."""
    logging.warning("comfy.samplers.calc_cond_uncond_batch is deprecated, use calc_cond_batch.")
    return tuple(calc_cond_batch(model, [cond, uncond], x_in, timestep, model_options))


# --- guidance ------------------------------------------------------------------------------------------


def cfg_function(
    model, cond_pred, uncond_pred, cond_scale, x, timestep, model_options=NO_OPTIONS, cond=None, uncond=None
):
    """Classifier-free guidance (Ho & Salimans 2022) or its replacement, then what is to come after it."""
    shared = {
        "cond_scale": cond_scale,
        "sigma": timestep,
        "input": x,
        "model": model,
        "model_options": model_options,
    }
    shared |= {"cond_denoised": cond_pred, "uncond_denoised": uncond_pred}
    if "sampler_cfg_function" in model_options:
        noise = {"cond": x - cond_pred, "uncond": x - uncond_pred, "timestep": timestep}
        inputs = {"input_cond": cond, "input_uncond": uncond}
        result = x - model_options["sampler_cfg_function"](shared | noise | inputs)
    else:
        result = uncond_pred + (cond_pred - uncond_pred) * cond_scale
    for function in model_options.get("sampler_post_cfg_function", []):
        result = function(shared | {"denoised": result, "cond": cond, "uncond": uncond})
    return result


def sampling_function(model, x, timestep, uncond, cond, cond_scale, model_options=NO_OPTIONS, seed=None):
    """The guided denoised latent. At scale 1 the negative side has no weight and is not evaluated."""
    conds = sides_with_weight(cond, uncond, cond_scale, model_options)
    if "sampler_calc_cond_batch_function" in model_options:
        args = {"conds": conds, "input": x, "sigma": timestep, "model": model, "model_options": model_options}
        out = model_options["sampler_calc_cond_batch_function"](args)
    else:
        out = calc_cond_batch(model, conds, x, timestep, model_options)
    return guide(model, out, conds, x, timestep, cond_scale, model_options)


def sides_with_weight(cond, uncond, cond_scale, model_options):
    """[positive, negative], None for a negative side that has no weight."""
    needs_both = not math.isclose(cond_scale, 1.0) or model_options.get("disable_cfg1_optimization", False)
    return [cond, uncond if needs_both else None]


def guide(model, out, conds, x, timestep, cond_scale, model_options):
    """The guided denoised latent from what `calc_cond_batch` gave for `conds`."""
    args = {"conds": conds, "input": x, "sigma": timestep, "model": model, "model_options": model_options}
    for function in model_options.get("sampler_pre_cfg_function", []):
        out = function(args | {"conds_out": out, "cond_scale": cond_scale, "timestep": timestep})
    sides = {"cond": conds[0], "uncond": conds[1]}
    return cfg_function(model, out[0], out[1], cond_scale, x, timestep, model_options=model_options, **sides)


class KSamplerX0Inpaint:
    """The model as samplers call it; with a mask, the kept region is the latent at this noise level."""

    def __init__(self, model, sigmas):
        self.inner_model = model
        self.sigmas = sigmas
        self.latent_image = None
        self.noise = None

    def __call__(self, x, sigma, denoise_mask, model_options=NO_OPTIONS, seed=None):
        if denoise_mask is None:
            return self.inner_model(x, sigma, model_options=model_options, seed=seed)
        if "denoise_mask_function" in model_options:
            extra_options = {"model": self.inner_model, "sigmas": self.sigmas}
            function = model_options["denoise_mask_function"]
            denoise_mask = function(sigma, denoise_mask, extra_options=extra_options)
        kept = self.inner_model.inner_model.scale_latent_inpaint(
            x=x, sigma=sigma, noise=self.noise, latent_image=self.latent_image, denoise_mask=denoise_mask
        )
        x = x * denoise_mask + kept * (1.0 - denoise_mask)
        out = self.inner_model(x, sigma, model_options=model_options, seed=seed)
        return out * denoise_mask + self.latent_image * (1.0 - denoise_mask)


# --- schedulers ----------------------------------------------------------------------------------------


class SchedulerHandler(NamedTuple):
    """`handler(model_sampling, steps)` when `use_ms`, else `handler(n=, sigma_min=, sigma_max=)`."""

    handler: Callable[..., torch.Tensor]
    use_ms: bool = True


# Node packs add entries here and to the list of names.
SCHEDULER_HANDLERS = {
    "simple": SchedulerHandler(simple_scheduler),
    "sgm_uniform": SchedulerHandler(partial(normal_scheduler, sgm=True)),
    "karras": SchedulerHandler(k_diffusion_sampling.get_sigmas_karras, use_ms=False),
    "exponential": SchedulerHandler(k_diffusion_sampling.get_sigmas_exponential, use_ms=False),
    "ddim_uniform": SchedulerHandler(ddim_scheduler),
    "beta": SchedulerHandler(beta_scheduler),
    "normal": SchedulerHandler(normal_scheduler),
    "linear_quadratic": SchedulerHandler(linear_quadratic_schedule),
    "kl_optimal": SchedulerHandler(kl_optimal_scheduler, use_ms=False),
}
SCHEDULER_NAMES = sampler_names.SCHEDULER_NAMES


def calculate_sigmas(model_sampling, scheduler_name, steps):
    """The noise levels of a scheduler by name: steps + 1 of them, descending, on the CPU."""
    entry = SCHEDULER_HANDLERS.get(scheduler_name)
    if entry is None:
        raise ValueError(
            f"There is no scheduler '{scheduler_name}'. Known are: {', '.join(SCHEDULER_HANDLERS)}."
        )
    if entry.use_ms:
        return entry.handler(model_sampling, steps)
    bounds = {"sigma_min": float(model_sampling.sigma_min), "sigma_max": float(model_sampling.sigma_max)}
    return entry.handler(n=steps, **bounds)


# --- resolving conditioning for one model and size -----------------------------------------------------


def pre_run_control(model, conds):
    """Tell each control model which model it controls and how its schedule runs."""
    for cond in conds:
        if "control" in cond:
            cond["control"].pre_run(model, model.model_sampling.percent_to_sigma)


def process_conds(
    model, noise, conds, device, latent_image=None, denoise_mask=None, seed=None, latent_shapes=None
):
    """Resolve {"positive": [...], "negative": [...]} for this model and latent; the lists are replaced."""
    for name in conds:
        conds[name] = list(conds[name])
        resolve_areas_and_cond_masks_multidim(conds[name], noise.shape[2:], device)
        calculate_start_end_timesteps(model, conds[name])
    known = {
        "latent_image": latent_image,
        "denoise_mask": denoise_mask,
        "seed": seed,
        "latent_shapes": latent_shapes,
    }
    if hasattr(model, "extra_conds"):
        for name in conds:
            conds[name] = encode_model_conds(model.extra_conds, conds[name], noise, device, name, **known)
    # Guidance compares sides place by place, so each area needs its counterpart.
    for name in conds:
        for cond in list(conds[name]):
            for other in conds:
                if other != name:
                    create_cond_with_same_area_if_none(conds[other], cond)
    for name in conds:
        for cond in conds[name]:
            if cond.get("hooks") is not None:
                for hook in cond["hooks"].hooks:
                    hook.initialize_timesteps(model)
        pre_run_control(model, conds[name])
    _mirror_positive(conds)
    return conds


def _mirror_positive(conds):
    positive = conds.get("positive", [])
    shared = [cond for cond in positive if cond.get("control_apply_to_uncond", False)]
    for name in conds:
        if name != "positive":
            apply_empty_x_to_equal_area(shared, conds[name], "control", lambda given, i: given[i])
            apply_empty_x_to_equal_area(positive, conds[name], "gligen", lambda given, i: given[i])


# --- samplers by name ----------------------------------------------------------------------------------


class Sampler:
    """What CFGGuider needs of a sampler."""

    def sample(self):
        """Overridden."""

    def max_denoise(self, model_wrap, sigmas):
        """Does the run start at (or above) the model's largest noise level?"""
        largest, first = float(model_wrap.inner_model.model_sampling.sigma_max), float(sigmas[0])
        return math.isclose(largest, first, rel_tol=1e-05) or first > largest


class KSAMPLER(Sampler):
    """A sampler function of `comfy.k_diffusion.sampling` with its options."""

    def __init__(self, sampler_function, extra_options=NO_OPTIONS, inpaint_options=NO_OPTIONS):
        self.sampler_function = sampler_function
        self.extra_options = extra_options
        self.inpaint_options = inpaint_options

    def sample(
        self,
        model_wrap,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image=None,
        denoise_mask=None,
        disable_pbar=False,
    ):
        """Mix the noise in, walk the schedule, and take the latent out of the model's terms."""
        extra_args["denoise_mask"] = denoise_mask
        model_k = KSamplerX0Inpaint(model_wrap, sigmas)
        model_k.latent_image = latent_image
        model_k.noise = self._inpaint_noise(noise, extra_args)
        model_sampling = model_wrap.inner_model.model_sampling
        x = model_sampling.noise_scaling(sigmas[0], noise, latent_image, self.max_denoise(model_wrap, sigmas))
        steps = len(sigmas) - 1

        def report(step):
            callback(step["i"], step["denoised"], step["x"], steps)

        samples = self.sampler_function(
            model_k,
            x,
            sigmas,
            extra_args=extra_args,
            callback=None if callback is None else report,
            disable=disable_pbar,
            **self.extra_options,
        )
        return model_sampling.inverse_noise_scaling(sigmas[-1], samples)

    def _inpaint_noise(self, noise, extra_args):
        if not self.inpaint_options.get("random", False):
            return noise
        seeds = extra_args.get("seed", 41)
        if isinstance(seeds, k_diffusion_sampling.SeedsOfRequests):
            return seeds.noise_sampler(_drawn_once, noise)(None, None)
        return _drawn_once(noise, seeds)(None, None)


def _drawn_once(like, seed):
    generator = torch.manual_seed(seed + 1)
    noise = torch.randn(like.shape, generator=generator, device="cpu").to(like.dtype).to(like.device)
    return lambda sigma, sigma_next: noise


# The first two choose their own noise levels between the first and the last of the schedule; packs know the
# others by another module.
_ELSEWHERE = {
    "dpm_fast": own_levels.dpm_fast,
    "dpm_adaptive": own_levels.dpm_adaptive,
    "uni_pc": uni_pc.sample_unipc,
    "uni_pc_bh2": uni_pc.sample_unipc_bh2,
}


def ksampler(sampler_name, extra_options=NO_OPTIONS, inpaint_options=NO_OPTIONS):
    """The sampler of `comfy.k_diffusion.sampling` with this name; node packs add functions there."""
    function = _ELSEWHERE.get(sampler_name) or getattr(k_diffusion_sampling, f"sample_{sampler_name}", None)
    if function is None:
        raise ValueError(
            f"There is no sampler '{sampler_name}'. Known are: {', '.join(sampler_names.samplers())}."
        )
    return KSAMPLER(function, extra_options, inpaint_options)


def sampler_object(name):
    """The sampler of a name in KSampler.SAMPLERS. DDIM is Euler whose inpainting noise is not the start
    noise.
    """
    if name == "ddim":
        return ksampler("euler", inpaint_options={"random": True})
    return ksampler(name)


SAMPLER_NAMES = sampler_names.SAMPLER_NAMES
KSAMPLER_NAMES = [name for name in SAMPLER_NAMES if name not in ("ddim", "uni_pc", "uni_pc_bh2")]


# --- guiders -------------------------------------------------------------------------------------------


def _wrapped(function, owner, kind, model_options):
    wrappers = comfy.patcher_extension.get_all_wrappers(kind, model_options, is_model_options=True)
    return comfy.patcher_extension.WrapperExecutor.new_class_executor(function, owner, wrappers)


class CFGGuider:
    """Samples with a positive and a negative side. Subclasses change `predict_noise` or add sides."""

    def __init__(self, model_patcher):
        self.model_patcher = model_patcher
        self.model_options = model_patcher.model_options
        self.original_conds = {}
        self.cfg = 1.0

    def set_conds(self, positive, negative):
        """The two sides, as nodes hand them on."""
        self.inner_set_conds({"positive": positive, "negative": negative})

    def set_cfg(self, cfg):
        """The guidance scale."""
        self.cfg = cfg

    def inner_set_conds(self, conds):
        """Any number of named sides."""
        for name, cond in conds.items():
            self.original_conds[name] = comfy.sampler_helpers.convert_cond(cond)

    def __call__(self, *args, **kwargs):
        return self.outer_predict_noise(*args, **kwargs)

    def outer_predict_noise(self, x, timestep, model_options=NO_OPTIONS, seed=None):
        """`predict_noise` through its wrappers."""
        kind = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
        executor = _wrapped(self.predict_noise, self, kind, self.model_options)
        return executor.execute(x, timestep, model_options, seed)

    def predict_noise(self, x, timestep, model_options=NO_OPTIONS, seed=None):
        """The guided denoised latent (the name is older than the meaning)."""
        return sampling_function(
            self.inner_model,
            x,
            timestep,
            self.conds.get("negative", None),
            self.conds.get("positive", None),
            self.cfg,
            model_options=model_options,
            seed=seed,
        )

    def inner_sample(
        self,
        noise,
        latent_image,
        device,
        sampler,
        sigmas,
        denoise_mask,
        callback,
        disable_pbar,
        seed,
        latent_shapes=None,
    ):
        """Sample with the model loaded and everything on its device."""
        # An empty latent stands for "nothing" and must stay zero where a model's latents are shifted.
        if latent_image is not None and torch.count_nonzero(latent_image) > 0:
            latent_image = self.inner_model.process_latent_in(latent_image)
        self.conds = process_conds(
            self.inner_model,
            noise,
            self.conds,
            device,
            latent_image,
            denoise_mask,
            seed,
            latent_shapes=latent_shapes,
        )
        options = comfy.model_patcher.create_model_options_clone(self.model_options)
        options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas
        extra_args = {"model_options": options, "seed": seed}
        executor = _wrapped(
            sampler.sample, sampler, comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, options
        )
        samples = executor.execute(
            self, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar
        )
        return self.inner_model.process_latent_out(samples.to(torch.float32))

    def outer_sample(
        self,
        noise,
        latent_image,
        sampler,
        sigmas,
        denoise_mask=None,
        callback=None,
        disable_pbar=False,
        seed=None,
        latent_shapes=None,
    ):
        """Load the models, sample, and let go of them."""
        self.inner_model, self.conds, self.loaded_models = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, noise.shape, self.conds, self.model_options
        )
        device = self.model_patcher.load_device
        try:
            self.model_patcher.pre_run()
            return self.inner_sample(
                noise.to(device=device, dtype=torch.float32),
                latent_image.to(device=device, dtype=torch.float32),
                device,
                sampler,
                sigmas.to(device),
                denoise_mask,
                callback,
                disable_pbar,
                seed,
                latent_shapes=latent_shapes,
            )
        finally:
            self.model_patcher.cleanup()
            comfy.sampler_helpers.cleanup_models(self.conds, self.loaded_models)
            del self.inner_model
            del self.loaded_models

    def sample(
        self,
        noise,
        latent_image,
        sampler,
        sigmas,
        denoise_mask=None,
        callback=None,
        disable_pbar=False,
        seed=None,
    ):
        """Sample `latent_image` from `sigmas[0]` down. No levels: the latent comes back as it is."""
        if sigmas.shape[-1] == 0:
            return latent_image
        if denoise_mask is not None:
            denoise_mask = comfy.sampler_helpers.prepare_mask(
                denoise_mask.float(), latent_image.shape, self.model_patcher.load_device
            )
        self.conds = {name: [dict(cond) for cond in conds] for name, conds in self.original_conds.items()}
        original_options = self.model_options
        self.model_options = comfy.model_patcher.create_model_options_clone(original_options)
        try:
            comfy.sampler_helpers.prepare_model_patcher(self.model_patcher, self.conds, self.model_options)
            kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
            executor = _wrapped(self.outer_sample, self, kind, self.model_options)
            return executor.execute(
                noise,
                latent_image,
                sampler,
                sigmas,
                denoise_mask,
                callback,
                disable_pbar,
                seed,
                latent_shapes=[latent_image.shape],
            )
        finally:
            self.model_options = original_options
            self.model_patcher.restore_hook_patches()
            del self.conds


def sample(
    model,
    noise,
    positive,
    negative,
    cfg,
    device,
    sampler,
    sigmas,
    model_options=NO_OPTIONS,
    latent_image=None,
    denoise_mask=None,
    callback=None,
    disable_pbar=False,
    seed=None,
):
    """Sample with classifier-free guidance."""
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider.sample(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)


class KSampler:
    """A sampler and a scheduler by name, with img2img strength and step ranges."""

    # Shared with comfy.sampler_names; node packs append to them.
    SCHEDULERS = SCHEDULER_NAMES
    SAMPLERS = SAMPLER_NAMES
    # These evaluate between two levels, and get one level more that they may lose.
    DISCARD_PENULTIMATE_SIGMA_SAMPLERS = {"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"}

    def __init__(
        self, model, steps, device, sampler=None, scheduler=None, denoise=None, model_options=NO_OPTIONS
    ):
        self.model = model
        self.device = device
        self.scheduler = scheduler if scheduler in self.SCHEDULERS else self.SCHEDULERS[0]
        self.sampler = sampler if sampler in self.SAMPLERS else self.SAMPLERS[0]
        self.set_steps(steps, denoise)
        self.denoise = denoise
        self.model_options = model_options

    def calculate_sigmas(self, steps):
        """The schedule for this sampler."""
        model_sampling = self.model.get_model_object("model_sampling")
        if self.sampler not in self.DISCARD_PENULTIMATE_SIGMA_SAMPLERS:
            return calculate_sigmas(model_sampling, self.scheduler, steps)
        sigmas = calculate_sigmas(model_sampling, self.scheduler, steps + 1)
        return torch.cat([sigmas[:-2], sigmas[-1:]])

    def set_steps(self, steps, denoise=None):
        """`denoise` below 1: the last `steps` of a schedule that is longer by that factor."""
        self.steps = steps
        if denoise is None or denoise > 0.9999:
            self.sigmas = self.calculate_sigmas(steps).to(self.device)
        elif denoise <= 0.0:
            self.sigmas = torch.FloatTensor([])
        else:
            self.sigmas = self.calculate_sigmas(int(steps / denoise)).to(self.device)[-(steps + 1) :]

    def levels(self, start_step=None, last_step=None, force_full_denoise=False, sigmas=None):
        """The noise levels of a range of steps; None for a range without steps."""
        sigmas = self.sigmas if sigmas is None else sigmas
        if last_step is not None and last_step < len(sigmas) - 1:
            sigmas = sigmas[: last_step + 1].clone()
            if force_full_denoise:
                sigmas[-1] = 0
        if start_step is not None:
            sigmas = sigmas[start_step:] if start_step < len(sigmas) - 1 else None
        return sigmas

    def sample(
        self,
        noise,
        positive,
        negative,
        cfg,
        latent_image=None,
        start_step=None,
        last_step=None,
        force_full_denoise=False,
        denoise_mask=None,
        sigmas=None,
        callback=None,
        disable_pbar=False,
        seed=None,
    ):
        """Sample the steps from `start_step` to `last_step`; a range without steps gives the latent back."""
        sigmas = self.levels(start_step, last_step, force_full_denoise, sigmas)
        if sigmas is None:
            return torch.zeros_like(noise) if latent_image is None else latent_image
        return sample(
            self.model,
            noise,
            positive,
            negative,
            cfg,
            self.device,
            sampler_object(self.sampler),
            sigmas,
            self.model_options,
            latent_image=latent_image,
            denoise_mask=denoise_mask,
            callback=callback,
            disable_pbar=disable_pbar,
            seed=seed,
        )
