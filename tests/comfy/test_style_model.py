"""Style models beside layers written out by hand, and how their tokens are seen by the rest."""

import pytest
import torch
from safetensors.torch import save_file

import comfy.attention_bias
import comfy.clip_vision
import comfy.sd
from comfy.errors import ModelFileError, UnknownArchitecture, UnreadableModelFile
from comfy_extras.core_vision import StyleModelApply
from tests.comfy import tiny_flux
from tests.comfy.toy_model import prompt


def redux(width=24, text=8, seed=0):
    torch.manual_seed(seed)
    shapes = {"redux_up": (3 * text, width), "redux_down": (text, 3 * text)}
    made = {f"{name}.weight": torch.randn(shape) * shape[1] ** -0.5 for name, shape in shapes.items()}
    return made | {f"{name}.bias": 0.1 * torch.randn(shape[0]) for name, shape in shapes.items()}


def adapter(width=256, text=8, layers=2, tokens=3):
    torch.manual_seed(1)
    made = {"style_embedding": torch.randn(1, tokens, width), "proj": torch.randn(width, text) * width**-0.5}
    sizes = {
        "mlp.c_fc": (4 * width, width),
        "mlp.c_proj": (width, 4 * width),
        "attn.out_proj": (width, width),
    }
    for i in range(layers):
        layer = f"transformer_layes.{i}."
        for name, (rows, columns) in sizes.items():
            made[f"{layer}{name}.weight"] = torch.randn(rows, columns) * columns**-0.5
            made[f"{layer}{name}.bias"] = 0.1 * torch.randn(rows)
        made[f"{layer}attn.in_proj_weight"] = torch.randn(3 * width, width) * width**-0.5
        made[f"{layer}attn.in_proj_bias"] = 0.1 * torch.randn(3 * width)
    norms = [f"transformer_layes.{i}.{name}" for i in range(layers) for name in ("ln_1", "ln_2")]
    for name in (*norms, "ln_pre", "ln_post"):
        made[f"{name}.weight"] = 1 + 0.1 * torch.randn(width)
        made[f"{name}.bias"] = 0.1 * torch.randn(width)
    return made


def loaded(tmp_path, weights):
    path = tmp_path / "style.safetensors"
    save_file(weights, path)
    return comfy.sd.load_style_model(str(path))


def seen(width, batch=1, tokens=5):
    out = comfy.clip_vision.Output()
    out.last_hidden_state = torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(2))
    return out


def test_redux_is_two_layers_on_each_token(tmp_path):
    weights, picture = redux(), seen(24)
    inside = picture.last_hidden_state @ weights["redux_up.weight"].T + weights["redux_up.bias"]
    inside = inside * torch.sigmoid(inside)
    expected = inside @ weights["redux_down.weight"].T + weights["redux_down.bias"]
    torch.testing.assert_close(loaded(tmp_path, weights).get_cond(picture), expected)
    half = {key: tensor.half() for key, tensor in weights.items()}
    found = loaded(tmp_path, half).get_cond(picture)
    assert found.dtype is torch.float32 and torch.allclose(found, expected, atol=1e-2)


def test_the_adapter_is_a_transformer_over_the_pictures_tokens_and_its_own(tmp_path):
    weights, picture = adapter(), seen(256, batch=2)

    def norm(x, name):
        return torch.nn.functional.layer_norm(x, (256,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    own = weights["style_embedding"].expand(2, -1, -1)
    x = norm(torch.cat([picture.last_hidden_state, own], dim=1), "ln_pre")
    for i in range(2):
        layer = f"transformer_layes.{i}"
        fused = norm(x, f"{layer}.ln_1") @ weights[f"{layer}.attn.in_proj_weight"].T
        fused = fused + weights[f"{layer}.attn.in_proj_bias"]
        q, k, v = (t.unflatten(-1, (2, 128)).transpose(1, 2) for t in fused.chunk(3, dim=-1))
        weight = (q @ k.transpose(-1, -2) / 128**0.5).softmax(dim=-1)
        x = x + linear((weight @ v).transpose(1, 2).flatten(2), f"{layer}.attn.out_proj")
        inside = linear(norm(x, f"{layer}.ln_2"), f"{layer}.mlp.c_fc")
        x = x + linear(inside * torch.sigmoid(1.702 * inside), f"{layer}.mlp.c_proj")
    expected = norm(x[:, -3:], "ln_post") @ weights["proj"]
    torch.testing.assert_close(loaded(tmp_path, weights).get_cond(picture), expected, atol=1e-4, rtol=1e-4)


def apply(model, conditioning, picture, strength, kind):
    return StyleModelApply().apply_stylemodel(conditioning, model, picture, strength, kind)[0]


def test_tokens_of_all_pictures_stand_behind_the_text_and_are_multiplied(tmp_path):
    model, picture = loaded(tmp_path, redux()), seen(24, batch=2)
    ((tokens, extras),) = apply(model, prompt(1, count=7, other=5), picture, 0.5, "multiply")
    assert tokens.shape == (1, 7 + 10, 8) and extras == {"other": 5}
    assert torch.equal(tokens[:, :7], prompt(1, count=7)[0][0])
    torch.testing.assert_close(tokens[0, 7:], 0.5 * model.get_cond(picture).flatten(0, 1))


@pytest.mark.parametrize("strength", [0.4, 0.0])
def test_a_bias_weighs_how_much_text_and_picture_see_of_the_tokens(tmp_path, strength):
    """The new tokens themselves see everything."""
    model = loaded(tmp_path, redux())
    ((tokens, extras),) = apply(model, prompt(1, count=3), seen(24), strength, "attn_bias")
    mask = comfy.attention_bias.resized(extras["attention_mask"], extras["attention_mask_img_shape"], (2, 3))
    assert mask.shape == (1, 3 + 5 + 6, 14) and torch.isfinite(mask).all()
    weights = mask.float().exp()
    expected = torch.ones(14, 14)
    expected[:3, 3:8] = expected[8:, 3:8] = strength
    torch.testing.assert_close(weights[0], expected, atol=1e-3, rtol=0)
    (plain,) = apply(model, prompt(1, count=3), seen(24), 1.0, "attn_bias")
    assert "attention_mask" not in plain[1]


def test_a_second_picture_keeps_what_the_first_one_hid(tmp_path):
    model = loaded(tmp_path, redux())
    first = apply(model, prompt(1, count=3), seen(24), 0.5, "attn_bias")
    ((tokens, extras),) = apply(model, first, seen(24), 0.25, "attn_bias")
    weights = extras["attention_mask"].float().exp()[0]
    assert tokens.shape[1] == 3 + 5 + 5 and weights.shape == (14, 14)
    torch.testing.assert_close(weights[0], torch.tensor([1.0] * 3 + [0.5] * 5 + [0.25] * 5 + [1.0]),
                               atol=1e-3, rtol=0)  # fmt: skip
    assert torch.equal(weights[13], weights[0]) and (weights[10] == 1).all()
    booleans = prompt(1, count=3)
    booleans[0][1]["attention_mask"] = torch.tensor([[[True, True, False, True]] * 4])
    ((_, extras),) = apply(model, booleans, seen(24), 1.0, "multiply")
    assert extras["attention_mask"][0, 0].tolist() == [0, 0, -float("inf")] + [0] * 6


def test_a_mask_grows_with_the_picture_along_both_of_its_sides():
    mask = torch.randn(1, 2 + 6, 2 + 6)
    found = comfy.attention_bias.resized(mask, (2, 3), (4, 5))
    assert found.shape == (1, 22, 22) and torch.equal(found[:, :2, :2], mask[:, :2, :2])
    to_picture = torch.nn.functional.interpolate(mask[:, :2, 2:].reshape(1, 2, 2, 3), (4, 5), mode="bilinear")
    torch.testing.assert_close(found[:, :2, 2:], to_picture.flatten(2))
    back = torch.nn.functional.interpolate(mask[:, 2:, :2].mT.reshape(1, 2, 2, 3), (4, 5), mode="bilinear")
    torch.testing.assert_close(found[:, 2:, :2], back.flatten(2).mT)
    assert comfy.attention_bias.resized(mask, (2, 3), (2, 3)) is mask


def test_flux_sees_the_bias(tmp_path):
    """Tokens that are hidden change nothing: as if they were not there."""
    without = {"output_vae": False, "output_clip": False}
    model = comfy.sd.load_state_dict_guess_config(tiny_flux.transformer(), **without)[0].model
    style = loaded(tmp_path, redux(text=tiny_flux.CONTEXT))
    text = torch.randn(1, 6, tiny_flux.CONTEXT)
    noise = torch.randn(1, 16, 8, 6)

    def predicted(conditioning, **more):
        ((tokens, extras),) = conditioning
        conds = model.extra_conds(cross_attn=tokens, noise=noise, device="cpu", **extras, **more)
        values = {key: value.process_cond(batch_size=1).cond for key, value in conds.items()}
        with torch.no_grad():
            return model.apply_model(noise, torch.full((1,), 0.7), **values)

    plain = predicted([[text, {}]])
    hidden = predicted(apply(style, [[text, {}]], seen(24), 0.0, "attn_bias"))
    torch.testing.assert_close(hidden, plain, atol=2e-4, rtol=1e-4)
    shown = predicted(apply(style, [[text, {}]], seen(24), 1.0, "attn_bias"))
    assert not torch.allclose(shown, plain, atol=1e-2)
    references = {"reference_latents": [torch.randn(1, 16, 4, 4)]}
    hidden = predicted(apply(style, [[text, {}]], seen(24), 0.0, "attn_bias"), **references)
    assert not torch.allclose(hidden, plain, atol=1e-2)


def test_a_file_of_another_kind_is_named_with_what_to_choose(tmp_path):
    with pytest.raises(
        UnknownArchitecture, match="no style model. It looks like a CLIP vision model.*Choose a style"
    ):
        loaded(tmp_path, {"vision_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(3)})


@pytest.mark.parametrize(
    ("make", "key", "what"),
    [(redux, "redux_up.weight", "Redux"), (redux, "redux_down.bias", "Redux"), (adapter, "proj", "adapter"),
     (adapter, "transformer_layes.1.ln_2.bias", "adapter")],
)  # fmt: skip
def test_an_incomplete_file_says_which_weights_are_missing(tmp_path, make, key, what):
    weights = make()
    del weights[key]
    with pytest.raises(ModelFileError, match=rf"style.safetensors.*{what}.*lacks weights \(1\): {key}"):
        loaded(tmp_path, weights)


def test_a_truncated_file_is_said_to_be_one(tmp_path):
    loaded(tmp_path, redux())
    path = tmp_path / "style.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UnreadableModelFile, match="style.safetensors"):
        comfy.sd.load_style_model(str(path))


def test_a_picture_from_another_vision_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tokens of 24 numbers.*encoded as 32.*sigclip"):
        loaded(tmp_path, redux()).get_cond(seen(32))
