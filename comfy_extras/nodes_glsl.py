"""Pictures drawn by fragment shaders."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io, ui
from comfy_extras.core_inputs import MAX_RESOLUTION

DEFAULT_FRAGMENT_SHADER = """#version 300 es
precision highp float;

uniform sampler2D u_image0;
uniform vec2 u_resolution;

in vec2 v_texCoord;
layout(location = 0) out vec4 fragColor0;

void main() {
    fragColor0 = texture(u_image0, v_texCoord);
}
"""


def _growing(name, one, prefix, least, most, tooltip):
    template = io.Autogrow.TemplatePrefix(one, prefix=prefix, min=least, max=most)
    return io.Autogrow.Input(name, template=template, tooltip=tooltip)


def _size_modes():
    sides = [io.Int.Input(side, default=512, min=1, max=MAX_RESOLUTION) for side in ("width", "height")]
    options = [io.DynamicCombo.Option("from_input", []), io.DynamicCombo.Option("custom", sides)]
    return io.DynamicCombo.Input(
        "size_mode", options=options, tooltip="The size of the first picture, or another."
    )


def _given(values):
    return [value for value in (values or {}).values() if value is not None]


def _saved(images, prefix):
    return ui.ImageSaveHelper.save_images(images, prefix, io.FolderType.temp, None, compress_level=1)


class GLSLShader(io.ComfyNode):
    """A fragment shader over pictures."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GLSLShader",
            display_name="GLSL Shader",
            category="image/shader",
            description="Draws pictures with a fragment shader (GLSL ES 3.00).",
            inputs=[
                io.String.Input(
                    "fragment_shader",
                    default=DEFAULT_FRAGMENT_SHADER,
                    multiline=True,
                    tooltip="u_resolution is the size; #pragma passes N draws N times (u_pass).",
                ),
                _size_modes(),
                _growing("images", io.Image.Input("image"), "image", 1, 5, "u_image0 to u_image4"),
                _growing(
                    "floats", io.Float.Input("float", default=0.0), "u_float", 0, 20, "u_float0 to u_float19"
                ),
                _growing("ints", io.Int.Input("int", default=0), "u_int", 0, 20, "u_int0 to u_int19"),
                _growing(
                    "bools", io.Boolean.Input("bool", default=False), "u_bool", 0, 10, "u_bool0 to u_bool9"
                ),
                _growing(
                    "curves",
                    io.Curve.Input("curve"),
                    "u_curve",
                    0,
                    4,
                    "u_curve0 to u_curve3: texture(u_curve0, vec2(x, 0.5)).r",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE0"),
                io.Image.Output(display_name="IMAGE1"),
                io.Image.Output(display_name="IMAGE2"),
                io.Image.Output(display_name="IMAGE3"),
            ],
            is_experimental=True,
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, fragment_shader, size_mode, images, floats=None, ints=None, bools=None, curves=None):
        import torch

        from comfy.shaders import rendered

        pictures = _given(images)
        if not pictures:
            raise ValueError("A shader needs a picture. Link one to image0.")
        height, width = pictures[0].shape[1:3]
        if size_mode["size_mode"] == "custom":
            width, height = size_mode["width"], size_mode["height"]
        frames = zip(
            *(one.expand(len(pictures[0]), -1, -1, -1) if len(one) == 1 else one for one in pictures)
        )
        drawn = rendered(
            fragment_shader, ([one.cpu().float().numpy() for one in frame] for frame in frames),
            width, height,
            floats=[value or 0.0 for value in (floats or {}).values()],
            ints=[value or 0 for value in (ints or {}).values()],
            bools=[bool(value) for value in (bools or {}).values()],
            curves=[curve.to_lut() for curve in _given(curves)],
        )  # fmt: skip
        outputs = [torch.stack([torch.from_numpy(one) for one in batch]) for batch in zip(*drawn)]
        shown = {"input_images": [file for one in pictures for file in _saved(one, "GLSLShader_input")]}
        return io.NodeOutput(*outputs, ui={**shown, "images": _saved(outputs[0], "GLSLShader_output")})


class GLSLExtension(ComfyExtension):
    """The node of this topic."""

    async def get_node_list(self):
        return [GLSLShader]


def comfy_entrypoint():
    return GLSLExtension()
