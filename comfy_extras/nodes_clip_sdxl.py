"""Prompts for SDXL with the sizes and the score that its models know."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_inputs import MAX_RESOLUTION


def _side(name: str, default: int = 1024):
    return io.Int.Input(name, default=default, min=0, max=MAX_RESOLUTION)


def _text(name: str):
    return io.String.Input(name, multiline=True, dynamic_prompts=True)


class CLIPTextEncodeSDXLRefiner(io.ComfyNode):
    """A prompt for the refiner."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CLIPTextEncodeSDXLRefiner",
            category="advanced/conditioning",
            description="Encodes a prompt for SDXL's refiner, with an aesthetic score and the original size.",
            inputs=[
                io.Float.Input("ascore", default=6.0, min=0.0, max=1000.0, step=0.01),
                _side("width"),
                _side("height"),
                _text("text"),
                io.Clip.Input("clip"),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, ascore, width, height, text):
        known = {"aesthetic_score": ascore, "width": width, "height": height}
        return io.NodeOutput(clip.encode_from_tokens_scheduled(clip.tokenize(text), add_dict=known))


class CLIPTextEncodeSDXL(io.ComfyNode):
    """A prompt for each text encoder of the base, with sizes."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CLIPTextEncodeSDXL",
            category="advanced/conditioning",
            description="Encodes a prompt for each text encoder of SDXL, with size, crop and target.",
            inputs=[
                io.Clip.Input("clip"),
                _side("width"),
                _side("height"),
                _side("crop_w", 0),
                _side("crop_h", 0),
                _side("target_width"),
                _side("target_height"),
                _text("text_g"),
                _text("text_l"),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, width, height, crop_w, crop_h, target_width, target_height, text_g, text_l):
        tokens = clip.tokenize(text_g)
        tokens["l"] = clip.tokenize(text_l)["l"]
        longest = max(len(chunks) for chunks in tokens.values())
        empty = clip.tokenize("")
        for name, chunks in tokens.items():
            tokens[name] = chunks + empty[name] * (longest - len(chunks))
        known = {
            "width": width, "height": height, "crop_w": crop_w, "crop_h": crop_h,
            "target_width": target_width, "target_height": target_height,
        }  # fmt: skip
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens, add_dict=known))


class ClipSdxlExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [CLIPTextEncodeSDXLRefiner, CLIPTextEncodeSDXL]


def comfy_entrypoint():
    return ClipSdxlExtension()
