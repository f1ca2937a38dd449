"""Bernini: videos edited by a source video and reference pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import both, encoded, latent_frames, sized, zeros
from comfy_extras.video_inputs import batch_size, guided, sides_out


def _with_long_side(images, longest, multiple=16):
    """At most so long; sides are multiples."""
    height, width = images.shape[1:3]
    scale = min(longest / max(height, width), 1.0)
    height, width = (max(multiple, round(side * scale / multiple) * multiple) for side in (height, width))
    return sized(images[..., :3], width, height, method="area", crop="disabled")


class BerniniConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="BerniniConditioning",
            display_name="Bernini Conditioning",
            category="model/conditioning/bernini",
            description="Tells Bernini which video to edit, and what to put into it.",
            inputs=[
                *guided(),
                io.Int.Input("width", default=832, min=16, max=8192, step=16),
                io.Int.Input("height", default=480, min=16, max=8192, step=16),
                io.Int.Input("length", default=81, min=1, max=8192, step=4),
                batch_size(),
                io.Image.Input("source_video", optional=True),
                io.Image.Input("reference_video", optional=True),
                io.Autogrow.Input(
                    "reference_images",
                    io.Autogrow.TemplatePrefix(
                        io.Image.Input("reference_image"), prefix="reference_image_", min=0, max=8
                    ),
                    optional=True,
                ),
                io.Int.Input("ref_max_size", default=848, min=16, max=8192, step=16, optional=True),
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
        source_video=None,
        reference_video=None,
        reference_images=None,
        ref_max_size=848,
    ):
        samples = zeros(batch_size, 16, latent_frames(length), height // 8, width // 8)
        streams = []
        if source_video is not None:
            streams.append(sized(source_video[:length, ..., :3], width, height, method="area"))
        if reference_video is not None:
            streams.append(_with_long_side(reference_video[:length], ref_max_size))
        given = reference_images or {}
        for name in sorted(given):
            pictures = () if given[name] is None else given[name].split(1)
            streams.extend(_with_long_side(picture, ref_max_size) for picture in pictures)
        if streams:
            context = {"context_latents": [encoded(vae, stream) for stream in streams]}
            positive, negative = both(positive, negative, context)
        return io.NodeOutput(positive, negative, {"samples": samples})


class BerniniExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [BerniniConditioning]


def comfy_entrypoint():
    return BerniniExtension()
