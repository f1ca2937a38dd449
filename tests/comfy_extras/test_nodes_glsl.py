"""Fragment shaders over pictures. Those that render are left out where there is no OpenGL driver."""

import ctypes
import threading

import pytest
import torch

import folder_paths
from comfy import gles
from comfy.shaders import _precise, outputs_of, passes_of
from comfy_api.input import CurveInput
from comfy_extras.nodes_glsl import DEFAULT_FRAGMENT_SHADER, GLSLShader


def _has_driver():
    try:
        with gles.Context().current():
            return True
    except gles.NoOpenGL:
        return False


renders = pytest.mark.skipif(not _has_driver(), reason="no OpenGL ES 3 here")

HEAD = """#version 300 es
precision highp float;
uniform sampler2D u_image0, u_image1, u_curve0;
uniform vec2 u_resolution;
uniform float u_float0, u_float1;
uniform int u_int0, u_pass;
uniform bool u_bool0;
in vec2 v_texCoord;
layout(location = 0) out vec4 fragColor0;
"""


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))


def drawn(body, *images, size=None, **values):
    """The outputs of a shader with this main()."""
    mode = (
        {"size_mode": "from_input"}
        if size is None
        else {"size_mode": "custom", "width": size[0], "height": size[1]}
    )
    inputs = {f"image{index}": image for index, image in enumerate(images)}
    return GLSLShader.execute(HEAD + body, mode, inputs, **values)


def pictures(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@renders
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_first_shader_gives_its_picture(channels):
    image = pictures(2, 5, 7, channels)
    out = GLSLShader.execute(DEFAULT_FRAGMENT_SHADER, {"size_mode": "from_input"}, {"image0": image})
    assert out[0].shape == (2, 5, 7, 4)
    assert torch.allclose(out[0][..., :channels], image, atol=1e-6)
    assert channels == 4 or (out[0][..., 3] == 1).all()
    assert all(out[index].sum() == 0 for index in (1, 2, 3))
    assert len(out.ui["images"]) == 2 and len(out.ui["input_images"]) == 2


@renders
def test_values_and_curves_arrive():
    body = """void main() {
        float curve = texture(u_curve0, vec2(0.5, 0.5)).r;
        fragColor0 = vec4(u_float1, float(u_int0) / 10.0, u_bool0 ? curve : 0.0, u_resolution.x / 100.0);
    }"""
    curve = CurveInput.from_raw({"points": [[0, 0.25], [1, 0.25]], "interpolation": "linear"})
    out = drawn(
        body, pictures(1, 2, 2, 3), size=(30, 4),
        floats={"u_float0": 9.0, "u_float1": -2.5}, ints={"u_int0": 3}, bools={"u_bool0": True},
        curves={"u_curve0": curve},
    )[0]  # fmt: skip
    assert out.shape == (1, 4, 30, 4)
    assert out[0, 1, 1].tolist() == pytest.approx([-2.5, 0.3, 0.25, 0.3])


@renders
def test_the_second_picture_is_another_texture_and_stretches_over_a_batch():
    first, second = pictures(2, 4, 4, 3), torch.full((1, 2, 2, 3), 0.25)
    out = drawn(
        "void main() { fragColor0 = texture(u_image0, v_texCoord) + texture(u_image1, v_texCoord); }",
        first,
        second,
    )
    assert torch.allclose(out[0][..., :3], first + 0.25, atol=1e-6)


@renders
def test_the_origin_is_below_at_the_left():
    out = drawn("void main() { fragColor0 = vec4(gl_FragCoord.xy, v_texCoord); }", pictures(1, 3, 4, 3))[0]
    assert out[0, 2, 0, :2].tolist() == [0.5, 0.5] and out[0, 0, 3, :2].tolist() == [3.5, 2.5]
    assert out[0, 2, 0, 2:].tolist() == pytest.approx([1 / 8, 1 / 6])


@renders
@pytest.mark.parametrize("passes", [1, 2, 5])
def test_each_pass_begins_with_what_the_last_one_drew(passes):
    body = f"""
    #pragma passes {passes}
    void main() {{ fragColor0 = texture(u_image0, v_texCoord) * 2.0 + float(u_pass); }}"""
    expected = torch.full((1, 3, 3, 3), 0.5)
    for number in range(passes):
        expected = expected * 2 + number
    out = drawn(body, torch.full((1, 3, 3, 3), 0.5))[0]
    assert torch.allclose(out[..., :3], expected)


@renders
def test_several_pictures_are_written():
    body = """
    layout(location = 1) out vec4 fragColor1;
    layout(location = 2) out vec4 fragColor2;
    void main() { fragColor0 = vec4(0.1); fragColor1 = vec4(0.2); fragColor2 = vec4(0.3); }"""
    out = drawn(body, pictures(1, 2, 2, 3))
    assert [out[index].mean().item() for index in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.0])


@renders
def test_what_the_driver_refuses_is_said_in_its_words():
    with pytest.raises(gles.ShaderError, match="(?s)cannot be compiled.*nonsense"):
        drawn("void main() { fragColor0 = nonsense; }", pictures(1, 2, 2, 3))
    # and the next one is drawn
    assert drawn("void main() { fragColor0 = vec4(1.0); }", pictures(1, 2, 2, 3))[0].mean() == 1


@renders
def test_threads_take_turns():
    found = []

    def draw(value):
        out = drawn(f"void main() {{ fragColor0 = vec4({value}.0); }}", pictures(1, 8, 8, 3))
        found.append((value, out[0].mean().item()))

    threads = [threading.Thread(target=draw, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(value, float(value)) for value in range(6)]


def test_a_machine_without_a_driver_says_so(monkeypatch):
    def nothing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", nothing)
    with pytest.raises(gles.NoOpenGL, match="(?s)there is no libEGL.*Install the driver"):
        gles.Context()


def test_a_shader_needs_a_picture():
    with pytest.raises(ValueError, match="Link one to image0"):
        GLSLShader.execute(DEFAULT_FRAGMENT_SHADER, {"size_mode": "from_input"}, {})


@pytest.mark.parametrize(("source", "outputs", "passes"), [
    ("", 1, 1), ("fragColor0 fragColor2", 3, 1), ("fragColor9", 4, 1), ("#pragma  passes 7\n", 1, 7),
    ("#pragma passes 0", 1, 1),
])  # fmt: skip
def test_what_a_shader_says_of_itself(source, outputs, passes):
    assert (outputs_of(source), passes_of(source)) == (outputs, passes)


@pytest.mark.parametrize("before", [
    "#version 300 es\n", "#version 300 es\n\n// float;\n/* int\n main */ #extension GL_X : enable\n", "",
])  # fmt: skip
def test_full_precision_comes_before_the_code_and_moves_no_line(before):
    precise = _precise(before + "precision mediump int;\nvoid main() {}")
    assert precise.startswith(before + "precision highp sampler2D;")
    assert precise.count("\n") == before.count("\n") + 1
    assert precise.endswith("; precision mediump int;\nvoid main() {}")
