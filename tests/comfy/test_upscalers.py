"""Upscale models: networks against the formulas of their papers, layouts of files, tiles, memory, cancelling.
"""

import re

import pytest
import torch
from torch.nn import functional

import comfy.interruption
import comfy.model_management
import comfy.progress_bar
from comfy import upscalers
from comfy.errors import ModelFileError, UnknownArchitecture, UnreadableModelFile
from comfy.upscalers import compact, rrdbnet


def small_rrdbnet(scale=4, unshuffle=1, channels=3, blocks=2, seed=0):
    torch.manual_seed(seed)
    doublings = (scale * unshuffle).bit_length() - 1
    shape = rrdbnet.RRDBShape(channels, 8, 4, blocks, doublings, unshuffle)
    net = rrdbnet.RRDBNet(shape).eval().requires_grad_(False)
    net.conv_last.bias.fill_(0.5)
    return net


def small_compact(scale=4, convolutions=3):
    torch.manual_seed(1)
    net = compact.CompactNet(3, 8, convolutions, scale).eval().requires_grad_(False)
    for layer in net.body[1::2]:
        layer.weight.uniform_(-0.3, 0.3)
    return net


def conv(x, weights, name):
    return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)


def lrelu(x):
    return torch.where(x > 0, x, 0.2 * x)


def reference_rrdbnet(x, weights, *, blocks, doublings, unshuffle):
    """ESRGAN, section 3.1, by its formula: every residual is scaled by 0.2."""
    if unshuffle > 1:  # channel c of the pixel (i, j) of each square becomes channel (c, i, j)
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // unshuffle, unshuffle, w // unshuffle, unshuffle)
        x = x.permute(0, 1, 3, 5, 2, 4).reshape(b, c * unshuffle**2, h // unshuffle, w // unshuffle)
    first = fea = conv(x, weights, "conv_first")
    for block in range(blocks):
        start = fea
        for dense in (1, 2, 3):
            name = f"body.{block}.rdb{dense}.conv"
            x1 = lrelu(conv(fea, weights, name + "1"))
            x2 = lrelu(conv(torch.cat((fea, x1), 1), weights, name + "2"))
            x3 = lrelu(conv(torch.cat((fea, x1, x2), 1), weights, name + "3"))
            x4 = lrelu(conv(torch.cat((fea, x1, x2, x3), 1), weights, name + "4"))
            fea = conv(torch.cat((fea, x1, x2, x3, x4), 1), weights, name + "5") * 0.2 + fea
        fea = fea * 0.2 + start
    fea = first + conv(fea, weights, "conv_body")
    for number in range(1, doublings + 1):
        fea = fea.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        fea = lrelu(conv(fea, weights, f"conv_up{number}"))
    return conv(lrelu(conv(fea, weights, "conv_hr")), weights, "conv_last")


def first_layout(weights, doublings, blocks=2):
    """BasicSR's names under those of the first ESRGAN files."""
    last = {"conv_hr": f"model.{2 + 3 * doublings}", "conv_last": f"model.{4 + 3 * doublings}"}
    names = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}", **last}
    names |= {f"conv_up{n + 1}": f"model.{3 + 3 * n}" for n in range(doublings)}

    def renamed(key):
        layer, _, kind = key.rpartition(".")
        found = re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)", layer)
        name = f"model.1.sub.{found[1]}.RDB{found[2]}.conv{found[3]}.0" if found else names[layer]
        return f"{name}.{kind}"

    return {renamed(key): tensor for key, tensor in weights.items()}


def repository_layout(weights):
    names = {"conv_body": "trunk_conv", "conv_hr": "HRconv", "conv_up": "upconv", "body.": "RRDB_trunk.",
             "rdb": "RDB"}  # fmt: skip

    def renamed(key):
        for new, old in names.items():
            key = key.replace(new, old)
        return key

    return {renamed(key): tensor for key, tensor in weights.items()}


def loaded(tmp_path, content, name="model.pth"):
    torch.save(content, tmp_path / name)
    return upscalers.load_upscale_model(tmp_path / name)


@pytest.mark.parametrize(("scale", "unshuffle"), [(1, 1), (2, 1), (4, 1), (8, 1), (2, 2), (1, 4)])
def test_an_rrdbnet_of_each_layout_gives_the_picture_of_the_formula(tmp_path, scale, unshuffle):
    net = small_rrdbnet(scale, unshuffle)
    weights, doublings = net.state_dict(), net.shape.doublings
    picture = torch.rand(2, 3, 8, 12)
    expected = reference_rrdbnet(picture, weights, blocks=2, doublings=doublings, unshuffle=unshuffle)
    assert expected.shape == (2, 3, 8 * scale, 12 * scale)
    layouts = {
        "params_ema": {"params": {}, "params_ema": weights},
        "params": {"params": weights},
        "plain": weights,
        "parallel": {f"module.{key}": tensor for key, tensor in weights.items()},
        "first": first_layout(weights, doublings),
        "repository": repository_layout(weights),
    }
    for layout, content in layouts.items():
        model = loaded(tmp_path, content, f"{layout}.pth")
        assert (model.scale, model.input_channels, model.output_channels) == (scale, 3, 3)
        torch.testing.assert_close(model.model(picture), expected, rtol=1e-5, atol=1e-6)


def test_a_picture_that_does_not_fill_the_squares_is_mirrored_to_a_multiple_of_four():
    net, picture = small_rrdbnet(2, 2), torch.rand(1, 3, 9, 14)
    assert net(picture).shape == (1, 3, 18, 28)
    padded = functional.pad(picture, (0, 2, 0, 3), mode="reflect")
    torch.testing.assert_close(net(picture), net(padded)[:, :, :18, :28])
    assert net(picture[..., :1, :1]).shape == (1, 3, 2, 2)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_compact_net_gives_the_picture_of_the_formula(tmp_path, scale):
    net = small_compact(scale)
    weights, picture = net.state_dict(), torch.rand(1, 3, 5, 7)
    x = picture
    for layer in (0, 2):
        x = conv(x, weights, f"body.{layer}")
        x = torch.where(x > 0, x, x * weights[f"body.{layer + 1}.weight"][:, None, None])
    x = conv(x, weights, "body.4").reshape(1, 3, scale, scale, 5, 7).permute(0, 1, 4, 2, 5, 3)
    x = x.reshape(1, 3, 5 * scale, 7 * scale)
    expected = x + picture.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    model = loaded(tmp_path, {"params": weights})
    torch.testing.assert_close(model.model(picture), expected, rtol=1e-5, atol=1e-6)
    assert model.scale == scale and "compact" in model.architecture


def test_half_precision_files_compute_in_full_precision(tmp_path):
    model = loaded(tmp_path, {key: tensor.half() for key, tensor in small_compact().state_dict().items()})
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}


# --- what is no upscale model ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "guess"),
    [
        ({"layers.0.residual_group.blocks.0.norm1.weight": 1}, "looks like SwinIR"),
        ({"conv_first.weight": 1, "conv_last.weight": 1, "up.weight": 1}, "nearest to ESRGAN and RealESRGAN"),
        ({"a": 1, "b": 1}, "resembles none of them"),
    ],
)
def test_another_architecture_is_refused_with_what_is_known_and_what_is_near(tmp_path, weights, guess):
    content = {key: torch.zeros(value) for key, value in weights.items()}
    with pytest.raises(UnknownArchitecture, match=guess) as raised:
        loaded(tmp_path, content)
    assert all(architecture.name in str(raised.value) for architecture in upscalers.ARCHITECTURES)
    assert "model.pth" in str(raised.value) and f"holds {len(weights)} tensors" in str(raised.value)


def test_esrgan_plus_is_named_and_a_missing_weight_too(tmp_path):
    weights = small_rrdbnet().state_dict()
    plus = first_layout(weights, 2) | {"model.1.sub.0.RDB1.conv1x1.weight": torch.zeros(4, 8, 1, 1)}
    with pytest.raises(UnknownArchitecture, match=r"looks like ESRGAN\+"):
        loaded(tmp_path, plus)
    del weights["body.1.rdb2.conv3.bias"]
    with pytest.raises(ModelFileError, match=r"RRDBNet.*lacks weights \(1\): body.1.rdb2.conv3.bias"):
        loaded(tmp_path, weights)


def test_code_in_a_file_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "proof"), "w"))

    with pytest.raises(UnreadableModelFile, match="opened safely"):
        loaded(tmp_path, {"params": Payload()})
    assert not (tmp_path / "proof").exists()


# --- pictures -------------------------------------------------------------------------------------


def small_model(scale=2, **more):
    return upscalers.UpscaleModel(small_rrdbnet(scale, **more), "test")


def test_tiles_give_the_picture_of_the_whole():
    model = small_model(2, blocks=1)
    picture = torch.rand(1, 140, 150, 3)
    whole = model(picture.movedim(-1, 1)).movedim(1, -1)
    tiled = upscalers.upscale(model, picture, tiles=(128,), overlap=32)
    assert tiled.shape == (1, 280, 300, 3) and tiled.dtype == torch.float32
    difference = (tiled - whole).abs()
    assert difference.max() < 2.5 / 255 and difference.mean() < 1e-4  # where a tile ends
    assert torch.equal(upscalers.upscale(model, picture), whole)  # fits into one tile
    assert whole.std() > 0.01 and 0 <= tiled.min() and tiled.max() <= 1


def test_an_alpha_channel_is_kept_and_other_channels_are_refused():
    model, picture = small_model(2), torch.rand(2, 6, 8, 4)
    enlarged = upscalers.upscale(model, picture)
    assert torch.equal(enlarged[..., :3], upscalers.upscale(model, picture[..., :3]))
    alpha = functional.interpolate(picture[..., 3:].movedim(-1, 1), scale_factor=2, mode="bicubic")
    torch.testing.assert_close(enlarged[..., 3], alpha[:, 0].clamp(0, 1))
    with pytest.raises(ValueError, match="takes pictures with 3 channels, these have 1"):
        upscalers.upscale(model, picture[..., :1])


def test_less_memory_means_smaller_tiles_and_none_an_error(monkeypatch, caplog):
    model, most = small_model(1, blocks=1), {"side": 20}
    forward, sides = model.model.forward, []

    def limited(x):
        sides.append(max(x.shape[-2:]))
        if sides[-1] > most["side"]:
            raise comfy.model_management.OOM_EXCEPTION("out of memory")
        return forward(x)

    monkeypatch.setattr(model.model, "forward", limited)
    picture = torch.rand(1, 40, 24, 3)
    tiled = upscalers.upscale(model, picture, tiles=(64, 32, 16), overlap=8)
    assert tiled.shape == picture.shape and sides[:2] == [40, 32] and max(sides[2:]) == 16
    assert caplog.text.count("Not enough memory to upscale") == 2
    most["side"] = 0
    with pytest.raises(comfy.model_management.OOM_EXCEPTION, match="even in tiles of 16 pixels"):
        upscalers.upscale(model, picture, tiles=(32, 16))


def test_other_errors_are_raised_as_they_are(monkeypatch):
    model = small_model(1)
    monkeypatch.setattr(model.model, "forward", lambda x: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match"):
        upscalers.upscale(model, torch.rand(1, 4, 4, 3))


def test_each_tile_is_reported_and_a_cancel_stops_before_the_next(monkeypatch):
    model, seen = small_model(1, blocks=1), []

    def hook(value, total, preview, node_id=None):
        seen.append((value, total))
        if len(seen) == 3 and total == 12:
            comfy.interruption.interrupt_current_processing()

    monkeypatch.setattr(comfy.progress_bar, "PROGRESS_BAR_HOOK", hook)
    upscalers.upscale(model, torch.rand(1, 16, 28, 3), tiles=(16,), overlap=4)
    assert seen == [(1, 2), (2, 2)]
    seen.clear()
    with pytest.raises(comfy.interruption.InterruptProcessingException):
        upscalers.upscale(model, torch.rand(2, 28, 40, 3), tiles=(16,), overlap=4)
    assert seen == [(1, 12), (2, 12), (3, 12)]


def test_a_caller_may_move_it():
    model = small_model()
    assert model.to(model.patcher.load_device) is model.eval() is model.cpu()
    assert model.patcher.model_size() > 0 and model.memory_required(512) > model.memory_required(256)
