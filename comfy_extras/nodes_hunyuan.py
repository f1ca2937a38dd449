"""Hunyuan: text encoding, empty latents, and videos that begin with a picture."""

from __future__ import annotations

import folder_paths
import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_conditioning import both, encoded, latent_frames, ones, sized, zeros
from comfy_extras.video_inputs import batch_size, frame_size, guided, sides_out, video_size

# The words around a prompt that HunyuanVideo's language model was taught, with the place of the picture.
_IMAGE_TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\n<image>\nDescribe the video by detailing the following "
    "aspects according to the reference image: 1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>\n\n"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)


def _made_mask(frames, known, like):
    """Of the latent frames, which are to be made: 0 for those of `known` frames at the beginning."""
    mask = ones(1, 1, frames, *like.shape[-2:], like=like)
    mask[:, :, : latent_frames(known)] = 0
    return mask


class CLIPTextEncodeHunyuanDiT(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CLIPTextEncodeHunyuanDiT",
            display_name="CLIP Text Encode (Hunyuan Image)",
            category="model/conditioning/hunyuan image",
            description="Encodes a prompt for each text encoder of Hunyuan-DiT.",
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("bert", multiline=True, dynamic_prompts=True),
                io.String.Input("mt5xl", multiline=True, dynamic_prompts=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, bert, mt5xl):
        tokens = {**clip.tokenize(bert), "mt5xl": clip.tokenize(mt5xl)["mt5xl"]}
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))

    encode = execute  # the name that node packs call


class TextEncodeHunyuanVideo_ImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextEncodeHunyuanVideo_ImageToVideo",
            category="model/conditioning/hunyuan video",
            description="Encodes a prompt with the picture that a video begins with.",
            inputs=[
                io.Clip.Input("clip"),
                io.ClipVisionOutput.Input("clip_vision_output"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                io.Int.Input("image_interleave", default=2, min=1, max=512, advanced=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, clip_vision_output, prompt, image_interleave):
        tokens = clip.tokenize(
            prompt,
            llama_template=_IMAGE_TEMPLATE,
            image_embeds=clip_vision_output.mm_projected,
            image_interleave=image_interleave,
        )
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))

    encode = execute  # the name that node packs call


class EmptyHunyuanLatentVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyHunyuanLatentVideo",
            display_name="Empty HunyuanVideo 1.0 Latent",
            category="model/latent/hunyuan video",
            description="An empty video latent for HunyuanVideo 1.0.",
            inputs=video_size(848, 480, 25),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, length, batch_size=1):
        samples = zeros(batch_size, 16, latent_frames(length), height // 8, width // 8)
        return io.NodeOutput({"samples": samples, "downscale_ratio_spacial": 8})

    generate = execute  # the name that node packs call


class EmptyHunyuanVideo15Latent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyHunyuanVideo15Latent",
            display_name="Empty HunyuanVideo 1.5 Latent",
            category="model/latent/hunyuan video",
            description="An empty video latent for HunyuanVideo 1.5.",
            inputs=video_size(848, 480, 25),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, length, batch_size=1):
        samples = zeros(batch_size, 32, latent_frames(length), height // 16, width // 16)
        return io.NodeOutput({"samples": samples, "downscale_ratio_spacial": 16})

    generate = execute  # the name that node packs call


class HunyuanVideo15ImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HunyuanVideo15ImageToVideo",
            category="model/conditioning/hunyuan video",
            description="Lets a video of HunyuanVideo 1.5 begin with pictures.",
            inputs=[
                *guided(),
                *video_size(848, 480, 33),
                io.Image.Input("start_image", optional=True),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(
        cls,
        positive,
        negative,
        vae,
        width,
        height,
        length,
        batch_size,
        start_image=None,
        clip_vision_output=None,
    ):
        samples = zeros(batch_size, 32, latent_frames(length), height // 16, width // 16)
        if start_image is not None:
            begin = sized(start_image[:length], width, height)
            known = encoded(vae, begin)
            picture = zeros(*samples.shape)
            picture[:, :, : known.shape[2]] = known
            mask = _made_mask(samples.shape[2], len(begin), picture.to(begin))
            positive, negative = both(
                positive, negative, {"concat_latent_image": picture, "concat_mask": mask}
            )
        if clip_vision_output is not None:
            positive, negative = both(positive, negative, {"clip_vision_output": clip_vision_output})
        return io.NodeOutput(positive, negative, {"samples": samples})


class HunyuanVideo15SuperResolution(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HunyuanVideo15SuperResolution",
            display_name="Hunyuan Video 1.5 Super Resolution",
            category="model/conditioning/hunyuan video",
            description="Lets HunyuanVideo 1.5 draw an enlarged video again.",
            inputs=[
                *guided(vae=False),
                io.Latent.Input("latent"),
                io.Float.Input("noise_augmentation", default=0.7, min=0.0, max=1.0, step=0.01, advanced=True),
                io.Vae.Input("vae", optional=True),
                io.Image.Input("start_image", optional=True),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(
        cls,
        positive,
        negative,
        latent,
        noise_augmentation,
        vae=None,
        start_image=None,
        clip_vision_output=None,
    ):
        small = latent["samples"]
        channels = small.shape[1]
        # Channels: the first picture, whether there is one, the video, whether there is one.
        given = zeros(small.shape[0], 2 * channels + 2, *small.shape[2:])
        given[:, channels + 1 : 2 * channels + 1] = small
        given[:, 2 * channels + 1] = 1
        if start_image is not None:
            begin = encoded(vae, sized(start_image, small.shape[-1] * 16, small.shape[-2] * 16))
            given[:, :channels, : begin.shape[2]] = begin
            given[:, channels + 1, 0] = 1
        values = {"concat_latent_image": given, "noise_augmentation": noise_augmentation}
        if clip_vision_output is not None:
            values["clip_vision_output"] = clip_vision_output
        return io.NodeOutput(*both(positive, negative, values), latent)


class HunyuanVideo15LatentUpscaleWithModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HunyuanVideo15LatentUpscaleWithModel",
            display_name="Hunyuan Video 15 Latent Upscale With Model",
            category="model/latent/hunyhuan video",
            description="Resizes a latent, and lets a network sharpen it.",
            inputs=[
                io.LatentUpscaleModel.Input("model"),
                io.Latent.Input("samples"),
                io.Combo.Input(
                    "upscale_method",
                    options=["nearest-exact", "bilinear", "area", "bicubic", "bislerp"],
                    default="bilinear",
                ),
                *frame_size(1280, 720, low=0, step=8),
                io.Combo.Input("crop", options=["disabled", "center"]),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, model, samples, upscale_method, width, height, crop):
        import comfy.utils

        if width == height == 0:
            return io.NodeOutput(samples)
        latent = samples["samples"]
        size = {"width": width, "height": height}
        if width == 0:
            size["width"] = round(latent.shape[-1] * max(64, height) / latent.shape[-2])
        elif height == 0:
            size["height"] = round(latent.shape[-2] * max(64, width) / latent.shape[-1])
        wide, high = (max(64, size[side]) // 16 for side in ("width", "height"))
        resized = comfy.utils.common_upscale(latent, wide, high, upscale_method, crop)
        return io.NodeOutput({"samples": model.resample_latent(resized).cpu().float()})


LatentUpscaleModelLoader = absent_node(
    "LatentUpscaleModelLoader",
    "HunyuanVideo 1.5 and LTX-Video latent upscaling",
    display_name="Load Latent Upscale Model",
    category="model/loaders",
    description="Loads a network that makes latents larger.",
    inputs=lambda: [
        io.Combo.Input("model_name", options=folder_paths.get_filename_list("latent_upscale_models"))
    ],
    outputs=lambda: [io.LatentUpscaleModel.Output()],
)


class HunyuanImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HunyuanImageToVideo",
            category="model/conditioning/hunyuan video",
            description="Lets a video of HunyuanVideo 1.0 begin with pictures.",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Vae.Input("vae"),
                *video_size(848, 480, 53),
                io.Combo.Input(
                    "guidance_type", options=["v1 (concat)", "v2 (replace)", "custom"], advanced=True
                ),
                io.Image.Input("start_image", optional=True),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Latent.Output(display_name="latent"),
            ],
        )

    @classmethod
    def execute(cls, positive, vae, width, height, length, batch_size, guidance_type, start_image=None):
        samples = zeros(batch_size, 16, latent_frames(length), height // 8, width // 8)
        out = {"samples": samples}
        if start_image is not None:
            begin = sized(start_image[:length, ..., :3], width, height)
            known = encoded(vae, begin)
            mask = _made_mask(samples.shape[2], len(begin), known.to(begin))
            if guidance_type == "v1 (concat)":
                values = {"concat_latent_image": known, "concat_mask": mask}
            elif guidance_type == "v2 (replace)":
                samples[:, :, : known.shape[2]] = known
                values, out["noise_mask"] = {"guiding_frame_index": 0}, mask
            else:
                values = {"ref_latent": known}
            positive = node_helpers.conditioning_set_values(positive, values)
        return io.NodeOutput(positive, out)

    encode = execute  # the name that node packs call


class EmptyHunyuanImageLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyHunyuanImageLatent",
            category="model/latent/hunyuan image",
            description="An empty latent for HunyuanImage 2.1.",
            inputs=[*frame_size(2048, 2048, low=64, step=32), batch_size()],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, batch_size=1):
        return io.NodeOutput({"samples": zeros(batch_size, 64, height // 32, width // 32)})

    generate = execute  # the name that node packs call


class HunyuanRefinerLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HunyuanRefinerLatent",
            display_name="Hunyuan Latent Refiner",
            category="model/conditioning/hunyuan video",
            description="Lets HunyuanImage's refiner draw a latent again.",
            inputs=[
                *guided(vae=False),
                io.Latent.Input("latent"),
                io.Float.Input("noise_augmentation", default=0.1, min=0.0, max=1.0, step=0.01, advanced=True),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(cls, positive, negative, latent, noise_augmentation):
        small = latent["samples"]
        values = {"concat_latent_image": small, "noise_augmentation": noise_augmentation}
        out = {"samples": zeros(small.shape[0], 32, *small.shape[-3:])}
        return io.NodeOutput(*both(positive, negative, values), out)


class HunyuanExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            CLIPTextEncodeHunyuanDiT,
            TextEncodeHunyuanVideo_ImageToVideo,
            EmptyHunyuanLatentVideo,
            EmptyHunyuanVideo15Latent,
            HunyuanVideo15ImageToVideo,
            HunyuanVideo15SuperResolution,
            HunyuanVideo15LatentUpscaleWithModel,
            LatentUpscaleModelLoader,
            HunyuanImageToVideo,
            EmptyHunyuanImageLatent,
            HunyuanRefinerLatent,
        ]


def comfy_entrypoint():
    return HunyuanExtension()
