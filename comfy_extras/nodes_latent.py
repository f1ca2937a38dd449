"""Arithmetic with latents, latents cut and joined, and operations on latents, also on the guidance."""

from __future__ import annotations

import logging

from comfy_api.latest import io
from comfy_extras.core_inputs import MAX_RESOLUTION, float_input, int_input

log = logging.getLogger(__name__)

AXES = {"x": -1, "y": -2, "t": -3}


def _like(latent, other):
    """`other` in the size and number of `latent`, on its device."""
    import comfy.utils

    return comfy.utils.repeat_to_batch_size(_sized_like(latent, other), latent.shape[0])


def _sized_like(latent, other):
    return reshape_latent_to(latent.shape, other.to(latent.device), repeat_batch=False)


def reshape_latent_to(target_shape, latent, repeat_batch=True):
    """A latent (B, C, ..., H, W) in the size, and the number, of a shape. Node packs call it."""
    import comfy.utils

    if latent.shape[1:] != tuple(target_shape[1:]):
        latent = comfy.utils.common_upscale(latent, target_shape[-1], target_shape[-2], "bilinear", "center")
    return comfy.utils.repeat_to_batch_size(latent, target_shape[0]) if repeat_batch else latent


class _Latent:
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "op"
    CATEGORY = "latent/advanced"


class _TwoLatents(_Latent):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples1": ("LATENT",), "samples2": ("LATENT",)}}


class LatentAdd(_TwoLatents):
    DESCRIPTION = "The sum of two latents."

    def op(self, samples1, samples2):
        first = samples1["samples"]
        return ({**samples1, "samples": first + _like(first, samples2["samples"])},)


class LatentSubtract(_TwoLatents):
    DESCRIPTION = "The difference of two latents."

    def op(self, samples1, samples2):
        first = samples1["samples"]
        return ({**samples1, "samples": first - _like(first, samples2["samples"])},)


class LatentMultiply(_Latent):
    DESCRIPTION = "A latent times a number."

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",), "multiplier": float_input(1.0, -10.0, 10.0)}}

    def op(self, samples, multiplier):
        return ({**samples, "samples": samples["samples"] * multiplier},)


class LatentInterpolate(_Latent):
    DESCRIPTION = "Between two latents: directions and lengths at each place are mixed apart."

    @classmethod
    def INPUT_TYPES(cls):
        ratio = float_input(1.0, 0.0, 1.0, tooltip="How much of the first.")
        return {"required": {"samples1": ("LATENT",), "samples2": ("LATENT",), "ratio": ratio}}

    def op(self, samples1, samples2, ratio):
        import torch

        first = samples1["samples"]
        sides = (first, _like(first, samples2["samples"]))
        weights = (ratio, 1.0 - ratio)

        def length(x):
            return torch.linalg.vector_norm(x, dim=1, keepdim=True)

        def direction(x):
            return torch.nan_to_num(x / length(x))

        mixed = sum(direction(side) * weight for side, weight in zip(sides, weights))
        lengths = sum(length(side) * weight for side, weight in zip(sides, weights))
        return ({**samples1, "samples": direction(mixed) * lengths},)


class LatentConcat(_Latent):
    DESCRIPTION = "Puts latents side by side, one below the other, or one after the other in time."

    @classmethod
    def INPUT_TYPES(cls):
        dim = (["x", "-x", "y", "-y", "t", "-t"],)
        return {"required": {"samples1": ("LATENT",), "samples2": ("LATENT",), "dim": dim}}

    def op(self, samples1, samples2, dim):
        import torch

        import comfy.utils

        first = samples1["samples"]
        second = samples2["samples"].to(first.device)
        parts = [first, comfy.utils.repeat_to_batch_size(second, first.shape[0])]
        if dim.startswith("-"):
            parts.reverse()
        return ({**samples1, "samples": torch.cat(parts, dim=AXES[dim[-1]])},)


class LatentCut(_Latent):
    DESCRIPTION = "A part of a latent along one axis; a negative index counts from the end."

    @classmethod
    def INPUT_TYPES(cls):
        index = int_input(0, -MAX_RESOLUTION, MAX_RESOLUTION, 1)
        amount = int_input(1, 1, MAX_RESOLUTION, 1)
        return {"required": {"samples": ("LATENT",), "dim": (list(AXES),), "index": index, "amount": amount}}

    def op(self, samples, dim, index, amount):
        latent = samples["samples"]
        length = latent.shape[AXES[dim]]
        start = min(index, length - 1) if index >= 0 else max(index + length, 0)
        part = latent.narrow(AXES[dim] + latent.ndim, start, min(amount, length - start))
        return ({**samples, "samples": part},)


class LatentCutToBatch(_Latent):
    DESCRIPTION = "Cuts a latent along one axis into equal parts, which become a batch; the rest is left out."

    @classmethod
    def INPUT_TYPES(cls):
        size = int_input(1, 1, MAX_RESOLUTION, 1)
        return {"required": {"samples": ("LATENT",), "dim": (["t", "x", "y"],), "slice_size": size}}

    def op(self, samples, dim, slice_size):
        latent = samples["samples"]
        axis = AXES[dim] + latent.ndim
        if axis < 2:  # a picture has no time
            return (samples,)
        moved = latent.movedim(axis, 1)
        size = min(slice_size, moved.shape[1])
        moved = moved[:, : moved.shape[1] // size * size]
        return ({**samples, "samples": moved.reshape(-1, size, *moved.shape[2:]).movedim(1, axis)},)


class LatentBatch(_TwoLatents):
    DESCRIPTION = "Two latents as one batch; the second is scaled to the size of the first."
    FUNCTION = "batch"
    CATEGORY = "latent/batch"
    DEPRECATED = True

    def batch(self, samples1, samples2):
        import torch

        first = samples1["samples"]
        parts = (first, _sized_like(first, samples2["samples"]))
        numbers = [
            index
            for latent in (samples1, samples2)
            for index in latent.get("batch_index", range(len(latent["samples"])))
        ]
        return ({**samples1, "samples": torch.cat(parts), "batch_index": numbers},)


class LatentBatchSeedBehavior(_Latent):
    DESCRIPTION = "Whether the pictures of a batch get noise of their own, or all the same."

    @classmethod
    def INPUT_TYPES(cls):
        behavior = (["random", "fixed"], {"default": "fixed"})
        return {"required": {"samples": ("LATENT",), "seed_behavior": behavior}}

    def op(self, samples, seed_behavior):
        out = {name: value for name, value in samples.items() if name != "batch_index"}
        if seed_behavior == "fixed":
            out["batch_index"] = [samples.get("batch_index", [0])[0]] * len(samples["samples"])
        return (out,)


class ReplaceVideoLatentFrames(io.ComfyNode):
    """Frames of a video latent put in the place of others."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReplaceVideoLatentFrames",
            display_name="Replace Video Latent Frames",
            category="model/latent/batch",
            description="Puts the frames of one video latent in the place of frames of another.",
            inputs=[
                io.Latent.Input("destination", tooltip="The latent whose frames are replaced."),
                io.Latent.Input(
                    "source", optional=True, tooltip="The frames to put in; without it nothing changes."
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=-MAX_RESOLUTION,
                    max=MAX_RESOLUTION,
                    step=1,
                    tooltip="The first frame to replace; negative ones count from the end.",
                ),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, destination, index, source=None):
        if source is None:
            return io.NodeOutput(destination)
        frames, count = destination["samples"].shape[2], source["samples"].shape[2]
        start = index + frames if index < 0 else index
        if start < 0 or start + count > frames:
            log.warning(
                "%d frames at %d do not fit into a latent of %d frames, so none is replaced.",
                count, index, frames,
            )  # fmt: skip
            return io.NodeOutput(destination)
        samples = destination["samples"].clone()
        samples[:, :, start : start + count] = source["samples"]
        return io.NodeOutput({**destination, "samples": samples})


# --- operations -------------------------------------------------------------------------------------------


class _Operation:
    """A node whose result is a function of a latent (B, C, H, W)."""

    RETURN_TYPES = ("LATENT_OPERATION",)
    FUNCTION = "op"
    CATEGORY = "latent/advanced/operations"
    EXPERIMENTAL = True


class LatentApplyOperation(_Latent):
    DESCRIPTION = "Applies an operation to a latent."
    CATEGORY = "latent/advanced/operations"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",), "operation": ("LATENT_OPERATION",)}}

    def op(self, samples, operation):
        return ({**samples, "samples": operation(latent=samples["samples"])},)


class LatentApplyOperationCFG(_Operation):
    DESCRIPTION = "Applies an operation to the guidance of a model in each step."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "operation": ("LATENT_OPERATION",)}}

    def patch(self, model, operation):
        def before_guidance(args):
            cond, *others = args["conds_out"]
            if len(others) == 1:
                return [operation(latent=cond - others[0]) + others[0], *others]
            return [operation(latent=cond), *others]

        clone = model.clone()
        clone.set_model_sampler_pre_cfg_function(before_guidance)
        return (clone,)


class LatentOperationTonemapReinhard(_Operation):
    DESCRIPTION = "Compresses what is far above the mean: against too much contrast at high guidance."

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"multiplier": float_input(1.0, 0.0, 100.0)}}

    def op(self, multiplier):
        import comfy.guidance

        def tonemap_reinhard(latent, **_unused):
            return comfy.guidance.tone_mapped(latent, multiplier)

        return (tonemap_reinhard,)


class LatentOperationSharpen(_Operation):
    DESCRIPTION = "Sharpens the directions of a latent, and leaves its lengths."

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "sharpen_radius": int_input(9, 1, 31, 1),
                "sigma": float_input(1.0, 0.1, 10.0, 0.1),
                "alpha": float_input(0.1, 0.0, 5.0),
            }
        }

    def op(self, sharpen_radius, sigma, alpha):
        import comfy.guidance

        def sharpen(latent, **_unused):
            return comfy.guidance.sharpened(latent, sharpen_radius, sigma, alpha)

        return (sharpen,)


_NODES = (
    LatentAdd, LatentSubtract, LatentMultiply, LatentInterpolate, LatentConcat, LatentCut, LatentCutToBatch,
    LatentBatch, LatentBatchSeedBehavior, LatentApplyOperation, LatentApplyOperationCFG,
    LatentOperationTonemapReinhard, LatentOperationSharpen, ReplaceVideoLatentFrames,
)  # fmt: skip
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
