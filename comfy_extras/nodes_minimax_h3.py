"""MiniMax H3: video and sound together."""

from __future__ import annotations

import math

import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_conditioning import encoded, sized, zeros
from comfy_extras.video_inputs import frame_size

FPS = 24
AUDIO_LATENTS_PER_SECOND = 40
FRAMES_OF_LATENTS = (1, 4, 4, 4, 4)
"""How many frames a latent frame stands for; then it begins again."""
SHORT_SIDE, MOST_PIXELS, LARGEST_SHORT_SIDE = 768, 768 * 1344, 2048


def _down_to_grid(frames):
    """The next smaller number of frames that the model knows: 5, 22, 39, ..."""
    return frames - (frames - 5) % 17


def _empty(width, height, length):
    """({"samples": video and sound}, number of frames)"""
    from comfy.nested_tensor import NestedTensor

    frames = max(5, length)
    frames += (5 - frames) % 17
    latents = (frames - 5) // 17 * 5 + 2
    video = zeros(1, 24, latents, height // 16, width // 16)
    audio = zeros(1, 32, 2, round(frames / FPS * AUDIO_LATENTS_PER_SECOND))
    return {"samples": NestedTensor((video, audio))}, frames


def _fitted(images, width, height, crop="disabled"):
    return sized(images[..., :3], width, height, method="lanczos", crop=crop)


def _multiple(side):
    return max(32, round(side / 32) * 32)


def _canvas(width, height):
    """The size in which a reference video is seen: small ones keep theirs."""
    scale = SHORT_SIDE / min(width, height)
    wide, high = width * scale, height * scale
    if wide * high > MOST_PIXELS:
        smaller = math.sqrt(MOST_PIXELS / (wide * high))
        wide, high = wide * smaller, high * smaller
    wide, high = _multiple(wide), _multiple(high)
    return (_multiple(width), _multiple(height)) if width * height < wide * high else (wide, high)


def _encoded_sound(vae, audio):
    from comfy_extras.nodes_audio import VAEEncodeAudio

    first = {**audio, "waveform": audio["waveform"][:1]}
    return VAEEncodeAudio.execute(first, vae)[0]["samples"]


def _reference_image(vae, image, width, height, size):
    """(what the language model sees, what the diffusion model gets)"""
    high, wide = image.shape[1:3]
    longest = (
        math.sqrt(width * height / (wide * high)) if size == "match" else LARGEST_SHORT_SIDE / min(wide, high)
    )
    wide, high = (_multiple(side * min(1.0, longest)) for side in (wide, high))
    seen = _fitted(image[:1], wide, high)
    block = {"kind": "image", "latent_h": high // 16, "latent_w": wide // 16, "latent": encoded(vae, seen)}
    return {"type": "image", "data": seen}, block


def _reference_video(vae, audio_vae, frames, sound, most):
    """([what the language model sees], what the diffusion model gets) of a video with or without sound."""
    wide, high = _canvas(frames.shape[2], frames.shape[1])
    frames = _fitted(frames[:most], wide, high)
    if len(frames) < 5:
        raise ValueError(f"A reference video has {len(frames)} frames. MiniMax H3 needs 5 at least.")
    frames = frames[: _down_to_grid(len(frames))]
    latent = encoded(vae, frames)
    heard = None if sound is None else _encoded_sound(audio_vae, sound)
    length = 0 if heard is None else heard.shape[-1]
    seen = frames[:: FPS // 2]
    video = {"type": "video", "data": seen, "timestamps": [number / 2.0 for number in range(len(seen))]}
    block = {
        "kind": "video_audio" if length else "video",
        "latent_t": latent.shape[2],
        "latent_h": high // 16,
        "latent_w": wide // 16,
        "ref_audio_t": length,
        "latent": latent,
        "audio_latent": heard,
    }
    return ([] if heard is None else [{"type": "audio"}]) + [video], block


def _given(values):
    return {name: value for name, value in (values or {}).items() if value is not None}


def _frames_of_guide(image, frame_idx, frames):
    """(first frame, number of frames) of a guide; ValueError where it does not fit."""
    count = 1 if image is None or len(image) < 5 else _down_to_grid(len(image))
    first = frame_idx if frame_idx >= 0 else frames + frame_idx
    if first < 0 or first + count > frames:
        raise ValueError(
            f"MiniMaxH3AddGuide: a guide of {count} frames at frame_idx {frame_idx} does not fit into the "
            f"{frames} frames of the video. Choose another frame_idx, or give fewer frames."
        )
    return first, count


class EmptyMiniMaxH3LatentAV(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyMiniMaxH3LatentAV",
            display_name="Empty MiniMax H3 AV Latent",
            category="model/latent/minimax",
            description=(
                "An empty latent of video and sound; the length becomes one of 5, 22, 39, ... frames."
            ),
            inputs=[
                *frame_size(1344, 768, low=32, step=32),
                io.Int.Input("length", default=124, min=5, max=3600, step=17),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, length):
        return io.NodeOutput(_empty(width, height, length)[0])


class MiniMaxH3ImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MiniMaxH3ImageToVideo",
            display_name="MiniMax H3 Image to Video",
            category="model/conditioning/minimax",
            description="Encodes a prompt, and the first and the last picture of a video with sound.",
            inputs=[
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                *frame_size(1344, 768, low=32, step=32),
                io.Int.Input("length", default=124, min=5, max=3600, step=17),
                io.Image.Input("first_frame", optional=True),
                io.Image.Input("last_frame", optional=True),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Latent.Output()],
        )

    @classmethod
    def execute(cls, clip, vae, prompt, width, height, length, first_frame=None, last_frame=None):
        latent, frames = _empty(width, height, length)
        places = []
        if first_frame is not None:
            places.append((0, _fitted(first_frame[:1], width, height)))
        if last_frame is not None:
            places.append((frames - 1, _fitted(last_frame[:1], width, height, "center")))
        conditioning = clip.encode_from_tokens_scheduled(
            clip.tokenize(prompt, images=[image for _, image in places])
        )
        if places:
            known = [{"resolved_frame_index": frame, "latent": vae.encode(image)} for frame, image in places]
            conditioning = node_helpers.conditioning_set_values(conditioning, {"minimax_keyframes": known})
        return io.NodeOutput(conditioning, latent)


class MiniMaxH3AddGuide(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MiniMaxH3AddGuide",
            display_name="Add Guide for MiniMax H3",
            category="model/conditioning/minimax",
            description="Gives pictures or sound that the video is to have at a frame.",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Latent.Input("latent"),
                io.Int.Input("frame_idx", default=0, min=-9999, max=9999),
                io.Vae.Input("vae", optional=True),
                io.Vae.Input("audio_vae", optional=True),
                io.Image.Input("image", optional=True),
                io.Audio.Input("audio", optional=True),
            ],
            outputs=[io.Conditioning.Output(display_name="positive")],
        )

    @classmethod
    def execute(cls, positive, latent, frame_idx, vae=None, audio_vae=None, image=None, audio=None):
        samples = latent["samples"]
        if not samples.is_nested or samples.unbind()[0].shape[1] != 24:
            raise ValueError(
                "MiniMaxH3AddGuide takes latents of MiniMax H3: video and sound. Make one with an Empty node."
            )
        for name, given, needed in (("vae", image, vae), ("audio_vae", audio, audio_vae)):
            if given is not None and needed is None:
                raise ValueError(
                    f"MiniMaxH3AddGuide cannot encode what it was given without {name}. Connect it."
                )
        if image is None and audio is None:
            raise ValueError("MiniMaxH3AddGuide has nothing to add. Connect image or audio.")
        video, sound = samples.unbind()
        frames = sum(FRAMES_OF_LATENTS[number % 5] for number in range(video.shape[2]))
        first, count = _frames_of_guide(image, frame_idx, frames)
        guide = {"resolved_frame_index": first}
        if image is not None:
            fitted = _fitted(image[:count], video.shape[4] * 16, video.shape[3] * 16, "center")
            guide["latent"] = vae.encode(fitted)
        if audio is not None:
            rest = math.floor(sound.shape[-1] - first * AUDIO_LATENTS_PER_SECOND / FPS)
            if rest < 1:
                raise ValueError(
                    f"MiniMaxH3AddGuide: frame_idx {frame_idx} lies behind the end of the sound."
                )
            guide["audio_latent"] = _encoded_sound(audio_vae, audio)[..., :rest]
        known = [*positive[0][1].get("minimax_keyframes", ()), guide]
        return io.NodeOutput(node_helpers.conditioning_set_values(positive, {"minimax_keyframes": known}))


class MiniMaxH3ReferenceToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MiniMaxH3ReferenceToVideo",
            display_name="MiniMax H3 Reference to Video",
            category="model/conditioning/minimax",
            description=(
                "Encodes a prompt with pictures, videos and sounds that it calls <Picture 1>, <Video 1>, "
                "<Audio 1>."
            ),
            inputs=[
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                io.Vae.Input("audio_vae"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                *frame_size(1344, 768, low=32, step=32),
                io.Int.Input("length", default=124, min=5, max=3600, step=17),
                io.Combo.Input("ref_image_size", options=["match", "max"], default="match"),
                io.Autogrow.Input(
                    "ref_images",
                    io.Autogrow.TemplatePrefix(
                        io.Image.Input("ref_image"), prefix="ref_image_", min=0, max=9
                    ),
                    optional=True,
                ),
                io.Autogrow.Input(
                    "ref_videos",
                    io.Autogrow.TemplatePrefix(
                        io.Image.Input("ref_video"), prefix="ref_video_", min=0, max=3
                    ),
                    optional=True,
                ),
                io.Autogrow.Input(
                    "ref_video_audios",
                    io.Autogrow.TemplatePrefix(
                        io.Audio.Input("ref_video_audio"), prefix="ref_video_audio_", min=0, max=3
                    ),
                    optional=True,
                ),
                io.Autogrow.Input(
                    "ref_audios",
                    io.Autogrow.TemplatePrefix(
                        io.Audio.Input("ref_audio"), prefix="ref_audio_", min=0, max=3
                    ),
                    optional=True,
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls,
        clip,
        vae,
        audio_vae,
        prompt,
        width,
        height,
        length,
        ref_image_size="match",
        ref_images=None,
        ref_videos=None,
        ref_video_audios=None,
        ref_audios=None,
    ):
        latent, frames = _empty(width, height, length)
        seen, blocks = [], []
        for image in _given(ref_images).values():
            item, block = _reference_image(vae, image, width, height, ref_image_size)
            seen.append(item)
            blocks.append(block)
        sounds = ref_video_audios or {}
        for name, video in _given(ref_videos).items():
            sound = sounds.get("ref_video_audio_" + name.rsplit("_", 1)[-1])
            items, block = _reference_video(vae, audio_vae, video, sound, frames)
            seen += items
            blocks.append(block)
        for audio in _given(ref_audios).values():
            heard = _encoded_sound(audio_vae, audio)
            seen.append({"type": "audio"})
            blocks.append({"kind": "audio", "ref_audio_t": heard.shape[-1], "audio_latent": heard})
        conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(prompt, minimax_ref_items=seen))
        if blocks:
            conditioning = node_helpers.conditioning_set_values(conditioning, {"minimax_refs": blocks})
        return io.NodeOutput(conditioning, latent)


MiniMaxH3SigmaShift = absent_node(
    "MiniMaxH3SigmaShift",
    "MiniMax H3",
    display_name="ModelSamplingMiniMaxH3",
    category="model/patch/minimax",
    description="The shifts of the noise of video and of sound.",
    search_aliases=["sigma shift", "minimax shift"],
    inputs=lambda: [
        io.Model.Input("model"),
        io.Float.Input("shift_video", default=12.0, min=0.01, max=100.0, step=0.01),
        io.Float.Input("shift_audio", default=3.0, min=0.01, max=100.0, step=0.01),
    ],
    outputs=lambda: [io.Model.Output()],
)


BlockSparseAttention = absent_node(
    "BlockSparseAttention",
    "MiniMax H3 (block-sparse attention)",
    display_name="Block-Sparse Attention",
    category="model/patch",
    description="Attends to the most important blocks only, which is faster.",
    inputs=lambda: [
        io.Model.Input("model"),
        io.Combo.Input("method", options=["vsa"], default="vsa"),
        io.Int.Input("skip_first_steps", default=10, min=0, max=10000),
        io.Float.Input("sparsity", default=0.2, min=0.0, max=1.0, step=0.01),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001),
        io.String.Input("blocks", default=""),
        io.Int.Input("min_tokens", default=12288, min=0, max=1048576),
        io.Int.Input("block_size", default=256, min=1, max=4096),
        io.Combo.Input("text_tokens", options=["exact_kv_and_rows"], default="exact_kv_and_rows"),
        io.Boolean.Input("verbose", default=False),
    ],
    outputs=lambda: [io.Model.Output(display_name="model")],
)


MiniMaxH3FunControlNetApply = absent_node(
    "MiniMaxH3FunControlNetApply",
    "MiniMax H3 Fun ControlNet",
    display_name="Apply MiniMax H3 Fun ControlNet",
    category="model/patch",
    description="Lets a video control another one, or fills masked parts.",
    inputs=lambda: [
        io.Model.Input("model"),
        io.ModelPatch.Input("model_patch"),
        io.Vae.Input("vae"),
        io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.01),
        io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001),
        io.Image.Input("control_video", optional=True),
        io.Mask.Input("mask", optional=True),
        io.Image.Input("source_video", optional=True),
    ],
    outputs=lambda: [io.Model.Output()],
)


class MinimaxH3Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            EmptyMiniMaxH3LatentAV,
            MiniMaxH3ImageToVideo,
            MiniMaxH3AddGuide,
            MiniMaxH3ReferenceToVideo,
            MiniMaxH3SigmaShift,
            BlockSparseAttention,
            MiniMaxH3FunControlNetApply,
        ]


def comfy_entrypoint():
    return MinimaxH3Extension()
