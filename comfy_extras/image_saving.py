"""Nodes that save pictures as animations, deep PNG, OpenEXR and SVG. `nodes_images` registers them."""

from __future__ import annotations

import json
import os
import re

import folder_paths
from comfy_api.latest import io, ui
from comfy_api.latest.ui.results import metadata_of

_PREFIX = (
    "The start of the file name, with folders if wanted; %date:yyyy-MM-dd% and %Node.input% may stand in it."
)


class SaveAnimatedWEBP(io.ComfyNode):
    """All pictures as the frames of one WEBP file."""

    COMPRESS_METHODS = {"default": 4, "fastest": 0, "slowest": 6}

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveAnimatedWEBP",
            display_name="Save Animated WEBP",
            category="image",
            description="Saves a batch as one animation (WEBP) that carries its workflow.",
            inputs=[
                io.Image.Input("images"),
                io.String.Input("filename_prefix", default="ComfyUI"),
                io.Float.Input("fps", default=6.0, min=0.01, max=1000.0, step=0.01),
                io.Boolean.Input("lossless", default=True),
                io.Int.Input("quality", default=80, min=0, max=100),
                io.Combo.Input("method", options=list(cls.COMPRESS_METHODS)),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images, fps, filename_prefix, lossless, quality, method, num_frames=0):
        level = cls.COMPRESS_METHODS.get(method)
        shown = ui.ImageSaveHelper.get_save_animated_webp_ui(
            images, filename_prefix, cls, fps, lossless, quality, level
        )
        return io.NodeOutput(images, ui=shown)


class SaveAnimatedPNG(io.ComfyNode):
    """All pictures as the frames of one PNG file."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveAnimatedPNG",
            display_name="Save Animated PNG",
            category="image",
            description="Saves a batch as one animation (PNG) that carries its workflow.",
            inputs=[
                io.Image.Input("images"),
                io.String.Input("filename_prefix", default="ComfyUI"),
                io.Float.Input("fps", default=6.0, min=0.01, max=1000.0, step=0.01),
                io.Int.Input("compress_level", default=4, min=0, max=9, advanced=True),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images, fps, compress_level, filename_prefix="ComfyUI"):
        shown = ui.ImageSaveHelper.get_save_animated_png_ui(images, filename_prefix, cls, fps, compress_level)
        return io.NodeOutput(images, ui=shown)


def _write(path, content):
    """The whole file or none."""
    partial = f"{path}.partial"
    try:
        with open(partial, "wb") as file:
            file.write(content)
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def _depth(*depths):
    return io.Combo.Input("bit_depth", options=list(depths), default=depths[0], advanced=True)


def _color_space(*spaces, tooltip=None):
    return io.Combo.Input(
        "input_color_space", options=list(spaces), default="sRGB", advanced=True, tooltip=tooltip
    )


_HDR_TIP = (
    "What the values of the pictures are. The file holds linear light of the scene: sRGB and HDR (HLG, "
    "Rec. 2020) are converted, linear is written as it is."
)


class SaveImageAdvanced(io.ComfyNode):
    """Pictures as PNG of 8 or 16 bits, or as OpenEXR."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveImageAdvanced",
            display_name="Save Image (Advanced)",
            category="image",
            description="Saves pictures as PNG of 8 or 16 bits or as OpenEXR, with their workflow.",
            search_aliases=["save", "save image", "export image", "output image", "write image"],
            essentials_category="Basics",
            inputs=[
                io.Image.Input("images", tooltip="The pictures to save."),
                io.String.Input("filename_prefix", default="ComfyUI", tooltip=_PREFIX),
                io.DynamicCombo.Input(
                    "format",
                    options=[
                        io.DynamicCombo.Option("png", [_depth("8-bit", "16-bit"), _color_space("sRGB")]),
                        io.DynamicCombo.Option(
                            "exr",
                            [_depth("32-bit float"), _color_space("sRGB", "HDR", "linear", tooltip=_HDR_TIP)],
                        ),
                    ],
                    tooltip="The kind of file.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images, filename_prefix, format):
        from comfy.picture_encoding import encoded, exr_with_texts, png_with_texts

        kind, space = format["format"], format.get("input_color_space", "sRGB")
        folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), images[0].shape[1], images[0].shape[0]
        )
        texts = metadata_of(cls)
        results = []
        for index, image in enumerate(images):
            content = encoded(image, kind, format["bit_depth"], space)
            content = (
                exr_with_texts(content, texts, space) if kind == "exr" else png_with_texts(content, texts)
            )
            name = f"{stem.replace('%batch_num%', str(index))}_{number + index:05}.{kind}"
            _write(os.path.join(folder, name), content)
            results.append(ui.SavedResult(name, subfolder, io.FolderType.output))
        return io.NodeOutput(images, ui={"images": results})


def _with_metadata(svg, metadata):
    """The SVG text with a <metadata> element that holds JSON, right after its opening tag."""
    if not metadata:
        return svg
    # "]]>" would end the section that keeps the JSON from being read as XML.
    safe = json.dumps(metadata, indent=2).replace("]]>", "]]\\u003e")
    element = f"\n  <metadata><![CDATA[\n{safe}\n]]></metadata>"
    return re.sub(r"<svg\b[^>]*>", lambda tag: tag.group(0) + element, svg, count=1)


class SaveSVGNode(io.ComfyNode):
    """Vector graphics as files."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveSVGNode",
            display_name="Save SVG",
            category="image",
            description="Saves vector graphics (SVG) with their workflow.",
            search_aliases=["export vector", "save vector graphics"],
            inputs=[
                io.SVG.Input("svg"),
                io.String.Input("filename_prefix", default="svg/ComfyUI", tooltip=_PREFIX),
            ],
            outputs=[io.SVG.Output(display_name="svg")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, svg, filename_prefix="svg/ComfyUI"):
        folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        metadata = {key: json.loads(text) for key, text in metadata_of(cls).items()}
        results = []
        for index, data in enumerate(svg.data):
            name = f"{stem.replace('%batch_num%', str(index))}_{number + index:05}_.svg"
            text = _with_metadata(data.getvalue().decode("utf-8"), metadata)
            _write(os.path.join(folder, name), text.encode("utf-8"))
            results.append(ui.SavedResult(name, subfolder, io.FolderType.output))
        return io.NodeOutput(svg, ui={"images": results})
