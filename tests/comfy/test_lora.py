"""LoRA files of every layout: which weight they change, by how much, and that the base stays as it was.

The expected changes are written out here with NumPy, from the papers' formulas.
"""

import hashlib
import logging

import numpy as np
import pytest
import safetensors.torch
import torch

import comfy.lora
import comfy.lora_file
import comfy.model_management
import comfy.sd
import comfy.supported_models
from comfy import lora_names
from comfy.errors import LoraMismatch, UnreadableModelFile
from comfy.lora_convert import convert_lora
from comfy.weight_adapter import RowsAdapter, adapter_maps, adapters
from tests.comfy import tiny_sd1

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
QUERY_IN_CHECKPOINTS = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "text_model.encoder.layers.1.mlp.fc1"
RANK = 3


@pytest.fixture(scope="module")
def loaded():
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint())


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def pair(layer, up=".lora_up.weight", down=".lora_down.weight", out=32, inside=32, rank=RANK):
    """Tensors of a plain LoRA of one layer."""
    return {layer + up: random(out, rank), layer + down: random(rank, inside)}


def hashes(module):
    """Of every weight while no patcher is loaded."""
    comfy.model_management.unload_all_models()
    return {key: hashlib.sha256(t.numpy().tobytes()).hexdigest() for key, t in module.state_dict().items()}


def patched(patcher, key):
    """The weight as it is while this patcher is loaded."""
    comfy.model_management.load_models_gpu([patcher])
    return patcher.model.state_dict()[key].clone()


def change_of(loaded, lora, key="diffusion_model." + QUERY + ".weight", strength=1.0):
    """What a LoRA adds to one weight of the model, as float64."""
    model = loaded[0]
    before = patched(model, key)
    after, _ = comfy.sd.load_lora_for_models(model, None, lora, strength, 0)
    return (patched(after, key).double() - before.double()).numpy()


# --- names ---


@pytest.mark.parametrize(
    "layer",
    [
        "lora_unet_" + QUERY.replace(".", "_"),
        "lora_unet_" + QUERY_IN_CHECKPOINTS.replace(".", "_"),
        "lycoris_" + QUERY.replace(".", "_"),
        "diffusion_model." + QUERY_IN_CHECKPOINTS,
        "model.diffusion_model." + QUERY_IN_CHECKPOINTS,
        "unet." + QUERY,
        "base_model.model." + QUERY,
        "base_model.model.unet." + QUERY,
        QUERY,
    ],
)
def test_a_layer_of_the_unet_is_known_by_the_names_of_all_trainers(loaded, layer):
    names = comfy.lora.model_lora_keys_unet(loaded[0].model)
    patches = comfy.lora.load_lora(pair(layer), names)
    assert list(patches) == ["diffusion_model." + QUERY + ".weight"]


@pytest.mark.parametrize(
    ("up", "down"),
    [
        (".lora_up.weight", ".lora_down.weight"),
        (".lora_B.weight", ".lora_A.weight"),
        (".lora_B.default.weight", ".lora_A.default.weight"),
        (".lora.up.weight", ".lora.down.weight"),
        (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
        (".lora_B", ".lora_A"),
    ],
)
def test_the_two_matrices_are_known_by_the_names_of_all_trainers(loaded, up, down):
    lora = pair("unet." + QUERY, up, down)
    expected = lora["unet." + QUERY + up].numpy() @ lora["unet." + QUERY + down].numpy()
    np.testing.assert_allclose(change_of(loaded, lora), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q", "attn1.to_q"),
        ("mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out", "attn2.to_out.0"),
    ],
)
def test_the_attention_processors_of_old_diffusers_are_known(loaded, name, weight):
    names = comfy.lora.model_lora_keys_unet(loaded[0].model)
    patches = comfy.lora.load_lora(pair(name, "_lora.up.weight", "_lora.down.weight"), names)
    place = f"diffusion_model.mid_block.attentions.0.transformer_blocks.0.{weight}.weight"
    assert list(patches) == [place]


@pytest.mark.parametrize(
    "layer",
    [
        "lora_te_" + TEXT.replace(".", "_"),
        "lora_te1_" + TEXT.replace(".", "_"),
        "text_encoder." + TEXT,
        "text_encoder." + TEXT.removeprefix("text_model."),
        "base_model.model.text_encoder." + TEXT,
        "text_encoders.clip_l.transformer." + TEXT,
        TEXT,
    ],
)
def test_a_layer_of_the_text_encoder_is_known_by_the_names_of_all_trainers(loaded, layer):
    names = comfy.lora.model_lora_keys_clip(loaded[1].cond_stage_model, {"other": "kept"})
    assert names["other"] == "kept"
    assert list(comfy.lora.load_lora(pair(layer), names)) == [f"clip_l.transformer.{TEXT}.weight"]


def test_text_encoders_are_counted_as_trainers_count_them():
    layer = "transformer.encoder.block.0.layer.0.SelfAttention.q.weight"
    projection = "clip_g.transformer.text_projection.weight"
    first = "clip_l.transformer.a.out_proj.weight"
    names = lora_names.of_text_encoders([f"t5xxl.{layer}", projection, first])
    assert names["lora_te1_a_out_proj"] == names["text_encoder.a.to_out"] == first
    assert names["lora_te2_text_projection"] == names["text_encoder_2.text_projection"] == projection
    assert names["lora_te3_encoder_block_0_layer_0_SelfAttention_q"] == f"t5xxl.{layer}"
    assert "lora_te_text_projection" not in names and "text_projection" not in names
    of_flux = lora_names.of_text_encoders([f"t5xxl.{layer}", first])
    t5 = "encoder_block_0_layer_0_SelfAttention_q"
    assert of_flux[f"lora_te2_{t5}"] == of_flux[f"lora_te3_{t5}"] == f"t5xxl.{layer}"


def test_a_network_or_an_encoder_can_bring_names_of_its_own():
    class Network(torch.nn.Linear):
        def lora_names(self):
            return {"mine": "weight", "fused": (lora_names.Rows("weight", 0, 2, 6),)}

    class Model(torch.nn.Module):
        model_config = comfy.supported_models.SD15

        def __init__(self, network):
            super().__init__()
            self.model_config = comfy.supported_models_base.BASE.__new__(comfy.supported_models_base.BASE)
            self.diffusion_model = network

    names = comfy.lora.model_lora_keys_unet(Model(Network(2, 2)))
    assert names["mine"] == names["diffusion_model.weight"] == "diffusion_model.weight"
    assert lora_names.keys_of(names["fused"]) == ["diffusion_model.weight"]
    assert comfy.lora.model_lora_keys_clip(Network(2, 2))["mine"] == "weight"
    plain = comfy.lora.model_lora_keys_unet(Model(torch.nn.Sequential(torch.nn.Linear(2, 2))))
    assert plain["transformer.0"] == plain["lora_unet_0"] == plain["diffusion_model.0"]
    part = lora_names.with_key(("a", (0, 1, 2)), str.upper)
    assert part == ("A", (0, 1, 2)) and lora_names.keys_of(part) == ["A"]


def test_layers_that_checkpoints_keep_together_are_known_by_both_names():
    in_files = {"blocks.0.qkv": ("layers.0.to_q", "layers.0.to_k"), "out": ("end",), "guidance": ("none",)}
    rows = {"layers.0.to_q.weight": 4, "layers.0.to_k.weight": 2, "layers.0.to_k.bias": 2, "end.weight": 3}
    names = lora_names.of_fused_layers(in_files, rows)
    assert names["transformer.layers.0.to_k"] == "layers.0.to_k.weight"
    fused = names["lora_unet_blocks_0_qkv"]
    assert fused == names["diffusion_model.blocks.0.qkv"] == (
        lora_names.Rows("layers.0.to_q.weight", 0, 4, 6), lora_names.Rows("layers.0.to_k.weight", 4, 2, 6)
    )  # fmt: skip
    assert names["diffusion_model.out"] == names["lora_transformer_end"] == "end.weight"
    assert "diffusion_model.guidance" not in names


def test_the_halves_of_a_layer_may_stand_the_other_way_round_in_the_file():
    halves = tuple(lora_names.Rows(("w.weight", (0, 2 - at, 2)), at, 2, 4) for at in (0, 2))
    assert lora_names.keys_of(lora_names.with_key(halves, str.upper)) == ["W.WEIGHT"] * 2
    lora = pair("end", out=4, inside=3)
    patches = comfy.lora.load_lora({**lora, "end.diff_b": torch.arange(4.0)}, {"end": halves})
    weight, bias = torch.zeros(4, 3), torch.zeros(4)
    for (key, offset), value in patches.items():
        target = weight if key == "w.weight" else bias
        comfy.lora.calculate_weight([(1.0, value, 1.0, offset, None)], target, key)
    up, down = lora.values()
    torch.testing.assert_close(weight, (up @ down).roll(2, 0))
    assert bias.tolist() == [2, 3, 0, 1]


# --- the arithmetic of each kind ---

LINEAR, CONVOLUTION = (32, 32), (32, 32, 3, 3)


def n(tensor):
    return tensor.double().numpy()


def plain_lora():
    up, down = random(32, RANK), random(RANK, 32)
    return {".lora_up.weight": up, ".lora_down.weight": down}, RANK, lambda w: n(up) @ n(down)


def conv_lora():
    up, down = random(32, RANK, 1, 1), random(RANK, 32, 3, 3)
    tensors = {".lora_up.weight": up, ".lora_down.weight": down}
    return tensors, RANK, lambda w: np.einsum("or,rikl->oikl", n(up)[:, :, 0, 0], n(down))


def locon():
    """A 1x1, a 3x3 and a 1x1 convolution in turn are one 3x3 convolution."""
    up, mid, down = random(32, RANK, 1, 1), random(RANK, RANK, 3, 3), random(RANK, 32, 1, 1)
    tensors = {".lora_up.weight": up, ".lora_mid.weight": mid, ".lora_down.weight": down}

    def expected(w):
        out = np.zeros((32, 32, 3, 3))
        for a in range(RANK):
            for b in range(RANK):
                outer = np.outer(n(up)[:, a, 0, 0], n(down)[b, :, 0, 0])
                out += outer[:, :, None, None] * n(mid)[a, b]
        return out

    return tensors, RANK, expected


def loha():
    a, b, c, d = random(32, RANK), random(RANK, 32), random(32, RANK + 0), random(RANK, 32) + 1
    tensors = {".hada_w1_a": a, ".hada_w1_b": b, ".hada_w2_a": c, ".hada_w2_b": d}
    return tensors, RANK, lambda w: (n(a) @ n(b)) * (n(c) @ n(d))


def loha_tucker():
    a, b, c, d = (random(RANK, 32) + shift for shift in (0, 1, 2, 3))
    t1, t2 = random(RANK, RANK, 3, 3), random(RANK, RANK, 3, 3) + 1
    names = (".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", ".hada_t1", ".hada_t2")

    def core(t, first, second):
        return np.einsum("rskl,ro,si->oikl", n(t), n(first), n(second))

    tensors = dict(zip(names, (a, b, c, d, t1, t2), strict=True))
    return tensors, RANK, lambda w: core(t1, a, b) * core(t2, c, d)


def lokr_whole():
    """Two whole factors are not scaled."""
    first, second = random(4, 4), random(8, 8)
    return {".lokr_w1": first, ".lokr_w2": second}, None, lambda w: np.kron(n(first), n(second))


def lokr_low_rank():
    w1a, w1b, w2a, w2b = random(4, RANK), random(RANK, 4), random(8, RANK), random(RANK, 8)
    tensors = {".lokr_w1_a": w1a, ".lokr_w1_b": w1b, ".lokr_w2_a": w2a, ".lokr_w2_b": w2b}
    return tensors, RANK, lambda w: np.kron(n(w1a) @ n(w1b), n(w2a) @ n(w2b))


def lokr_conv():
    first, w2a, w2b = random(4, 4), random(8, RANK), random(RANK, 8 * 9)
    tensors = {".lokr_w1": first, ".lokr_w2_a": w2a, ".lokr_w2_b": w2b.reshape(RANK, 8 * 9)}
    whole = n(w2a) @ n(w2b)  # (8, 8 * 9)
    return tensors, RANK, lambda w: np.kron(n(first), whole).reshape(w.shape)


def lokr_tucker():
    first, t2, w2a, w2b = random(4, 4), random(RANK, RANK, 3, 3), random(RANK, 8), random(RANK, 8)
    tensors = {".lokr_w1": first, ".lokr_t2": t2, ".lokr_w2_a": w2a, ".lokr_w2_b": w2b}
    second = np.einsum("rskl,ro,si->oikl", n(t2), n(w2a), n(w2b))
    return tensors, RANK, lambda w: np.stack(
        [np.stack([np.kron(n(first), second[:, :, k, m]) for m in range(3)], -1) for k in range(3)], -2
    )


def glora():
    a1, a2, b1, b2 = random(RANK, 32), random(32, RANK), random(RANK, 32) + 1, random(32, RANK) + 1
    tensors = {".a1.weight": a1, ".a2.weight": a2, ".b1.weight": b1, ".b2.weight": b2}
    return tensors, RANK, lambda w: w @ n(a2) @ n(a1) + n(b2) @ n(b1)


def glora_other_order():
    a1, a2, b1, b2 = random(32, RANK), random(RANK, 32), random(32, RANK) + 1, random(RANK, 32) + 1
    tensors = {".a1.weight": a1, ".a2.weight": a2, ".b1.weight": b1, ".b2.weight": b2}
    return tensors, RANK, lambda w: w @ n(a1) @ n(a2) + n(b1) @ n(b2)


def cayley(block):
    skew = block - block.T
    return (np.eye(len(block)) + skew) @ np.linalg.inv(np.eye(len(block)) - skew)


def oft():
    blocks, rescale = 0.1 * random(4, 8, 8), 1 + 0.1 * random(32, 1)

    def expected(w):
        turned = np.concatenate(
            [cayley(block).T @ w[8 * i : 8 * i + 8] for i, block in enumerate(n(blocks))]
        )
        return turned * n(rescale) - w

    return {".oft_blocks": blocks, ".rescale": rescale}, None, expected


def boft():
    """Stage 0 rotates rows 0 4 1 5 2 6 3 7, stage 1 rows 0 8 1 9 ..., each in groups of eight."""
    blocks = 0.1 * random(2, 4, 8, 8)

    def expected(w):
        for stage, apart in enumerate((4, 8)):
            order = [start + g * apart + k for start in range(0, 32, 2 * apart)
                     for k in range(apart) for g in range(2)]  # fmt: skip
            rows = w[order]
            rows = np.concatenate(
                [cayley(block) @ rows[8 * i : 8 * i + 8] for i, block in enumerate(n(blocks)[stage])]
            )
            w = rows[np.argsort(order)]
        return w

    return {".oft_blocks": blocks}, None, lambda w: expected(w) - w


def whole_difference():
    tensor = random(32, 32)
    return {".diff": tensor}, None, lambda w: n(tensor)


KINDS = [
    (plain_lora, QUERY), (conv_lora, CONV), (locon, CONV), (loha, QUERY), (loha_tucker, CONV),
    (lokr_whole, QUERY), (lokr_low_rank, QUERY), (lokr_conv, CONV), (lokr_tucker, CONV), (glora, QUERY),
    (glora_other_order, QUERY), (oft, QUERY), (boft, QUERY), (whole_difference, QUERY),
]  # fmt: skip


@pytest.mark.parametrize(("make", "layer"), KINDS)
@pytest.mark.parametrize("strength", [1.0, -0.7])
def test_the_change_is_what_the_paper_says(loaded, make, layer, strength):
    tensors, rank, difference = make()
    lora = {f"unet.{layer}{ending}": tensor for ending, tensor in tensors.items()}
    alpha = 1.0
    if rank is not None:
        alpha = 1.5
        lora[f"unet.{layer}.alpha"] = torch.tensor(alpha)
    key = f"diffusion_model.{layer}.weight"
    expected = strength * alpha / (rank or 1) * difference(n(patched(loaded[0], key)))
    got = change_of(loaded, lora, key, strength)
    np.testing.assert_allclose(got, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))
    assert comfy.lora_file.apply_lora(loaded[0], None, lora, 1, 0)[2].is_whole


def test_the_weight_is_exactly_w_plus_strength_times_alpha_over_rank_times_up_down(loaded):
    for layer, up, down in (
        (QUERY, random(32, RANK), random(RANK, 32)), (CONV, random(32, RANK, 1, 1), random(RANK, 32, 3, 3)),
    ):  # fmt: skip
        key = f"diffusion_model.{layer}.weight"
        lora = {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up,
                f"unet.{layer}.alpha": torch.tensor(2.0)}  # fmt: skip
        weight = patched(loaded[0], key)
        model, _ = comfy.sd.load_lora_for_models(loaded[0], None, lora, 0.8, 0)
        product = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        assert torch.equal(patched(model, key), weight + (0.8 * (2.0 / RANK)) * product)


def test_without_alpha_nothing_is_divided_and_a_constraint_bounds_a_rotation(loaded):
    lora = pair("unet." + QUERY)
    up, down = lora.values()
    np.testing.assert_allclose(change_of(loaded, lora), n(up) @ n(down), atol=2e-6)
    free = {"unet." + QUERY + ".oft_blocks": random(4, 8, 8)}
    bound = {**free, "unet." + QUERY + ".alpha": torch.tensor(1e-5)}
    moved = [np.linalg.norm(change_of(loaded, one)) for one in (free, bound)]
    assert moved[1] < 1e-3 * moved[0]


# --- DoRA ---


def magnitudes_by_row(merged):
    return np.linalg.norm(merged.reshape(len(merged), -1), axis=1)


@pytest.mark.parametrize(("make", "layer"), [(plain_lora, QUERY), (conv_lora, CONV), (loha, QUERY)])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_dora_gives_each_row_the_length_of_the_file(loaded, make, layer, strength):
    tensors, _, difference = make()
    key = f"diffusion_model.{layer}.weight"
    weight = n(patched(loaded[0], key))
    axes = (1,) * (weight.ndim - 1)
    wanted = random(32).abs() + 0.5
    lora = {f"unet.{layer}{ending}": tensor for ending, tensor in tensors.items()}
    lora[f"unet.{layer}.dora_scale"] = wanted.reshape(-1, *axes)
    merged = weight + difference(weight)
    full = merged * (n(wanted) / magnitudes_by_row(merged)).reshape(-1, *axes)
    got = change_of(loaded, lora, key, strength)
    np.testing.assert_allclose(got, strength * (full - weight), atol=1e-5)
    if strength == 1.0:
        np.testing.assert_allclose(magnitudes_by_row(weight + got), n(wanted), rtol=1e-5)


def test_dora_by_columns_and_in_the_form_of_peft(loaded):
    lora = pair("unet." + QUERY, ".lora_B.weight", ".lora_A.weight")
    up, down = lora.values()
    weight = n(patched(loaded[0], "diffusion_model." + QUERY + ".weight"))
    merged, wanted = weight + n(up) @ n(down), random(32).abs() + 0.5
    by_columns = {**lora, f"unet.{QUERY}.dora_scale": wanted.reshape(1, -1)}
    expected = merged * n(wanted) / np.linalg.norm(merged, axis=0, keepdims=True)
    np.testing.assert_allclose(change_of(loaded, by_columns), expected - weight, atol=1e-5)
    by_rows = {**lora, f"unet.{QUERY}.lora_magnitude_vector.weight": wanted}
    expected = merged * (n(wanted) / np.linalg.norm(merged, axis=1))[:, None]
    np.testing.assert_allclose(change_of(loaded, by_rows), expected - weight, atol=1e-5)
    of_conv = convert_lora({"a.lora_magnitude_vector": torch.ones(1, 5, 1, 1)})
    assert of_conv["a.dora_scale"].shape == (5, 1, 1, 1)


# --- patches that are no matrices of low rank ---


def test_biases_norms_and_whole_weights_are_patched(loaded):
    norm = "down_blocks.0.resnets.0.norm1"
    lora = {
        f"unet.{norm}.w_norm": torch.full((32,), 0.5), f"unet.{norm}.b_norm": torch.full((32,), 2.0),
        f"lora_unet_{CONV.replace('.', '_')}.diff_b": torch.full((32,), 3.0),
        f"diffusion_model.{QUERY_IN_CHECKPOINTS}.set_weight": torch.full((32, 32), 7.0),
        "diffusion_model.input_blocks.0.0.bias.diff": torch.full((32,), 4.0),
    }  # fmt: skip
    assert comfy.lora_file.apply_lora(loaded[0], None, lora, 1, 0)[2].is_whole
    changes = {f"{norm}.weight": 0.5, f"{norm}.bias": 2, f"{CONV}.bias": 3, "conv_in.bias": 4}
    for name, change in changes.items():
        got = change_of(loaded, lora, f"diffusion_model.{name}", strength=0.5)
        np.testing.assert_allclose(got, 0.5 * change, atol=1e-6)
    model, _ = comfy.sd.load_lora_for_models(loaded[0], None, lora, 0.5, 0)
    assert (patched(model, f"diffusion_model.{QUERY}.weight") == 7.0).all()


def test_a_lora_may_ask_for_a_larger_weight():
    adapter = next(kind for kind in adapters if kind.name == "lora").load(
        "a", {**pair("a", out=4, inside=6), "a.reshape_weight": torch.tensor([4, 6])}, None, None
    )
    assert adapter.fits((3, 5))
    got = comfy.lora.calculate_weight([(1.0, adapter, 1.0, None, None)], torch.ones(3, 5), "a")
    up, down = adapter.weights[:2]
    base = torch.zeros(4, 6)
    base[:3, :5] = 1
    torch.testing.assert_close(got, base + up @ down)


@pytest.mark.parametrize("with_magnitudes", [False, True])
def test_a_layer_that_is_one_in_the_file_and_three_in_the_model_is_taken_apart(with_magnitudes):
    names = {"qkv": tuple(lora_names.Rows(f"{part}.weight", 4 * i, 4, 12) for i, part in enumerate("qkv"))}
    lora = {**pair("qkv", out=12, inside=6), "qkv.diff_b": torch.arange(12.0)}
    if with_magnitudes:
        lora["qkv.dora_scale"] = random(12, 1).abs()
    patches = comfy.lora.load_lora(lora, names)
    weight = random(12, 6)
    whole = comfy.lora.load_lora(lora, {"qkv": "w.weight"})["w.weight"]
    expected = comfy.lora.calculate_weight([(0.5, whole, 1.0, None, None)], weight.clone(), "w")
    for i, part in enumerate("qkv"):
        rows = weight[4 * i : 4 * i + 4].clone()
        adapter = patches[f"{part}.weight"]
        assert isinstance(adapter, RowsAdapter) and adapter.fits(rows.shape) and not adapter.fits((5, 6))
        got = comfy.lora.calculate_weight([(0.5, adapter, 1.0, None, None)], rows, part)
        torch.testing.assert_close(got, expected[4 * i : 4 * i + 4])
        assert torch.equal(patches[f"{part}.bias"][1][0], torch.arange(12.0)[4 * i : 4 * i + 4])


# --- on models ---


def test_the_base_is_bit_for_bit_what_it_was_and_model_and_text_encoder_are_apart(loaded):
    model, clip = loaded[:2]
    text_key, key = f"clip_l.transformer.{TEXT}.weight", f"diffusion_model.{QUERY}.weight"
    before = hashes(model.model), hashes(clip.cond_stage_model)
    lora = {**pair("unet." + QUERY), **pair("text_encoder." + TEXT, out=128, inside=64)}
    with_both = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 0.5)
    only_model = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 0.0)
    only_clip = comfy.sd.load_lora_for_models(model, clip, lora, 0.0, 0.5)
    plain = patched(model, key), patched(clip.patcher, text_key)
    results = [(patched(m, key), patched(c.patcher, text_key)) for m, c in (with_both, only_model, only_clip)]
    changed = [tuple(not torch.equal(*sides) for sides in zip(r, plain, strict=True)) for r in results]
    assert changed == [(True, True), (True, False), (False, True)]
    assert (hashes(model.model), hashes(clip.cond_stage_model)) == before


def test_two_loras_add_up_in_their_order_and_both_are_undone(loaded):
    key = f"diffusion_model.{QUERY}.weight"
    before = hashes(loaded[0].model)
    first, second = pair("unet." + QUERY), pair("unet." + QUERY, rank=5)
    model, clip = comfy.sd.load_lora_for_models(loaded[0], None, first, 0.5, 0)
    assert clip is None
    model, _ = comfy.sd.load_lora_for_models(model, None, second, -2.0, 0)
    products = [up.double() @ down.double() for up, down in (first.values(), second.values())]
    expected = patched(loaded[0], key).double() + 0.5 * products[0] - 2.0 * products[1]
    torch.testing.assert_close(patched(model, key).double(), expected, atol=1e-5, rtol=1e-5)
    assert hashes(loaded[0].model) == before


def test_strength_nought_patches_nothing(loaded):
    model, clip = comfy.sd.load_lora_for_models(*loaded[:2], pair("unet." + QUERY), 0, 0)
    assert not model.patches and not clip.patcher.patches
    assert model.is_clone(loaded[0]) and model is not loaded[0]


# --- what does not fit ---


@pytest.fixture
def file(tmp_path):
    def write(tensors, metadata=None):
        path = str(tmp_path / "style.safetensors")
        safetensors.torch.save_file(tensors, path, metadata=metadata)
        return path

    return write


def test_a_part_that_fits_nothing_is_one_line_in_the_log(loaded, file, caplog):
    path = file({**pair("unet." + QUERY), **pair("unet.unheard.of"), **pair("lora_te_unheard_of")})
    with caplog.at_level(logging.WARNING):
        comfy.lora_file.load_lora_file(path, *loaded[:2], 1, 1)
    (record,) = caplog.records
    assert "LoRA 'style.safetensors': 2 of 6 keys name layers of the model, 1 weights" in record.message
    assert "4 of 6 keys belong to no layer" in record.message and "unet.unheard.of.lora" in record.message
    caplog.clear()
    with caplog.at_level(logging.WARNING):  # without a CLIP the keys for it are no surprise
        comfy.lora_file.load_lora_file(path, loaded[0], None, 1, 0)
    assert "2 of 6 keys belong to no layer" in caplog.text


def test_load_lora_itself_says_what_was_left_out_unless_it_is_told_not_to(caplog):
    lora = pair("nowhere")
    with caplog.at_level(logging.WARNING):
        assert comfy.lora.load_lora(lora, {}, log_missing=False) == {}
        assert not caplog.records
        comfy.lora.load_lora(lora, {})
        assert "2 of 2 keys belong to no layer of this model" in caplog.text
        comfy.sd.load_lora_for_models(None, None, lora, 1, 1)  # packs expect no error here
    assert "0 of 2 keys name layers" in caplog.records[-1].message


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        (pair("unet.unheard.of"), r"changes nothing of this model \(SD15\): 0 of 2 keys"),
        (pair("unet." + QUERY, out=64), rf"1 weights have another shape: diffusion_model.{QUERY}.weight"),
        (pair("lora_te_text_model_a"), "changes text encoders only"),
        ({"model.weight": torch.ones(2)}, "may be a whole model"),
        ({}, "is empty"),
    ],
)
def test_a_file_of_which_nothing_fits_is_an_error_that_says_why(loaded, file, lora, said):
    with pytest.raises(LoraMismatch, match=said) as caught:
        comfy.lora_file.load_lora_file(file(lora), loaded[0], None, 1, 0)
    assert "'style.safetensors'" in str(caught.value)


def test_the_error_names_the_family_that_the_depot_sees_in_the_file(loaded, file, monkeypatch):
    from comfy_depot import hooks, model_headers

    class Depot:
        base_model_of = staticmethod(lambda shapes, metadata: model_headers.family_of(metadata, shapes))

    monkeypatch.setattr(hooks, "_depot", None)
    path = file(pair("lora_unet_double_blocks_0_img_mod_lin", out=18432, inside=3072, rank=1))
    tensors = comfy.lora_file.read_lora(path)
    hooks.arm(Depot())
    try:
        assert comfy.lora_file._looks_like(tensors) == " The file looks like one for flux1."
    finally:
        hooks.disarm()
    assert comfy.lora_file._looks_like(tensors) == ""


def test_a_damaged_file_is_refused(loaded, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"no such thing")
    with pytest.raises(UnreadableModelFile):
        comfy.lora_file.load_lora_file(str(path), loaded[0], None, 1, 0)


def test_upstreams_names_of_adapters_are_there():
    import comfy.weight_adapter.base
    import comfy.weight_adapter.lora

    assert adapter_maps["LoRA"] is comfy.weight_adapter.lora.LoRAAdapter is adapters[0]
    assert all(issubclass(kind, comfy.weight_adapter.base.WeightAdapterBase) for kind in adapters)
    taken = set()
    adapter = adapters[0].load("a", {**pair("a"), "a.alpha": torch.tensor(1.0)}, 1.0, None, taken)
    assert taken == adapter.loaded_keys == {"a.lora_up.weight", "a.lora_down.weight"}
    assert [kind.load("b", pair("a"), None, None) for kind in adapters] == [None] * 6
