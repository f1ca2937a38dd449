"""Kandinsky 5: videos that begin with a picture."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_conditioning import both, encoded, latent_frames, ones, sized, zeros
from comfy_extras.video_inputs import guided, sides_out, video_size

# How far the mean and the deviation of the first frames may be changed, down and up.
MEAN_CHANGE = (0.3, 0.35)
DEVIATION_CHANGE = (0.35, 0.5)


def _like_reference(first, reference):
    """`first` with mean and deviation of `reference`, frame by frame and within limits."""
    axes = (1, 3, 4)
    mean, deviation = first.mean(axes, keepdim=True), first.std(axes, keepdim=True)
    new_mean = reference.mean().clamp(mean - MEAN_CHANGE[0], mean + MEAN_CHANGE[1])
    new_deviation = reference.std().clamp(deviation - DEVIATION_CHANGE[0], deviation + DEVIATION_CHANGE[1])
    return (first - mean) / (deviation + 1e-8) * new_deviation + new_mean


class Kandinsky5ImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Kandinsky5ImageToVideo",
            category="model/conditioning/kandinsky",
            description="Lets a video begin with pictures.",
            inputs=[*guided(), *video_size(768, 512, 121), io.Image.Input("start_image", optional=True)],
            outputs=[*sides_out(), io.Latent.Output(display_name="cond_latent")],
        )

    @classmethod
    def execute(cls, positive, negative, vae, width, height, length, batch_size, start_image=None):
        samples = zeros(batch_size, 16, latent_frames(length), height // 8, width // 8)
        known = {}
        if start_image is not None:
            begin = sized(start_image[:length], width, height)
            known["samples"] = encoded(vae, begin)
            mask = ones(1, 1, *samples.shape[2:], like=begin)
            mask[:, :, : latent_frames(len(begin))] = 0
            values = {"time_dim_replace": known["samples"], "concat_mask": mask}
            positive, negative = both(positive, negative, values)
        return io.NodeOutput(positive, negative, {"samples": samples}, known)


class NormalizeVideoLatentStart(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NormalizeVideoLatentStart",
            category="model/conditioning",
            description=(
                "Brings brightness and contrast of the first latent frames near to those that follow."
            ),
            inputs=[
                io.Latent.Input("latent"),
                io.Int.Input("start_frame_count", default=4, min=1, max=MAX_RESOLUTION, step=1),
                io.Int.Input("reference_frame_count", default=5, min=1, max=MAX_RESOLUTION, step=1),
            ],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(cls, latent, start_frame_count, reference_frame_count):
        samples = latent["samples"]
        if samples.shape[2] <= 1:
            return io.NodeOutput(latent)
        count = min(reference_frame_count, samples.shape[2] - 1)
        reference = samples[:, :, start_frame_count : start_frame_count + count]
        out = samples.clone()
        out[:, :, :start_frame_count] = _like_reference(samples[:, :, :start_frame_count], reference)
        return io.NodeOutput({**latent, "samples": out})


class CLIPTextEncodeKandinsky5(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CLIPTextEncodeKandinsky5",
            display_name="CLIP Text Encode (Kandinsky 5)",
            category="model/conditioning/kandinsky",
            description="Encodes a prompt for each text encoder of Kandinsky 5.",
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("clip_l", multiline=True, dynamic_prompts=True),
                io.String.Input("qwen25_7b", multiline=True, dynamic_prompts=True),
            ],
            outputs=[io.Conditioning.Output()],
            search_aliases=["kandinsky prompt"],
        )

    @classmethod
    def execute(cls, clip, clip_l, qwen25_7b):
        tokens = {**clip.tokenize(clip_l), "qwen25_7b": clip.tokenize(qwen25_7b)["qwen25_7b"]}
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))


class Kandinsky5Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [Kandinsky5ImageToVideo, NormalizeVideoLatentStart, CLIPTextEncodeKandinsky5]


def comfy_entrypoint():
    return Kandinsky5Extension()
