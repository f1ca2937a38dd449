"""Where and when a conditioning holds: areas, masks and timestep ranges resolved for one model and latent.

An area is (sizes..., offsets...) in latent units, for example (height, width, y, x); or ("percentage", ...)
with shares of the latent. Lists of conditionings are changed in place, their entries are replaced by copies.
"""

import logging
import math

import torch

import comfy.utils

# Larger than any latent: the size of an area along dimensions that it does not restrict.
WHOLE_DIMENSION = 2147483648


def add_area_dims(area, num_dims):
    """An area of `num_dims` dimensions: the ones it lacks come first and are unrestricted."""
    area = list(area)
    dims = len(area) // 2
    missing = max(0, num_dims - dims)
    return [WHOLE_DIMENSION] * missing + area[:dims] + [0] * missing + area[dims:]


def get_mask_aabb(masks):
    """(boxes (B, 4) as x0, y0, x1, y1 inclusive; which masks are empty (B,))."""
    boxes = torch.zeros((masks.shape[0], 4), device=masks.device, dtype=torch.int)
    is_empty = torch.zeros(masks.shape[0], device=masks.device, dtype=torch.bool)
    for i, mask in enumerate(masks):
        y, x = torch.where(mask)
        if y.numel() == 0:
            is_empty[i] = mask.numel() > 0
            continue
        boxes[i] = torch.stack([x.min(), y.min(), x.max(), y.max()])
    return boxes, is_empty


def resolve_areas_and_cond_masks_multidim(conditions, dims, device):
    """Turn percentages into latent units and scale masks to the latent, in place of the list's entries."""
    for i, cond in enumerate(conditions):
        if "area" in cond and cond["area"][0] == "percentage":
            conditions[i] = cond = {**cond, "area": _area_from_percentage(cond["area"][1:], dims)}
        if "mask" in cond:
            conditions[i] = _with_scaled_mask(cond, dims, device)


def _area_from_percentage(shares, dims):
    half = len(shares) // 2
    sizes = tuple(max(1, round(share * length)) for share, length in zip(shares[:half], dims))
    return sizes + tuple(round(share * length) for share, length in zip(shares[half:], dims))


def _with_scaled_mask(cond, dims, device):
    mask = cond["mask"].to(device=device)
    if mask.ndim == len(dims):
        mask = mask.unsqueeze(0)
    if tuple(mask.shape[1:]) != tuple(dims):
        flat = mask.unsqueeze(1) if mask.ndim < 4 else mask
        flat = comfy.utils.common_upscale(flat, dims[-1], dims[-2], "bilinear", "none")
        mask = flat.squeeze(1) if mask.ndim < 4 else flat
    cond = {**cond, "mask": mask}
    if cond.get("set_area_to_bounds", False):
        boxes, is_empty = get_mask_aabb(mask.abs().amax(dim=0, keepdim=True))
        x0, y0, x1, y1 = (int(v) for v in boxes[0])
        # An empty mask changes nothing; the smallest area is the cheapest way to say so.
        bounds = (max(8, y1 - y0 + 1), max(8, x1 - x0 + 1), y0, x0)
        cond["area"] = (8, 8, 0, 0) if is_empty[0] else bounds
    return cond


def resolve_areas_and_cond_masks(conditions, h, w, device):
    """Kept for node packs: `resolve_areas_and_cond_masks_multidim` for pictures."""
    logging.warning(
        "comfy.samplers.resolve_areas_and_cond_masks is deprecated: use the one that ends in _multidim."
    )
    return resolve_areas_and_cond_masks_multidim(conditions, [h, w], device)


def calculate_start_end_timesteps(model, conds):
    """Turn start and end percentages of the schedule into noise levels."""
    to_sigma = model.model_sampling.percent_to_sigma
    for i, cond in enumerate(conds):
        start, end = cond.get("start_percent"), cond.get("end_percent")
        if "clip_start_percent" in cond:
            start = max(cond["clip_start_percent"], 0.0 if start is None else start)
            end = min(cond["clip_end_percent"], 1.0 if end is None else end)
        levels = {
            name: to_sigma(percent)
            for name, percent in (("timestep_start", start), ("timestep_end", end))
            if percent is not None
        }
        if levels:
            conds[i] = {**cond, **levels}


def encode_model_conds(model_function, conds, noise, device, prompt_type, **kwargs):
    """Let the model turn each conditioning into arguments of its network (`model_conds`), on its device."""
    for i, cond in enumerate(conds):
        params = {**kwargs, **cond, "device": device, "noise": noise}
        # The latent's size in pixels, for models that are conditioned on it.
        params.setdefault("width", noise.shape[3] * 8 if noise.ndim >= 4 else None)
        params.setdefault("height", noise.shape[2] * 8)
        params.setdefault("prompt_type", prompt_type)
        made = {**cond["model_conds"], **model_function(**params)}
        there = {name: _on_device(value, device) for name, value in made.items()}
        conds[i] = {**cond, "model_conds": there}
    return conds


def _on_device(value, device):
    """Values of packs need not know how to go there; the model moves those at each step."""
    return value.on_device(device) if hasattr(value, "on_device") else value


def create_cond_with_same_area_if_none(conds, c):
    """Give `conds` an entry for the area of `c`, with the values of the smallest one that covers it."""
    if "area" not in c:
        return
    covering = [x for x in conds if "area" not in x or _area_inside(c["area"], x["area"])]
    if not covering:
        return
    smallest = min(covering, key=_area_size)  # the first of equals
    if smallest.get("area") != c["area"]:
        conds.append({**c, "model_conds": dict(smallest["model_conds"])})


def _area_size(cond):
    area = cond.get("area")
    return math.inf if area is None else math.prod(area[: len(area) // 2])


def _area_inside(area, outer):
    dims = max(len(area), len(outer)) // 2
    area, outer = add_area_dims(area, dims), add_area_dims(outer, dims)
    return all(
        area[dims + d] >= outer[dims + d] and area[d] + area[dims + d] <= outer[d] + outer[dims + d]
        for d in range(dims)
    )


def apply_empty_x_to_equal_area(conds, uncond, name, uncond_fill_func):
    """Give the negative side what the positive side has under `name`, where it covers the whole latent."""
    given = [c[name] for c in conds if "area" not in c and c.get(name) is not None]
    if any("area" not in c and c.get(name) is not None for c in uncond):
        return
    free = [i for i, c in enumerate(uncond) if "area" not in c]
    if not free:
        return
    for i in range(len(given)):
        target = free[i % len(free)]
        filled = {**uncond[target], name: uncond_fill_func(given, i)}
        if uncond[target].get(name) is None:
            uncond[target] = filled
        else:
            uncond.append(filled)
