"""Pictures enlarged by a network that was trained for it."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io


class UpscaleModelLoader(io.ComfyNode):
    """An upscale model from its file."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="UpscaleModelLoader",
            display_name="Load Upscale Model",
            category="loaders",
            description="Loads a network that enlarges pictures: ESRGAN, RealESRGAN or its compact form.",
            inputs=[io.Combo.Input("model_name", options=folder_paths.get_filename_list("upscale_models"))],
            outputs=[io.UpscaleModel.Output()],
        )

    @classmethod
    def execute(cls, model_name):
        path = folder_paths.get_full_path_or_raise("upscale_models", model_name)
        import comfy.upscalers

        return io.NodeOutput(comfy.upscalers.load_upscale_model(path))

    load_model = execute  # the name that node packs call


class ImageUpscaleWithModel(io.ComfyNode):
    """Pictures as many times larger as the model enlarges."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageUpscaleWithModel",
            display_name="Upscale Image (using Model)",
            category="image/upscaling",
            description="Enlarges pictures with an upscale model, in tiles where they are large.",
            inputs=[io.UpscaleModel.Input("upscale_model"), io.Image.Input("image")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, upscale_model, image):
        import comfy.upscalers

        return io.NodeOutput(comfy.upscalers.upscale(upscale_model, image))

    upscale = execute  # the name that node packs call


class UpscaleModelExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [UpscaleModelLoader, ImageUpscaleWithModel]


def comfy_entrypoint():
    return UpscaleModelExtension()
