"""Saving texts."""

from __future__ import annotations

import json
import os

import folder_paths
from comfy_api.latest import ComfyExtension, io, ui

FORMATS = ["txt", "csv", "md", "json"]


def _indented(text):
    """JSON with indents; what is no JSON stays as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


class SaveTextNode(io.ComfyNode):
    """Writes a text to a file."""

    @classmethod
    def define_schema(cls):
        prefix = "The start of the file name, with folders if wanted."
        return io.Schema(
            node_id="SaveText",
            display_name="Save Text",
            category="text",
            description="Saves a text in the output folder.",
            search_aliases=["save text", "write text", "export text"],
            is_output_node=True,
            inputs=[
                io.String.Input("text", force_input=True),
                io.String.Input("filename_prefix", default="ComfyUI", tooltip=prefix),
                io.Combo.Input("format", options=FORMATS, default="txt"),
            ],
            outputs=[io.String.Output(display_name="text")],
        )

    @classmethod
    def execute(cls, text, filename_prefix, format):
        if format not in FORMATS:
            raise ValueError(f"Texts are not saved as {format!r}. Choose one of: {', '.join(FORMATS)}.")
        folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), 1, 1
        )
        name = f"{stem}_{number:05}.{format}"
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(_indented(text) if format == "json" else text)
        saved = ui.SavedResult(name, subfolder, io.FolderType.output)
        return io.NodeOutput(text, ui={"text": (text,), "files": [saved]})


class TextExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [SaveTextNode]


def comfy_entrypoint():
    return TextExtension()
