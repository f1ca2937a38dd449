"""Prompts for Lumina 2 and models like it, and guidance that is cut off and limited in length."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_extras.core_inputs import float_input
from comfy_extras.text_parts import text_input


class RenormCFG:
    DESCRIPTION = "Guidance only below a noise level, and no longer than a multiple of the positive side."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "advanced/model"

    @classmethod
    def INPUT_TYPES(cls):
        truncated = "The noise level (sigma) from which down there is guidance."
        longest = "How much longer than the positive side the result may be; 0 sets no limit."
        return {
            "required": {
                "model": ("MODEL",),
                "cfg_trunc": float_input(100, 0.0, 100.0, tooltip=truncated),
                "renorm_cfg": float_input(1.0, 0.0, 100.0, tooltip=longest),
            }
        }

    def patch(self, model, cfg_trunc, renorm_cfg):
        import torch

        import comfy.guidance

        guided_channels = model.model.model_config.unet_config["in_channels"]

        def guide(args):
            cond, uncond = args["cond_denoised"], args["uncond_denoised"]
            if args["timestep"][0] >= cfg_trunc:
                return args["input"] - cond
            sides = (cond[:, :guided_channels], uncond[:, :guided_channels])
            guided = comfy.guidance.renormalised(*sides, args["cond_scale"], float(renorm_cfg))
            return args["input"] - torch.cat([guided, cond[:, guided_channels:]], dim=1)

        clone = model.clone()
        clone.set_model_sampler_cfg_function(guide)
        return (clone,)


class CLIPTextEncodeLumina2(io.ComfyNode):
    """A prompt after one of the two sentences that the model was taught with."""

    # Given by the model, to the letter.
    SYSTEM_PROMPT = {
        "superior": "You are an assistant designed to generate superior images with the superior degree of "
        "image-text alignment based on textual prompts or user prompts.",
        "alignment": "You are an assistant designed to generate high-quality images with the highest degree "
        "of image-text alignment based on textual prompts.",
    }

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CLIPTextEncodeLumina2",
            display_name="CLIP Text Encode (Lumina 2)",
            category="model/conditioning/lumina",
            description="Encodes a prompt behind the sentence that Lumina 2 expects before it.",
            search_aliases=["lumina prompt"],
            inputs=[
                io.Combo.Input(
                    "system_prompt", options=list(cls.SYSTEM_PROMPT),
                    tooltip="superior: fine pictures; alignment: close to the prompt.",
                ),
                text_input("user_prompt"),
                io.Clip.Input("clip"),
            ],
            outputs=[io.Conditioning.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, clip, user_prompt, system_prompt):
        if clip is None:
            raise RuntimeError(
                "The clip input is empty: this checkpoint has no text encoder. "
                "Load one with a CLIP loader node and connect that."
            )
        tokens = clip.tokenize(f"{cls.SYSTEM_PROMPT[system_prompt]} <Prompt Start> {user_prompt}")
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))

    encode = execute


NODE_CLASS_MAPPINGS = {"RenormCFG": RenormCFG, "CLIPTextEncodeLumina2": CLIPTextEncodeLumina2}
