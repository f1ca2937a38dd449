"""Nodes that change a model's attention, activations, weights, positions or prompts."""

import pytest
import torch

import comfy.sd
import comfy.token_patches
from comfy import tokenizer_files
from comfy_extras import (
    nodes_attention_multiply,
    nodes_cond,
    nodes_hypertile,
    nodes_model_downscale,
    nodes_rope,
    nodes_tomesd,
)
from tests.comfy import tiny_flux, tiny_sd1
from tests.comfy.toy_model import latents
from tests.comfy_extras.test_guidance_nodes import evaluate, of_flux, patched, words


@pytest.fixture(scope="module")
def loaded():
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(), output_vae=False)


@pytest.fixture(scope="module")
def tiny_model(loaded):
    return loaded[0]


def of_unet():
    return {"positive": words(1), "negative": words(2), "x": latents(5, rows=8, columns=8)}


def recorded(model, **arguments):
    """The queries, keys and values of each self-attention, the first of them."""
    seen = []

    def look(q, k, v, extra):
        seen.append([t.clone() for t in (q, k, v)])
        return q, k, v

    watched = model.clone()
    watched.set_model_attn1_patch(look)
    evaluate(watched, **arguments)
    return seen


# --- HyperTile ---


def test_tiles_are_cut_and_joined():
    picture = torch.arange(4 * 6).reshape(1, 4, 6, 1)
    tiles = comfy.token_patches.cut_into_tiles(picture.flatten(1, 2), 4, 2, 3)
    assert tiles.shape == (6, 4, 1)
    assert tiles[1].flatten().tolist() == picture[0, :2, 2:4].flatten().tolist()
    assert tiles[5].flatten().tolist() == picture[0, 2:, 4:].flatten().tolist()
    assert torch.equal(comfy.token_patches.join_tiles(tiles, 4, 6, 2, 3), picture.flatten(1, 2))


@pytest.mark.parametrize(
    ("side", "least", "counts"), [(64, 32, {2}), (96, 32, {3}), (20, 32, {1}), (8, 4, {2})]
)
def test_a_side_is_cut_into_equal_tiles_that_are_large_enough(side, least, counts):
    assert {comfy.token_patches.tiles_along(side, least, 1) for _ in range(8)} == counts
    assert {comfy.token_patches.tiles_along(side, least, 2) for _ in range(8)} == counts


def test_tile_sizes_are_drawn_by_lot():
    assert {comfy.token_patches.tiles_along(64, 8, 4) for _ in range(60)} == {8, 4, 2}


@pytest.mark.parametrize("max_depth", [0, 1])
def test_tiled_self_attention_takes_queries_by_tile_and_keys_by_strip(tiny_model, max_depth):
    """8x8 latents in tiles of 4x4, in the first level; this UNet's middle has 4x4 tokens."""
    model = patched(nodes_hypertile.HyperTile, tiny_model, 32, 1, max_depth, False)
    found = evaluate(model, **of_unet())[0]
    assert not torch.allclose(found, evaluate(tiny_model, **of_unet())[0], atol=1e-3)

    def by_hand(q, k, v, extra):
        if q.shape[1] != 64:
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)
        out = torch.empty_like(q).unflatten(1, (8, 8))
        for number, (top, left) in enumerate(((0, 0), (0, 4), (4, 0), (4, 4))):
            tile = q.unflatten(1, (8, 8))[:, top : top + 4, left : left + 4].flatten(1, 2)
            strip = slice(16 * number, 16 * (number + 1))
            attended = _attention(tile, k[:, strip], v[:, strip], extra["n_heads"])
            out[:, top : top + 4, left : left + 4] = attended.unflatten(1, (4, 4))
        return out.flatten(1, 2)

    expected = tiny_model.clone()
    for block in (("input", 1), ("output", 2), ("output", 3)):
        expected.set_model_attn1_replace(by_hand, *block)
    torch.testing.assert_close(found, evaluate(expected, **of_unet())[0], atol=1e-4, rtol=1e-4)


def _attention(q, k, v, heads):
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return (torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v).transpose(1, 2).flatten(2)


def test_pictures_no_larger_than_a_tile_are_left_alone(tiny_model):
    model = patched(nodes_hypertile.HyperTile, tiny_model, 256, 2, 0, False)
    assert torch.equal(evaluate(model, **of_unet())[0], evaluate(tiny_model, **of_unet())[0])


# --- token merging ---


def test_alike_tokens_are_merged_into_their_mean_and_parted_again():
    torch.manual_seed(0)
    x = torch.randn(2, 6 * 5, 16)
    matching = comfy.token_patches.Matching(x, 6, 5, 2, 9)
    merged = matching.merge(x)
    assert merged.shape == (2, 21, 16) and len(matching.chosen) == 3 * 2
    back = matching.unmerge(merged)
    similarity = torch.nn.functional.cosine_similarity(x[:, :, None], x[:, None], dim=-1)
    for sample in range(2):
        best = similarity[sample][matching.others][:, matching.chosen].max(dim=1)
        pairs = best.values.argsort(descending=True)[:9]  # the others most like one of the chosen
        groups = {int(chosen): [int(chosen)] for chosen in matching.chosen}
        for other in pairs:
            groups[int(matching.chosen[best.indices[other]])].append(int(matching.others[other]))
        expected = x[sample].clone()
        for group in groups.values():
            expected[group] = x[sample][group].mean(dim=0)
        torch.testing.assert_close(back[sample], expected)


def test_one_token_of_each_square_is_chosen_by_lot():
    torch.manual_seed(0)
    drawn = [comfy.token_patches._draw_chosen(5, 7, 2, "cpu") for _ in range(40)]
    for others, chosen in drawn:
        squares = {(int(token) // 7 // 2, int(token) % 7 // 2) for token in chosen}
        assert squares == {(row, column) for row in range(2) for column in range(3)} and len(chosen) == 6
        assert sorted([*others.tolist(), *chosen.tolist()]) == list(range(35))
    assert len({int(token) for _, chosen in drawn for token in chosen}) == 4 * 6


def test_queries_of_the_first_level_are_merged_and_without_a_ratio_none(tiny_model):
    model = patched(nodes_tomesd.TomePatchModel, tiny_model, 0.5)
    sizes = {(q.shape[1], k.shape[1], v.shape[1]) for q, k, v in recorded(model, **of_unet())}
    assert sizes == {(32, 64, 64), (16, 16, 16)}
    plain = evaluate(tiny_model, **of_unet())[0]
    assert not torch.allclose(evaluate(model, **of_unet())[0], plain, atol=1e-4)
    idle = patched(nodes_tomesd.TomePatchModel, tiny_model, 0.0)
    assert torch.equal(evaluate(idle, **of_unet())[0], plain)


# --- deep shrink ---


def shrinking(model, block=1, factor=2.0, start=0.0, end=1.0, after_skip=True):
    values = (block, factor, start, end, after_skip, "bilinear", "nearest-exact")
    return patched(nodes_model_downscale.PatchModelAddDownscale, model, *values)


@pytest.mark.parametrize("after_skip", [True, False])
def test_the_depth_of_the_unet_sees_a_smaller_picture(tiny_model, after_skip):
    model = shrinking(tiny_model, after_skip=after_skip)
    found = evaluate(model, **of_unet())[0]
    assert [q.shape[1] for q, *_ in recorded(model, **of_unet())][:2] == [64, 4]
    sizes = []

    def watch(h, skip, _options):
        sizes.append((h.shape[-1], skip.shape[-1]))
        return h, skip

    watched = model.clone()
    watched.set_model_output_block_patch(watch)
    evaluate(watched, **of_unet())
    assert sizes[0][0] == 2 and all(h == skip for h, skip in sizes)
    by_hand = tiny_model.clone()

    def half(h, options):
        is_place = options["block"] == ("input", 1)
        return torch.nn.functional.interpolate(h, scale_factor=0.5, mode="bilinear") if is_place else h

    def double(h, skip, _options):
        return torch.nn.functional.interpolate(h, skip.shape[-2:], mode="nearest-exact"), skip

    (by_hand.set_model_input_block_patch_after_skip if after_skip else by_hand.set_model_input_block_patch)(
        half
    )
    by_hand.set_model_output_block_patch(double)
    torch.testing.assert_close(found, evaluate(by_hand, **of_unet())[0], atol=1e-5, rtol=1e-5)


def test_the_picture_is_smaller_between_two_noise_levels_alone(tiny_model):
    plain = evaluate(tiny_model, **of_unet())[0]
    for start, end in ((0.0, 0.1), (0.9, 1.0)):  # sigma 1.3 is between them
        found = evaluate(shrinking(tiny_model, start=start, end=end), **of_unet())[0]
        assert torch.equal(found, plain)


# --- weights ---


@pytest.mark.parametrize(
    ("node", "kind"),
    [(nodes_attention_multiply.UNetSelfAttentionMultiply, "attn1"),
     (nodes_attention_multiply.UNetCrossAttentionMultiply, "attn2")],
)  # fmt: skip
def test_matrices_of_one_kind_of_attention_are_multiplied(tiny_model, node, kind):
    factors = {"to_q": 2.0, "to_k": 0.5, "to_v": 3.0, "to_out.0": 0.25}
    model = patched(node, tiny_model, *factors.values())
    before = {key: tensor.clone() for key, tensor in tiny_model.model.state_dict().items()}
    model.patch_model()
    after = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}
    model.unpatch_model()
    changed = 0
    for key, tensor in after.items():
        layer = key.rpartition(".")[0]
        factor = next((f for name, f in factors.items() if layer.endswith(f"{kind}.{name}")), 1.0)
        torch.testing.assert_close(tensor, before[key] * factor)
        changed += factor != 1.0
    assert changed == 4 * 5  # three transformers and the middle: four weights and a bias each
    assert all(torch.equal(tensor, before[key]) for key, tensor in tiny_model.model.state_dict().items())


def test_what_attention_gives_is_multiplied_and_time_only_in_video_models(tiny_model):
    node = nodes_attention_multiply.UNetTemporalAttentionMultiply
    model = patched(node, tiny_model, 0.0, 7.0, 1.0, 7.0)
    by_hand = patched(nodes_attention_multiply.UNetSelfAttentionMultiply, tiny_model, 1.0, 1.0, 1.0, 0.0)
    results = []
    for one in (model, by_hand):
        one.patch_model()
        results.append(evaluate(one, **of_unet())[0])
        one.unpatch_model()
    assert torch.equal(*results)
    assert not torch.allclose(results[0], evaluate(tiny_model, **of_unet())[0], atol=1e-3)


def test_a_text_encoders_attention_is_multiplied(loaded):
    clip = loaded[1]
    plain = clip.encode("a cat")
    same = patched(nodes_attention_multiply.CLIPAttentionMultiply, clip, 1.0, 1.0, 1.0, 1.0)
    assert torch.equal(same.encode("a cat"), plain)
    traded = patched(nodes_attention_multiply.CLIPAttentionMultiply, clip, 2.0, 0.5, 4.0, 1.0)
    back = patched(nodes_attention_multiply.CLIPAttentionMultiply, traded, 1.0, 1.0, 0.25, 1.0)
    torch.testing.assert_close(back.encode("a cat"), plain, atol=1e-4, rtol=1e-4)
    silent = patched(nodes_attention_multiply.CLIPAttentionMultiply, clip, 1.0, 1.0, 1.0, 0.0)
    assert not torch.allclose(silent.encode("a cat"), plain, atol=1e-2)
    assert torch.equal(clip.encode("a cat"), plain)


# --- positions and prompts ---


def test_positions_of_a_transformers_tokens_are_scaled_and_moved():
    without = {"output_vae": False, "output_clip": False}
    model = comfy.sd.load_state_dict_guess_config(tiny_flux.transformer(), **without)[0]
    scaled = patched(nodes_rope.ScaleROPE, model, 2.0, 3.0, 0.5, -1.0, 1.0, 0.0)
    found = evaluate(scaled, **of_flux())[0]
    seen = []

    def look(tokens):
        seen.append(tokens["img_ids"])
        return tokens

    watched = scaled.clone()
    watched.set_model_post_input_patch(look)
    assert torch.equal(evaluate(watched, **of_flux())[0], found)
    assert seen[0][0, 0].tolist() == [0.0, -1.0, 3.0] and seen[0][0, -1].tolist() == [0.0, 0.0, 9.0]
    assert not torch.allclose(found, evaluate(model, **of_flux())[0], atol=1e-4)
    same = patched(nodes_rope.ScaleROPE, model, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0)
    assert torch.equal(evaluate(same, **of_flux())[0], evaluate(model, **of_flux())[0])


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "tokenizer.json"
    tiny_flux.write_tokenizer(path)
    tokenizer_files.find_with(lambda name: str(path))
    yield
    tokenizer_files.find_with(None)


def test_t5s_prompts_are_as_long_as_the_node_says(vocabulary):
    clip, t5 = tiny_flux.clip_weights(tiny_flux.clip_l()), tiny_flux.t5_weights(tiny_flux.t5())
    loaded = comfy.sd.load_text_encoder_state_dicts([clip, t5], clip_type=comfy.sd.CLIPType.FLUX)
    length = len(loaded.tokenize("a red cat")["t5xxl"][0])
    assert length == 256
    changed = patched(nodes_cond.T5TokenizerOptions, loaded, 3, 12)
    assert len(changed.tokenize("a red cat")["t5xxl"][0]) == 12
    padded = patched(nodes_cond.T5TokenizerOptions, loaded, 3, 0)
    plain = patched(nodes_cond.T5TokenizerOptions, loaded, 0, 0)
    counts = [len(one.tokenize("a red cat")["t5xxl"][0]) for one in (padded, plain)]
    assert counts[0] == counts[1] + 3 and len(loaded.tokenize("a red cat")["t5xxl"][0]) == 256


def test_controlnets_get_a_prompt_of_their_own(loaded):
    model, clip = loaded[:2]
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))
    ((tokens, extras),) = patched(nodes_cond.CLIPTextEncodeControlnet, clip, conditioning, "a dog")
    dog, pooled = clip.encode_from_tokens(clip.tokenize("a dog"), return_pooled=True)
    assert torch.equal(tokens, conditioning[0][0]) and torch.equal(extras["cross_attn_controlnet"], dog)
    assert torch.equal(extras["pooled_output_controlnet"], pooled)
    conds = model.model.extra_conds(noise=latents(1), device="cpu", cross_attn=tokens, **extras)
    assert torch.equal(conds["crossattn_controlnet"].cond, dog)
