"""Flux.3: prompts with a layout, and reference pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import sides_out

Flux3LayoutPrompt = absent_node(
    "Flux3LayoutPrompt",
    "Flux.3",
    display_name="Flux.3 Layout Prompt",
    category="model/conditioning/flux",
    inputs=lambda: [
        io.Array.Input("element"),
        io.String.Input("prompt", default="", multiline=True, dynamic_prompts=True),
    ],
    outputs=lambda: [io.String.Output(display_name="prompt")],
)


ReferenceMultiLatent = absent_node(
    "ReferenceMultiLatent",
    "Flux.3",
    display_name="Reference Latents (several pictures)",
    category="model/conditioning",
    inputs=lambda: [
        io.Conditioning.Input("positive"),
        io.Combo.Input("mode", options=["resize", "keep"], default="resize"),
        io.Float.Input("megapixels", default=1.0, min=0.01, max=16.0, step=0.01),
        io.Conditioning.Input("negative", optional=True),
        io.Vae.Input("vae", optional=True),
        io.Autogrow.Input(
            "images",
            io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="image", min=0, max=10),
            optional=True,
        ),
    ],
    outputs=lambda: [*sides_out(latent=False), io.Latent.Output(display_name="empty_latent")],
)


class Flux3Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [Flux3LayoutPrompt, ReferenceMultiLatent]


def comfy_entrypoint():
    return Flux3Extension()
