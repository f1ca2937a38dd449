"""Boxes that the user draws on a picture, with what is in them."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_inputs import MAX_RESOLUTION

_INCOMING = "Boxes, elements or JSON to begin with. What you draw replaces them, until other ones come in."


class CreateBoundingBoxes(io.ComfyNode):
    """A canvas for boxes."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CreateBoundingBoxes",
            display_name="Create Bounding Boxes",
            category="utilities",
            description="Draw boxes and say what is in them: for prompts that describe a layout.",
            inputs=[
                io.Image.Input("background", optional=True, tooltip="A picture to draw on."),
                io.MultiType.Input(
                    "bboxes", [io.BoundingBox, io.Array, io.String], optional=True, tooltip=_INCOMING
                ),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=64,
                    max=MAX_RESOLUTION,
                    step=16,
                    tooltip="Width of the canvas in pixels.",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=64,
                    max=MAX_RESOLUTION,
                    step=16,
                    tooltip="Height of the canvas in pixels.",
                ),
                io.BoundingBoxes.Input(
                    "editor_state",
                    socketless=False,
                    tooltip="The boxes as they were drawn, from the back to the front.",
                ),
                io.BoundingBoxes.Input(
                    "last_incoming",
                    optional=True,
                    tooltip="The boxes that last came in; the web page keeps them.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="preview"),
                io.BoundingBox.Output(display_name="bboxes"),
                io.Array.Output(display_name="elements"),
            ],
            is_output_node=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, width, height, editor_state=None, last_incoming=None, background=None, bboxes=None):
        from comfy.box_preview import drawn
        from comfy.boxes import elements_of, frame_of, parsed, regions_of

        incoming = parsed(bboxes, width, height)
        is_new = bool(incoming) and incoming != last_incoming
        regions = regions_of(incoming if is_new else editor_state, width, height)
        shown = {"dims": [width, height], **({"input_bboxes": incoming} if incoming else {})}
        boxes = frame_of(regions, width, height)
        preview = drawn(regions, width, height, background)
        return io.NodeOutput(preview, [boxes] if boxes else [], elements_of(regions), ui=shown)


class BoundingBoxesExtension(ComfyExtension):
    """The node of this topic."""

    async def get_node_list(self):
        return [CreateBoundingBoxes]


def comfy_entrypoint():
    return BoundingBoxesExtension()
