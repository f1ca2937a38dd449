"""Nodes for HiDream's four text encoders."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.text_parts import encoder_inputs, load_encoders, text_input, tokens_for


class QuadrupleCLIPLoader(io.ComfyNode):
    """Four files as one CLIP."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="QuadrupleCLIPLoader",
            display_name="Load CLIP (Quadruple)",
            category="model/loaders",
            description="Loads four text encoders (HiDream: CLIP-L, CLIP-bigG, T5-XXL, Llama).",
            inputs=encoder_inputs(4),
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, clip_name1, clip_name2, clip_name3, clip_name4):
        return io.NodeOutput(load_encoders(clip_name1, clip_name2, clip_name3, clip_name4))

    load_clip = execute


class CLIPTextEncodeHiDream(io.ComfyNode):
    """A prompt for each of the four."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CLIPTextEncodeHiDream",
            display_name="CLIP Text Encode (HiDream)",
            category="model/conditioning/hidream",
            description="Encodes a prompt for each of HiDream's text encoders.",
            search_aliases=["hidream prompt"],
            inputs=[io.Clip.Input("clip"), *map(text_input, ("clip_l", "clip_g", "t5xxl", "llama"))],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, clip_l, clip_g, t5xxl, llama):
        tokens = clip.tokenize(clip_g)
        for part, text in (("l", clip_l), ("t5xxl", t5xxl), ("llama", llama)):
            tokens[part] = tokens_for(clip, part, text, "HiDream")
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))

    encode = execute


class HiDreamExtension(ComfyExtension):
    async def get_node_list(self):
        return [QuadrupleCLIPLoader, CLIPTextEncodeHiDream]


async def comfy_entrypoint():
    return HiDreamExtension()
