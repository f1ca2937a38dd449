"""Nodes for SD3: its three text encoders, and empty latents of 16 channels, which Flux.1 takes too."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_extras.core_inputs import PIXELS_PER_LATENT, float_input, int_input, pixels_input
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT
from comfy_extras.text_parts import encoder_inputs, load_encoders, text_input, tokens_for


class EmptySD3LatentImage:
    @classmethod
    def INPUT_TYPES(cls):
        sides = {name: pixels_input(1024, 16, step=16) for name in ("width", "height")}
        return {"required": {**sides, "batch_size": int_input(1, 1, 4096)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "generate"
    CATEGORY = "latent/sd3"
    DESCRIPTION = "Empty latents of 16 channels, to make pictures of this size."

    def generate(self, width, height, batch_size=1):
        import torch

        import comfy.model_management

        shape = (batch_size, 16, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
        return ({"samples": torch.zeros(shape, device=comfy.model_management.intermediate_device())},)


class SkipLayerGuidanceSD3:
    DESCRIPTION = "Finer detail from SD3: away from what it makes with these layers skipped."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "skip_guidance_sd3"
    CATEGORY = "advanced/guidance"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",),
                "layers": ("STRING", {"default": "7, 8, 9", "multiline": False}),
                "scale": float_input(3.0, 0.0, 10.0, 0.1),
                "start_percent": float_input(0.01, 0.0, 1.0, 0.001),
                "end_percent": float_input(0.15, 0.0, 1.0, 0.001),
            }
        }

    def skip_guidance_sd3(self, model, layers, scale, start_percent, end_percent):
        node = SkipLayerGuidanceDiT()
        return node.skip_guidance(model, scale, start_percent, end_percent, double_layers=layers)


class TripleCLIPLoader(io.ComfyNode):
    """Three files as one CLIP."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TripleCLIPLoader",
            display_name="Load CLIP (Triple)",
            category="model/loaders",
            description="Loads the three text encoders of a model (SD3: CLIP-L, CLIP-bigG, T5-XXL).",
            inputs=encoder_inputs(3),
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, clip_name1, clip_name2, clip_name3):
        return io.NodeOutput(load_encoders(clip_name1, clip_name2, clip_name3))

    load_clip = execute


class CLIPTextEncodeSD3(io.ComfyNode):
    """A prompt for each of the three."""

    @classmethod
    def define_schema(cls):
        left_out = "What encoders without a prompt get: nothing, or an empty prompt."
        return io.Schema(
            node_id="CLIPTextEncodeSD3",
            display_name="CLIP Text Encode (SD3)",
            category="model/conditioning/stable diffusion",
            description="Encodes a prompt for each of SD3's text encoders.",
            search_aliases=["sd3 prompt"],
            inputs=[
                io.Clip.Input("clip"),
                *map(text_input, ("clip_l", "clip_g", "t5xxl")),
                io.Combo.Input(
                    "empty_padding", options=["none", "empty_prompt"], advanced=True, tooltip=left_out
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, clip_l, clip_g, t5xxl, empty_padding):
        texts = {"g": clip_g, "l": clip_l, "t5xxl": t5xxl}
        tokens = {part: tokens_for(clip, part, text, "SD3") for part, text in texts.items()}
        if empty_padding == "none":
            tokens.update({part: [] for part, text in texts.items() if not text})
        longest = max(len(tokens["l"]), len(tokens["g"]))  # both CLIPs have equally many chunks
        for part in ("l", "g"):
            empty = tokens_for(clip, part, "", "SD3")
            while len(tokens[part]) < longest:
                tokens[part] = tokens[part] + empty
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))

    encode = execute


_NODES = (EmptySD3LatentImage, SkipLayerGuidanceSD3, TripleCLIPLoader, CLIPTextEncodeSD3)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
