"""Nodes for Flux: prompts for its two text encoders, and the guidance that is an input of the model."""

from __future__ import annotations

import math

import node_helpers
from comfy_api.latest import io
from comfy_extras.core_inputs import MAX_RESOLUTION, float_input


def _guidance_input():
    tooltip = "How strongly the prompt is followed; the model was taught what this number means."
    return float_input(3.5, 0.0, 100.0, 0.1, tooltip)


class CLIPTextEncodeFlux:
    @classmethod
    def INPUT_TYPES(cls):
        text = ("STRING", {"multiline": True, "dynamicPrompts": True})
        return {"required": {"clip": ("CLIP",), "clip_l": text, "t5xxl": text, "guidance": _guidance_input()}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = "advanced/conditioning/flux"
    DESCRIPTION = "Encodes a prompt for each of Flux's text encoders."

    def encode(self, clip, clip_l, t5xxl, guidance):
        tokens = {**clip.tokenize(clip_l), "t5xxl": clip.tokenize(t5xxl)["t5xxl"]}
        return (clip.encode_from_tokens_scheduled(tokens, add_dict={"guidance": guidance}),)


class FluxGuidance:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "guidance": _guidance_input()}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "advanced/conditioning/flux"
    DESCRIPTION = "Sets how strongly Flux follows this prompt."

    def append(self, conditioning, guidance):
        return (node_helpers.conditioning_set_values(conditioning, {"guidance": guidance}),)


class FluxDisableGuidance:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",)}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "advanced/conditioning/flux"
    DESCRIPTION = "Leaves the guidance out of Flux and models like it."

    def append(self, conditioning):
        return (node_helpers.conditioning_set_values(conditioning, {"guidance": None}),)


# (width, height) of the pictures that Kontext was trained with.
KONTEXT_SIZES = (
    (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104),
    (1024, 1024), (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688),
    (1568, 672),
)  # fmt: skip


class FluxKontextImageScale:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "scale"
    CATEGORY = "advanced/conditioning/flux"
    DESCRIPTION = "Scales a picture to that size Kontext was trained with that is nearest in proportions."

    def scale(self, image):
        import comfy.utils

        shape = image.shape[2] / image.shape[1]
        width, height = min(KONTEXT_SIZES, key=lambda size: abs(shape - size[0] / size[1]))
        scaled = comfy.utils.common_upscale(image.movedim(-1, 1), width, height, "lanczos", "center")
        return (scaled.movedim(1, -1),)


class FluxKontextMultiReferenceLatentMethod:
    @classmethod
    def INPUT_TYPES(cls):
        methods = (["offset", "index", "uxo/uno", "index_timestep_zero"],)
        return {"required": {"conditioning": ("CONDITIONING",), "reference_latents_method": methods}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "advanced/conditioning/flux"
    DESCRIPTION = "How several reference pictures are told apart: side by side, numbered, or diagonally."

    def append(self, conditioning, reference_latents_method):
        method = "uxo" if "uxo" in reference_latents_method else reference_latents_method
        values = {"reference_latents_method": method}
        return (node_helpers.conditioning_set_values(conditioning, values),)


# --- Flux.2: what is no network ---

FLUX2_PIXELS = 16  # per side of a latent pixel
FLUX2_CHANNELS = 128


def _flux2_sides(step: int) -> list:
    sides = ("width", "height")
    return [io.Int.Input(name, default=1024, min=16, max=MAX_RESOLUTION, step=step) for name in sides]


class EmptyFlux2LatentImage(io.ComfyNode):
    """Latents of 128 channels at a sixteenth of the size."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyFlux2LatentImage",
            display_name="Empty Flux 2 Latent",
            category="model/latent/flux",
            description="Empty latents in the shape that Flux.2 works in.",
            inputs=[*_flux2_sides(16), io.Int.Input("batch_size", default=1, min=1, max=4096)],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, batch_size=1):
        import torch

        import comfy.model_management

        shape = (batch_size, FLUX2_CHANNELS, height // FLUX2_PIXELS, width // FLUX2_PIXELS)
        device = comfy.model_management.intermediate_device()
        return io.NodeOutput({"samples": torch.zeros(shape, device=device)})

    generate = execute


def flux2_shift(tokens: int, steps: int) -> float:
    """How far Flux.2's times are shifted: two lines fitted for 10 and for 200 steps, and what lies between.
    Above 4,300 tokens the second one counts for all.
    """
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    return at_200 + (at_200 - at_10) / (200 - 10) * (steps - 200)


class Flux2Scheduler(io.ComfyNode):
    """Times from 1 to 0, shifted by the size and the number of steps."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Flux2Scheduler",
            category="model/sampling/schedulers",
            description="The noise levels of Flux.2 for a size and a number of steps.",
            inputs=[io.Int.Input("steps", default=20, min=1, max=4096), *_flux2_sides(1)],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, steps, width, height):
        import torch

        shift = math.exp(flux2_shift(round(width * height / FLUX2_PIXELS**2), steps))
        times = torch.linspace(1, 0, steps + 1)
        return io.NodeOutput(shift / (shift + (1 / times - 1)))

    get_sigmas = execute


class FluxKVCache(io.ComfyNode):
    """Keys and values of reference pictures once for all steps, which needs a network that was taught so."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxKVCache",
            display_name="Flux KV Cache",
            category="experimental",
            description="Computes reference pictures once instead of at each step.",
            is_experimental=True,
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model):
        # Flux.1's reference pictures follow the noise of the step, so what is kept would be wrong.
        from comfy_extras.absent_families import raise_absent

        raise_absent("Flux.2", "FluxKVCache")


_NODES = (
    CLIPTextEncodeFlux, FluxGuidance, FluxDisableGuidance, FluxKontextImageScale,
    FluxKontextMultiReferenceLatentMethod, EmptyFlux2LatentImage, Flux2Scheduler,
    FluxKVCache,
)  # fmt: skip
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
