"""Chroma Radiance, which samples pixels instead of latents."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import zeros
from comfy_extras.video_inputs import batch_size, frame_size


class EmptyChromaRadianceLatentImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyChromaRadianceLatentImage",
            category="model/latent/chroma radiance",
            description="An empty picture for Chroma Radiance, which needs no VAE.",
            inputs=[*frame_size(1024, 1024), batch_size()],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, batch_size=1):
        return io.NodeOutput({"samples": zeros(batch_size, 3, height, width)})


class ChromaRadianceOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ChromaRadianceOptions",
            category="model/patch/chroma radiance",
            description="How Chroma Radiance runs between two noise levels.",
            inputs=[
                io.Model.Input("model"),
                io.Boolean.Input("preserve_wrapper", default=True),
                io.Float.Input("start_sigma", default=1.0, min=0.0, max=1.0, advanced=True),
                io.Float.Input("end_sigma", default=0.0, min=0.0, max=1.0, advanced=True),
                io.Int.Input("nerf_tile_size", default=-1, min=-1, advanced=True),
                io.Boolean.Input("force_sequential_txt_ids", default=False, advanced=True),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(
        cls, model, preserve_wrapper, start_sigma, end_sigma, nerf_tile_size, force_sequential_txt_ids
    ):
        options = {"nerf_tile_size": nerf_tile_size} if nerf_tile_size >= 0 else {}
        if force_sequential_txt_ids:
            options["use_sequential_txt_ids"] = True
        if not options:
            return io.NodeOutput(model)
        before = model.model_options.get("model_function_wrapper") if preserve_wrapper else None

        def with_options(apply_model, args):
            conditioning = args["c"]
            if end_sigma <= float(args["timestep"].max()) <= start_sigma:
                told = {
                    **conditioning.get("transformer_options", {}),
                    "chroma_radiance_options": dict(options),
                }
                conditioning = {**conditioning, "transformer_options": told}
            if before is not None:
                return before(apply_model, {**args, "c": conditioning})
            return apply_model(args["input"], args["timestep"], **conditioning)

        changed = model.clone()
        changed.set_model_unet_function_wrapper(with_options)
        return io.NodeOutput(changed)


class ChromaRadianceExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [EmptyChromaRadianceLatentImage, ChromaRadianceOptions]


def comfy_entrypoint():
    return ChromaRadianceExtension()
