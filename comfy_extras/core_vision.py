"""Core nodes for pictures as prompts: CLIP vision, unCLIP and style models."""

from __future__ import annotations

import folder_paths
import node_helpers
from comfy_extras.core_inputs import float_input


def _file_input(folder: str, tooltip: str):
    return (folder_paths.get_filename_list(folder), {"tooltip": tooltip})


class CLIPVisionLoader:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"clip_name": _file_input("clip_vision", "A CLIP or SigLIP vision model.")}}

    RETURN_TYPES = ("CLIP_VISION",)
    FUNCTION = "load_clip"
    CATEGORY = "loaders"
    DESCRIPTION = "Loads a model that turns pictures into vectors."

    def load_clip(self, clip_name):
        path = folder_paths.get_full_path_or_raise("clip_vision", clip_name)
        import comfy.clip_vision

        return (comfy.clip_vision.load(path),)


class CLIPVisionEncode:
    @classmethod
    def INPUT_TYPES(cls):
        tooltip = "center cuts the middle out of the picture; none squeezes it into a square."
        crop = (["center", "none"], {"tooltip": tooltip})
        return {"required": {"clip_vision": ("CLIP_VISION",), "image": ("IMAGE",), "crop": crop}}

    RETURN_TYPES = ("CLIP_VISION_OUTPUT",)
    FUNCTION = "encode"
    CATEGORY = "conditioning"
    DESCRIPTION = "Turns a picture into vectors that say what it is of."

    def encode(self, clip_vision, image, crop):
        return (clip_vision.encode_image(image, crop=crop == "center"),)


class unCLIPCheckpointLoader:  # noqa: N801 - the name in workflows
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"ckpt_name": _file_input("checkpoints", "A checkpoint with a vision model.")}}

    RETURN_TYPES = ("MODEL", "CLIP", "VAE", "CLIP_VISION")
    FUNCTION = "load_checkpoint"
    CATEGORY = "loaders"
    DESCRIPTION = "Loads a checkpoint that takes pictures as prompts, with its vision model."

    def load_checkpoint(self, ckpt_name, output_vae=True, output_clip=True):
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        import comfy.sd
        from comfy.errors import UnknownArchitecture

        wanted = {"output_vae": output_vae, "output_clip": output_clip, "output_clipvision": True}
        embeddings = folder_paths.get_folder_paths("embeddings")
        loaded = comfy.sd.load_checkpoint_guess_config(path, embedding_directory=embeddings, **wanted)
        if loaded[3] is None:
            raise UnknownArchitecture(
                f"'{ckpt_name}' is a checkpoint without a vision model. Choose one of unCLIP (sd21-unclip-h, "
                "sd21-unclip-l), or load this one with the node Load Checkpoint."
            )
        return loaded


class unCLIPConditioning:  # noqa: N801 - the name in workflows
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "clip_vision_output": ("CLIP_VISION_OUTPUT",),
                "strength": float_input(1.0, -10.0, 10.0, tooltip="How much the picture says."),
                "noise_augmentation": float_input(
                    0.0, 0.0, 1.0, tooltip="How freely the picture is followed: 0 closely, 1 not at all."
                ),
            }
        }

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "apply_adm"
    CATEGORY = "conditioning"
    DESCRIPTION = "Tells an unCLIP model of a picture; several pictures are mixed."

    def apply_adm(self, conditioning, clip_vision_output, strength, noise_augmentation):
        if strength == 0:
            return (conditioning,)
        picture = {
            "clip_vision_output": clip_vision_output, "strength": strength,
            "noise_augmentation": noise_augmentation,
        }  # fmt: skip
        values = {"unclip_conditioning": [picture]}
        return (node_helpers.conditioning_set_values(conditioning, values, append=True),)


class StyleModelLoader:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"style_model_name": _file_input("style_models", "Flux Redux, or SD1's adapter.")}
        }

    RETURN_TYPES = ("STYLE_MODEL",)
    FUNCTION = "load_style_model"
    CATEGORY = "loaders"
    DESCRIPTION = "Loads a model that turns a picture into a part of the prompt."

    def load_style_model(self, style_model_name):
        path = folder_paths.get_full_path_or_raise("style_models", style_model_name)
        import comfy.sd

        return (comfy.sd.load_style_model(path),)


class StyleModelApply:
    @classmethod
    def INPUT_TYPES(cls):
        tooltip = "multiply scales the picture's tokens; attn_bias scales how much attention they get."
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "style_model": ("STYLE_MODEL",),
                "clip_vision_output": ("CLIP_VISION_OUTPUT",),
                "strength": float_input(1.0, 0.0, 10.0, 0.001),
                "strength_type": (["multiply", "attn_bias"], {"tooltip": tooltip}),
            }
        }

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "apply_stylemodel"
    CATEGORY = "conditioning/style_model"
    DESCRIPTION = "Puts a picture's tokens behind those of the prompt."

    def apply_stylemodel(self, conditioning, style_model, clip_vision_output, strength, strength_type):
        import torch

        import comfy.attention_bias

        tokens = style_model.get_cond(clip_vision_output)  # (pictures, tokens, width)
        tokens = tokens.reshape(1, -1, tokens.shape[-1])
        weight = strength if strength_type == "attn_bias" else 1.0
        if strength_type == "multiply":
            tokens = tokens * strength
        out = []
        for text, extras in conditioning:
            extras = dict(extras)
            if "attention_mask" in extras or weight != 1.0:
                size = extras.get("attention_mask_img_shape", (1, 1))
                extras["attention_mask"] = comfy.attention_bias.with_tokens_after_text(
                    extras.get("attention_mask"), text, tokens.shape[1], size, weight
                )
                extras["attention_mask_img_shape"] = size
            added = tokens.to(text).expand(len(text), -1, -1)
            out.append([torch.cat((text, added), dim=1), extras])
        return (out,)
