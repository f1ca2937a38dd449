"""Fragment shaders (GLSL ES 3.00) over pictures.

A shader reads `u_image0`.. (sampler2D), `u_float0`.., `u_int0`.., `u_bool0`.., `u_curve0`.. (sampler2D, one
row), `u_resolution` and `u_pass`, and writes `fragColor0`..`fragColor3`. `#pragma passes N` draws N times:
each pass after the first finds what the last one drew in `u_image0`.
"""

import ctypes
import functools
import re
from collections.abc import Iterator

import numpy as np

from comfy import gles

MAX_OUTPUTS = 4

# One triangle that is larger than the picture; (0, 0) of v_texCoord is below at the left.
_VERTEX = """#version 300 es
out vec2 v_texCoord;
void main() {
    v_texCoord = vec2((gl_VertexID << 1) & 2, gl_VertexID & 2);
    gl_Position = vec4(v_texCoord * 2.0 - 1.0, 0.0, 1.0);
}
"""


# Unless a shader says more, textures and whole numbers have low precision: some drivers then take 16 bits.
_PRECISION = "precision highp sampler2D; precision highp int; "
_BEFORE_CODE = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/|#[^\n]*)*", re.DOTALL)


def _precise(source: str) -> str:
    """The shader with full precision as its default; the numbers of its lines stay."""
    start = _BEFORE_CODE.match(source).end()
    return source[:start] + _PRECISION + source[start:]


@functools.cache
def _context() -> gles.Context:
    return gles.Context()


def outputs_of(source: str) -> int:
    """How many pictures a shader writes."""
    numbers = [int(number) for number in re.findall(r"fragColor(\d+)", source)]
    return min(max(numbers, default=0) + 1, MAX_OUTPUTS)


def passes_of(source: str) -> int:
    """How often a shader is drawn."""
    found = re.search(r"#pragma\s+passes\s+(\d+)", source)
    return max(1, int(found.group(1))) if found else 1


class _Renderer:
    """A shader with its textures, in the current context."""

    def __init__(self, gl, source: str, width: int, height: int):
        self.gl, self.size = gl, (width, height)
        self.textures: list[int] = []
        self.framebuffers: list[int] = []
        self.program = gles.program(gl, _VERTEX, _precise(source))
        gl.glUseProgram(self.program)

    def place(self, name: str) -> int:
        return self.gl.glGetUniformLocation(self.program, name.encode())

    def target(self, count: int) -> tuple[int, list[int]]:
        """(framebuffer, its textures)."""
        textures = [self.new_texture(0, *self.size) for _ in range(count)]
        self.framebuffers.append(gles.framebuffer(self.gl, textures))
        return self.framebuffers[-1], textures

    def new_texture(self, unit, width, height, pixels=None) -> int:
        self.textures.append(gles.texture(self.gl, unit, width, height, pixels))
        return self.textures[-1]

    def set_values(self, floats, ints, bools) -> None:
        self.gl.glUniform2f(self.place("u_resolution"), *(ctypes.c_float(side) for side in self.size))
        for index, value in enumerate(floats):
            self.gl.glUniform1f(self.place(f"u_float{index}"), ctypes.c_float(value))
        for name, values in (("int", ints), ("bool", bools)):
            for index, value in enumerate(values):
                self.gl.glUniform1i(self.place(f"u_{name}{index}"), int(value))

    def set_texture(self, unit: int, name: str, pixels: np.ndarray) -> int:
        self.gl.glUniform1i(self.place(name), unit)
        return self.new_texture(unit, pixels.shape[1], pixels.shape[0], pixels)

    def drawn(self, first: int, passes: int, outputs: int) -> list[np.ndarray]:
        """What the last pass writes. `first` is the texture of the first picture."""
        final, _ = self.target(outputs)
        between = [self.target(outputs) for _ in range(min(passes - 1, 2))]
        source = first
        for number in range(passes):
            gles.bind(self.gl, 0, source)  # making targets has bound others
            self.gl.glUniform1i(self.place("u_pass"), number)
            if number == passes - 1:
                gles.draw(self.gl, final, *self.size)
            else:
                target, (source, *_) = between[number % 2]
                gles.draw(self.gl, target, *self.size)
        return [gles.read(self.gl, final, number, *self.size) for number in range(outputs)]

    def close(self) -> None:
        gles.delete(
            self.gl, program=self.program, textures=self.textures, framebuffers=self.framebuffers
        )  # fmt: skip


def rendered(
    source: str, frames, width: int, height: int, *, floats=(), ints=(), bools=(), curves=()
) -> Iterator[list[np.ndarray]]:
    """For each frame, a list of pictures (H, W, C), the four (height, width, 4) that a shader writes.

    What it does not write is black and transparent. gles.ShaderError for a shader that the driver refuses,
    gles.NoOpenGL where there is none.
    """
    outputs, passes = outputs_of(source), passes_of(source)
    for images in frames:
        with _context().current() as gl:
            renderer = _Renderer(gl, source, width, height)
            try:
                renderer.set_values(floats, ints, bools)
                for index, curve in enumerate(curves):
                    renderer.set_texture(len(images) + index, f"u_curve{index}", curve.reshape(1, -1, 1))
                textures = [
                    renderer.set_texture(index, f"u_image{index}", image[::-1])
                    for index, image in enumerate(images)
                ]
                pictures = renderer.drawn(textures[0], passes, outputs)
            finally:
                renderer.close()
        empty = [np.zeros((height, width, 4), dtype=np.float32)] * (MAX_OUTPUTS - outputs)
        yield [np.ascontiguousarray(picture[::-1]) for picture in pictures] + empty
