"""Boogu: pictures edited by an instruction."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import both, encoded, numbered, with_area
from comfy_extras.video_inputs import sides_out


class TextEncodeBooguEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextEncodeBooguEdit",
            category="model/conditioning/boogu",
            description="Encodes an instruction with the pictures that it is about.",
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                io.String.Input("negative_prompt", multiline=True, dynamic_prompts=True, advanced=True),
                io.Vae.Input("vae"),
                io.Autogrow.Input(
                    "images",
                    io.Autogrow.TemplateNames(
                        io.Image.Input("image"),
                        names=[
                            "image_1",
                            "image_2",
                            "image_3",
                            "image_4",
                            "image_5",
                            "image_6",
                            "image_7",
                            "image_8",
                            "image_9",
                            "image_10",
                            "image_11",
                            "image_12",
                            "image_13",
                            "image_14",
                            "image_15",
                            "image_16",
                        ],
                        min=0,
                    ),
                ),
            ],
            outputs=sides_out(latent=False),
        )

    @classmethod
    def execute(cls, clip, prompt, negative_prompt, vae=None, images=None):
        pictures = numbered(images)
        seen = [with_area(picture, 384 * 384)[..., :3] for picture in pictures]
        positive = clip.encode_from_tokens_scheduled(clip.tokenize(prompt, images=seen))
        negative = clip.encode_from_tokens_scheduled(clip.tokenize(negative_prompt))
        if vae is not None and pictures:
            latents = [encoded(vae, with_area(picture, 1024 * 1024, multiple=16)) for picture in pictures]
            positive, negative = both(positive, negative, {"reference_latents": latents}, append=True)
        return io.NodeOutput(positive, negative)


class BooguExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeBooguEdit]


def comfy_entrypoint():
    return BooguExtension()
