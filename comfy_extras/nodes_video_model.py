"""Nodes for models that make videos of a picture, and guidance that grows along the frames."""

from __future__ import annotations

import folder_paths
import node_helpers
from comfy_extras.core_inputs import (
    MAX_RESOLUTION,
    PIXELS_PER_LATENT,
    float_input,
    int_input,
    strength_input,
)
from comfy_extras.nodes_model_merging import _Saving, save_checkpoint


class ImageOnlyCheckpointLoader:
    DESCRIPTION = "Loads a checkpoint that takes a picture in the place of a prompt, with its vision model."
    RETURN_TYPES = ("MODEL", "CLIP_VISION", "VAE")
    FUNCTION = "load_checkpoint"
    CATEGORY = "model/loaders"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"ckpt_name": (folder_paths.get_filename_list("checkpoints"),)}}

    def load_checkpoint(self, ckpt_name, output_vae=True, output_clip=True):
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        import comfy.sd

        model, _, vae, vision = comfy.sd.load_checkpoint_guess_config(
            path, output_vae=True, output_clip=False, output_clipvision=True,
            embedding_directory=folder_paths.get_folder_paths("embeddings"),
        )  # fmt: skip
        return (model, vision, vae)


class SVD_img2vid_Conditioning:  # noqa: N801 - a name that workflows use
    DESCRIPTION = "Lets Stable Video Diffusion see the first picture, and says how much should move."
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", "LATENT")
    RETURN_NAMES = ("positive", "negative", "latent")
    FUNCTION = "encode"
    CATEGORY = "model/conditioning/stable video"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "clip_vision": ("CLIP_VISION",),
                "init_image": ("IMAGE",),
                "vae": ("VAE",),
                "width": int_input(1024, 16, MAX_RESOLUTION, 8),
                "height": int_input(576, 16, MAX_RESOLUTION, 8),
                "video_frames": int_input(14, 1, 4096),
                "motion_bucket_id": int_input(127, 1, 1023, advanced=True),
                "fps": int_input(6, 1, 1024),
                "augmentation_level": float_input(0.0, 0.0, 10.0, advanced=True),
            }
        }

    def encode(
        self, clip_vision, init_image, vae, width, height, video_frames, motion_bucket_id, fps,
        augmentation_level,
    ):  # fmt: skip
        import torch

        import comfy.utils

        pooled = clip_vision.encode_image(init_image).image_embeds.unsqueeze(0)
        scaled = comfy.utils.common_upscale(init_image.movedim(-1, 1), width, height, "bilinear", "center")
        pixels = scaled.movedim(1, -1)[..., :3]
        if augmentation_level > 0:
            pixels = pixels + torch.randn_like(pixels) * augmentation_level
        seen = vae.encode(pixels)
        known = {"motion_bucket_id": motion_bucket_id, "fps": fps, "augmentation_level": augmentation_level}
        shape = (video_frames, 4, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
        return (
            [[pooled, {**known, "concat_latent_image": seen}]],
            [[torch.zeros_like(pooled), {**known, "concat_latent_image": torch.zeros_like(seen)}]],
            {"samples": torch.zeros(shape)},
        )


class _FrameGuidance:
    """Guidance whose scale goes from `min_cfg` to the sampler's along the frames of a batch."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "model/sampling/guiders"

    @classmethod
    def INPUT_TYPES(cls):
        least = float_input(1.0, 0.0, 100.0, 0.5, round=0.01, advanced=True)
        return {"required": {"model": ("MODEL",), "min_cfg": least}}

    @staticmethod
    def share(places):
        """How much of the sampler's scale frames have, by their place from 0 to 1."""
        raise NotImplementedError

    def patch(self, model, min_cfg):
        def guide(args):
            import torch

            cond, uncond = args["cond"], args["uncond"]
            share = self.share(torch.linspace(0, 1, cond.shape[0], device=cond.device))
            scale = min_cfg + share * (args["cond_scale"] - min_cfg)
            return uncond + scale.reshape(-1, *[1] * (cond.ndim - 1)) * (cond - uncond)

        model = model.clone()
        model.set_model_sampler_cfg_function(guide)
        return (model,)


class VideoLinearCFGGuidance(_FrameGuidance):
    DESCRIPTION = "Little guidance for the first frame, the sampler's for the last one."

    @staticmethod
    def share(places):
        return places


class VideoTriangleCFGGuidance(_FrameGuidance):
    DESCRIPTION = "Little guidance for the first and the last frame, the sampler's for the middle."

    @staticmethod
    def share(places):
        return 1 - (2 * places - 1).abs()


class ImageOnlyCheckpointSave(_Saving):
    DESCRIPTION = "Saves a model, its vision model and its VAE as one checkpoint."
    CATEGORY = "model/merging"
    SEARCH_ALIASES = ["save model", "export checkpoint", "merge save"]
    parts = ("model", "clip_vision", "vae")
    prefix = "checkpoints/ComfyUI"

    def save(self, model, clip_vision, vae, filename_prefix, prompt=None, extra_pnginfo=None):
        save_checkpoint(
            model, clip_vision=clip_vision, vae=vae, filename_prefix=filename_prefix,
            output_dir=self.output_dir, prompt=prompt, extra_pnginfo=extra_pnginfo,
        )  # fmt: skip
        return {}


class ConditioningSetAreaPercentageVideo:
    DESCRIPTION = "Applies the conditioning to a part of the picture and of the time, given in shares."
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "model/conditioning/transform"

    @classmethod
    def INPUT_TYPES(cls):
        sizes = {name: float_input(1.0, 0, 1.0) for name in ("width", "height", "temporal")}
        places = {name: float_input(0, 0, 1.0) for name in "xyz"}
        return {
            "required": {
                "conditioning": ("CONDITIONING",), **sizes, **places, "strength": strength_input(),
            }
        }  # fmt: skip

    def append(self, conditioning, width, height, temporal, x, y, z, strength):
        area = ("percentage", temporal, height, width, z, y, x)
        values = {"area": area, "strength": strength, "set_area_to_bounds": False}
        return (node_helpers.conditioning_set_values(conditioning, values),)


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (
        ImageOnlyCheckpointLoader, SVD_img2vid_Conditioning, VideoLinearCFGGuidance,
        VideoTriangleCFGGuidance, ImageOnlyCheckpointSave, ConditioningSetAreaPercentageVideo,
    )
}  # fmt: skip
NODE_DISPLAY_NAME_MAPPINGS = {
    "ImageOnlyCheckpointLoader": "Load Checkpoint Image Only (img2vid model)",
    "VideoLinearCFGGuidance": "Video Linear CFG Guidance",
    "VideoTriangleCFGGuidance": "Video Triangle CFG Guidance",
    "ConditioningSetAreaPercentageVideo": "Conditioning (Set Area with Percentage for Video)",
}
