"""Resizing and tiling, each against a direct computation."""

import pytest
import torch
from PIL import Image

from comfy import image_scaling
from comfy.utils import common_upscale, get_tiled_scale_steps, tiled_scale, tiled_scale_multidim


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic"])
def test_torch_methods_are_torchs(method):
    x = torch.rand(2, 4, 6, 8)
    expected = torch.nn.functional.interpolate(x, size=(9, 5), mode=method)
    assert torch.equal(common_upscale(x, 5, 9, method, "disabled"), expected)


def test_center_crop_keeps_the_middle_and_the_new_aspect():
    x = torch.arange(8.0).expand(1, 1, 4, 8)
    assert common_upscale(x, 4, 4, "nearest-exact", "center")[0, 0, 0].tolist() == [2, 3, 4, 5]
    tall = x.transpose(-1, -2)
    assert common_upscale(tall, 4, 4, "nearest-exact", "center")[0, 0, :, 0].tolist() == [2, 3, 4, 5]


def test_video_is_resized_frame_by_frame():
    x = torch.rand(2, 3, 5, 4, 4)
    out = common_upscale(x, 8, 8, "bilinear", "disabled")
    assert out.shape == (2, 3, 5, 8, 8)
    torch.testing.assert_close(out[:, :, 2], common_upscale(x[:, :, 2], 8, 8, "bilinear", "disabled"))


@pytest.mark.parametrize("channels", [1, 3])
def test_lanczos_is_pillows(channels):
    pixels = torch.randint(0, 256, (1, channels, 6, 7))
    picture = pixels[0].movedim(0, -1).byte().numpy()
    expected = Image.fromarray(picture[..., 0] if channels == 1 else picture).resize((11, 9), Image.LANCZOS)
    out = common_upscale((pixels + 0.5) / 255.0 * (255 / 255.5), 11, 9, "lanczos", "disabled")
    got = (out[0].movedim(0, -1) * 255).round().byte().numpy()
    assert abs(got.squeeze().astype(int) - torch.tensor(list(expected.tobytes())).reshape(
        got.squeeze().shape).numpy()).max() <= 1  # fmt: skip


def test_bislerp_keeps_the_length_of_vectors_where_bilinear_shortens_them():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)  # (1,0) beside (0,1)
    out = image_scaling.bislerp(x, 4, 1)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(1, 1, 4))
    middle = torch.nn.functional.interpolate(x, size=(1, 4), mode="bilinear")
    assert middle.norm(dim=1).min() < 0.9


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_bislerp_leaves_constant_pictures_alone(value):
    out = image_scaling.bislerp(torch.full((1, 4, 3, 3), value), 7, 5)
    torch.testing.assert_close(out, torch.full((1, 4, 5, 7), value))


def test_bislerp_goes_straight_between_opposite_vectors_and_keeps_the_dtype():
    x = torch.tensor([[1.0, -1.0], [0.0, 0.0]]).reshape(1, 2, 1, 2)
    out = image_scaling.bislerp(x.half(), 4, 1)
    assert out.dtype is torch.float16
    expected = torch.nn.functional.interpolate(x, size=(1, 4), mode="bilinear")
    torch.testing.assert_close(out.float(), expected, atol=2e-3, rtol=0)


def test_tiles_of_a_pointwise_function_give_the_whole_and_the_counted_steps():
    x = torch.rand(2, 3, 40, 23)
    ticks = []
    progress = type("Bar", (), {"update": lambda self, value: ticks.append(value)})()
    out = tiled_scale(x, lambda tile: tile * 2, 16, 16, overlap=4, upscale_amount=1, pbar=progress)
    torch.testing.assert_close(out, x * 2)
    assert len(ticks) == 2 * get_tiled_scale_steps(23, 40, 16, 16, 4)


def test_tiles_scale_up_and_down():
    x = torch.rand(1, 3, 24, 24)
    up = tiled_scale(
        x, lambda t: t.repeat_interleave(4, 2).repeat_interleave(4, 3), 16, 16, 8, upscale_amount=4
    )
    torch.testing.assert_close(up, x.repeat_interleave(4, 2).repeat_interleave(4, 3))
    down = tiled_scale_multidim(
        x, lambda t: t[:, :, ::2, ::2], (16, 16), overlap=8, upscale_amount=2, downscale=True
    )
    torch.testing.assert_close(down, x[:, :, ::2, ::2])


def test_what_fits_into_one_tile_is_computed_once():
    calls = []

    def identity(tile):
        calls.append(tile.shape)
        return tile

    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(tiled_scale(x, identity, 64, 64, upscale_amount=1), x)
    assert calls == [x.shape]
