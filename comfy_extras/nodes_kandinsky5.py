"""Kandinsky 5: videos that begin with a picture."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import guided, sides_out, video_size

Kandinsky5ImageToVideo = absent_node(
    "Kandinsky5ImageToVideo",
    "Kandinsky 5",
    category="model/conditioning/kandinsky",
    inputs=lambda: [*guided(), *video_size(768, 512, 121), io.Image.Input("start_image", optional=True)],
    outputs=lambda: [*sides_out(), io.Latent.Output(display_name="cond_latent")],
)


NormalizeVideoLatentStart = absent_node(
    "NormalizeVideoLatentStart",
    "Kandinsky 5",
    category="model/conditioning",
    inputs=lambda: [
        io.Latent.Input("latent"),
        io.Int.Input("start_frame_count", default=4, min=1, max=MAX_RESOLUTION, step=1),
        io.Int.Input("reference_frame_count", default=5, min=1, max=MAX_RESOLUTION, step=1),
    ],
    outputs=lambda: [io.Latent.Output(display_name="latent")],
)


CLIPTextEncodeKandinsky5 = absent_node(
    "CLIPTextEncodeKandinsky5",
    "Kandinsky 5",
    display_name="CLIP Text Encode (Kandinsky 5)",
    category="model/conditioning/kandinsky",
    search_aliases=["kandinsky prompt"],
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("clip_l", multiline=True, dynamic_prompts=True),
        io.String.Input("qwen25_7b", multiline=True, dynamic_prompts=True),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


class Kandinsky5Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [Kandinsky5ImageToVideo, NormalizeVideoLatentStart, CLIPTextEncodeKandinsky5]


def comfy_entrypoint():
    return Kandinsky5Extension()
