"""Language models as text encoders: like transformers' own, from files of any size and dtype."""

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import Qwen2Config, Qwen2Model, Qwen3Config, Qwen3Model

import comfy.sd
from comfy import tokenizer_files
from comfy.errors import ModelFileError
from comfy.families import llm_text
from tests.comfy.tiny_sd1 import randomise

SIZES = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}  # fmt: skip
REFERENCES = {
    "qwen3": (llm_text.QWEN3, lambda: Qwen3Model(Qwen3Config(**SIZES, head_dim=32))),
    # no norm of a head tells its size: 128 in every published one, so heads * 128 is the width of q
    "qwen2": (
        llm_text.QWEN25,
        lambda: Qwen2Model(Qwen2Config(**{**SIZES, "hidden_size": 256, "num_attention_heads": 2})),
    ),
}


@pytest.fixture(autouse=True)
def vocabulary(tmp_path):
    words = {chr(33 + i): i for i in range(94)}
    file = tmp_path / "tokenizer.json"
    Tokenizer(models.BPE({**words, " ": 94}, [])).save(str(file))
    tokenizer_files.find_with(lambda name: str(file))
    yield
    tokenizer_files.find_with(None)


def reference(name):
    torch.manual_seed(0)
    model = randomise(REFERENCES[name][1]()).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model


def weights_of(model, prefix="", dtype=torch.bfloat16):
    return {f"{prefix}model.{key}": tensor.to(dtype) for key, tensor in model.state_dict().items()}


def clip_of(weights, kind, prefix="", **options):
    options = {"name": "some_llm", "template": "<{}>", **options}
    target = llm_text.target(weights, prefix, kind, **options)
    return comfy.sd.CLIP(target, state_dict=[{k[len(prefix) :]: v for k, v in weights.items()}])


def numbers(clip, text):
    return [token for token, _ in clip.tokenize(text)["some_llm"][0]]


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize(("layer", "index"), [("last", None), ("hidden", -2), ("hidden", -1), ("hidden", 0)])
def test_states_are_those_of_transformers(name, layer, index):
    model, kind = reference(name), REFERENCES[name][0]
    clip = clip_of(weights_of(model), kind, layer=layer, layer_idx=index)
    tokens = torch.tensor([numbers(clip, "abc(d:2)")])
    with torch.no_grad():
        out = model(tokens, output_hidden_states=True)
    states = [*out.hidden_states[1:-1], out.last_hidden_state]  # transformers' last one is normalised
    expected = out.last_hidden_state if layer == "last" else states[index]
    cond, pooled = clip.encode_from_tokens(clip.tokenize("abc(d:2)"), return_pooled=True)
    assert pooled is None and cond.shape == expected.shape
    torch.testing.assert_close(cond, expected, rtol=0, atol=2e-5)


def test_the_template_is_around_the_prompt_and_parentheses_are_text():
    clip = clip_of(weights_of(reference("qwen3")), llm_text.QWEN3)
    tokenizer = clip.tokenizer.some_llm.tokenizer
    assert numbers(clip, "a (b:1.5)") == tokenizer("<a (b:1.5)>")["input_ids"]
    assert clip.tokenize("a", llama_template="{}!")["some_llm"] == [[(64, 1.0), (0, 1.0)]]
    assert numbers(clip, "{}") == tokenizer("<{}>")["input_ids"], "a prompt is no template"


def test_the_mask_goes_with_the_conditioning():
    clip = clip_of(weights_of(reference("qwen3")), llm_text.QWEN3)
    (_, values), = clip.encode_from_tokens_scheduled(clip.tokenize("abc"))
    assert values["attention_mask"].tolist() == [[1] * 5]


def test_weights_keep_the_dtype_of_the_file():
    model = reference("qwen3")
    kept = clip_of(weights_of(model, dtype=torch.bfloat16), llm_text.QWEN3).cond_stage_model
    assert {tensor.dtype for tensor in kept.state_dict().values()} == {torch.bfloat16}
    large = clip_of(weights_of(model, dtype=torch.float32), llm_text.QWEN3).cond_stage_model
    assert {tensor.dtype for tensor in large.state_dict().values()} == {torch.float16}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8_weights_are_computed_with_in_fp32(dtype):
    model = reference("qwen3")
    stored = weights_of(model, dtype=dtype)
    model.load_state_dict({key.removeprefix("model."): tensor.float() for key, tensor in stored.items()})
    clip = clip_of(stored, llm_text.QWEN3)
    with torch.no_grad():
        expected = model(torch.tensor([numbers(clip, "abc")])).last_hidden_state
    torch.testing.assert_close(clip.encode("abc"), expected, rtol=0, atol=2e-5)


def test_what_is_of_no_text_encoder_is_left_out():
    weights = weights_of(reference("qwen3"))
    weights["lm_head.weight"] = torch.zeros(300, 64)
    weights["model.visual.blocks.0.norm.weight"] = torch.zeros(3)
    assert clip_of(weights, llm_text.QWEN3).encode("a").shape == (1, 3, 64)


def test_a_missing_weight_is_named():
    weights = weights_of(reference("qwen3"))
    del weights["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(ModelFileError, match=r"text encoder \(Qwen3\).*lacks.*layers.1.mlp.up"):
        clip_of(weights, llm_text.QWEN3)


def test_a_saved_text_encoder_is_loaded_from_a_checkpoint():
    model, prefix = reference("qwen3"), "some_llm.transformer."
    clip = clip_of(weights_of(model), llm_text.QWEN3)
    saved = clip.get_sd()
    assert all(key.startswith(prefix + "model.") for key in saved)
    target = llm_text.target(saved, prefix, llm_text.QWEN3, name="some_llm", template="<{}>")
    again = comfy.sd.CLIP(target, state_dict=saved)
    assert torch.equal(again.encode("abc"), clip.encode("abc"))
