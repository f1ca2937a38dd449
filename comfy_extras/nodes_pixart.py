"""Prompts for PixArt with the size that its models know."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.text_parts import text_input


class CLIPTextEncodePixArtAlpha(io.ComfyNode):
    """A prompt and a size in pixels."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CLIPTextEncodePixArtAlpha",
            display_name="CLIP Text Encode (PixArt Alpha)",
            category="model/conditioning/pixart",
            description="Encodes a prompt with the size of the picture, for PixArt Alpha. Sigma takes none.",
            search_aliases=["pixart prompt"],
            inputs=[
                io.Int.Input("width", default=1024, min=0, max=MAX_RESOLUTION),
                io.Int.Input("height", default=1024, min=0, max=MAX_RESOLUTION),
                text_input("text"),
                io.Clip.Input("clip"),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, width, height, text):
        known = {"width": width, "height": height}
        return io.NodeOutput(clip.encode_from_tokens_scheduled(clip.tokenize(text), add_dict=known))

    encode = execute


class PixArtExtension(ComfyExtension):
    async def get_node_list(self):
        return [CLIPTextEncodePixArtAlpha]


async def comfy_entrypoint():
    return PixArtExtension()
