"""Attention functions equal the definition; what packs put in their place is used, by running models too."""

import pytest
import torch

import comfy.sd
from comfy.ldm.modules import attention
from comfy.ldm.modules.sub_quadratic_attention import efficient_dot_product_attention
from tests.comfy import tiny_flux, tiny_sd1

OWN = ["attention_basic", "attention_pytorch", "attention_split", "attention_sub_quad"]
HEADS, WIDTH = 4, 8


def defined(q, k, v, bias=0.0, scale=WIDTH**-0.5):
    """(B, heads, tokens, d), by the formula, in fp64."""
    q, k, v = (t.double() for t in (q, k, v))
    return (torch.softmax(q @ k.transpose(-1, -2) * scale + bias, dim=-1) @ v).float()


def by_head(*tensors):
    return [t.unflatten(-1, (-1, WIDTH)).transpose(1, 2) for t in tensors]


@pytest.fixture
def qkv():
    return (
        torch.randn(2, 9, HEADS * WIDTH),
        torch.randn(2, 13, HEADS * WIDTH),
        torch.randn(2, 13, HEADS * WIDTH),
    )


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("shape", [None, (9, 13), (2, 9, 13), (2, HEADS, 9, 13)])
def test_each_function_is_softmax_of_the_scores_times_the_values(name, shape, qkv):
    mask = None if shape is None else torch.randn(shape)
    bias = 0.0 if mask is None else mask
    if shape == (2, 9, 13):
        bias = mask.unsqueeze(1)
    expected = defined(*by_head(*qkv), bias)
    function = getattr(attention, name)
    torch.testing.assert_close(function(*qkv, HEADS, mask=mask), expected.transpose(1, 2).flatten(2))
    got = function(*by_head(*qkv), HEADS, mask=mask, skip_reshape=True, skip_output_reshape=True)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", OWN)
def test_a_scale_fewer_heads_of_keys_and_fp16_are_taken(name, qkv):
    function = getattr(attention, name)
    expected = defined(*by_head(*qkv), scale=0.5).transpose(1, 2).flatten(2)
    torch.testing.assert_close(function(*qkv, HEADS, scale=0.5), expected)
    q, k, v = qkv[0], qkv[1][..., : 2 * WIDTH], qkv[2][..., : 2 * WIDTH]
    few = [t if t.shape[1] == HEADS else t.repeat_interleave(2, dim=1) for t in by_head(q, k, v)]
    expected = defined(*few).transpose(1, 2).flatten(2)
    torch.testing.assert_close(function(q, k, v, HEADS, enable_gqa=True), expected)
    half = function(*(t.half() for t in qkv), HEADS, attn_precision=torch.float32)
    assert half.dtype == torch.float16
    torch.testing.assert_close(
        half.float(), defined(*by_head(*qkv)).transpose(1, 2).flatten(2), atol=5e-3, rtol=0
    )


def test_a_mask_of_truth_values_hides_keys(qkv):
    seen = torch.tensor([[True] * 5 + [False] * 8, [True] * 13])
    bias = torch.zeros(2, 1, 1, 13).masked_fill(~seen[:, None, None], -torch.inf)
    expected = defined(*by_head(*qkv), bias).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.attention_basic(*qkv, HEADS, mask=seen), expected)
    torch.testing.assert_close(attention.attention_sub_quad(*qkv, HEADS, mask=seen), expected)


def test_attention_in_small_chunks_is_the_same_with_gradients_too():
    q, k, v = (torch.randn(6, n, WIDTH, requires_grad=True) for n in (11, 7, 7))
    mask = torch.randn(6, 11, 7)
    mask[:, :, :3] = -torch.inf  # the whole first chunk of keys is hidden
    sizes = {"query_chunk_size": 4, "kv_chunk_size": 3}
    got = efficient_dot_product_attention(q, k.transpose(1, 2), v, mask=mask, use_checkpoint=True, **sizes)
    expected = torch.softmax(q @ k.transpose(1, 2) * WIDTH**-0.5 + mask, dim=-1) @ v
    torch.testing.assert_close(got, expected)
    for mine, theirs in zip(
        torch.autograd.grad(got.sum(), (q, v)), torch.autograd.grad(expected.sum(), (q, v))
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_less_memory_makes_more_parts_and_too_little_is_an_error(qkv, monkeypatch):
    expected = defined(*by_head(*qkv)).transpose(1, 2).flatten(2)
    monkeypatch.setattr(attention.model_management, "get_free_memory", lambda *_: 2000)
    torch.testing.assert_close(attention.attention_split(*qkv, HEADS), expected)
    torch.testing.assert_close(attention.attention_sub_quad(*qkv, HEADS), expected)
    monkeypatch.setattr(attention.model_management, "get_free_memory", lambda *_: 10)
    with pytest.raises(RuntimeError, match="Use a smaller picture"):
        attention.attention_split(*qkv, HEADS)


def test_functions_have_names_and_the_first_of_a_name_stays(caplog):
    assert attention.get_attention_function("basic") is attention.attention_basic
    assert attention.get_attention_function("optimized") is attention.optimized_attention
    assert attention.get_attention_function("nothing", None) is None
    with pytest.raises(KeyError, match="Known here: optimized, basic"):
        attention.get_attention_function("nothing")
    attention.register_attention_function("basic", print)
    assert attention.get_attention_function("basic") is attention.attention_basic and "stays" in caplog.text


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("attention_xformers", "xformers"),
        ("attention_sage", "sageattention"),
        ("attention3_sage", "sageattn3"),
        ("attention_flash", "flash_attn"),
    ],
)
def test_kernels_that_are_not_installed_are_named(name, package, qkv):
    if attention._is_installed(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ImportError, match=f"package {package}"):
        getattr(attention, name)(*qkv, HEADS)


def test_what_cannot_be_real_says_so(qkv):
    with pytest.raises(NotImplementedError, match="no 8-bit attention"):
        attention.attention_comfy_kitchen_int8(*qkv, HEADS)
    with pytest.raises(ValueError, match="both disabled and made self-attention"):
        attention.BasicTransformerBlock(
            32, 4, 8, disable_temporal_crossattention=True, switch_temporal_ca_to_sa=True
        )


def test_an_input_that_may_be_taken_is_taken_once(qkv):
    containers = [attention.AttentionTensorContainer(t) for t in qkv]
    expected = attention.attention_basic(*qkv, HEADS)
    torch.testing.assert_close(attention.attention_basic(*containers, HEADS), expected)
    with pytest.raises(RuntimeError, match="taken already"):
        containers[0].peek()


# --- what packs put in place ---


def sd1_model():
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint())[0].model.diffusion_model


def flux_model():
    return comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer()).model.diffusion_model


def run(model, options=None):
    generator = torch.Generator().manual_seed(1)
    is_flux = hasattr(model, "single_transformer_blocks")
    x = torch.randn(1, 16 if is_flux else 4, 8, 8, generator=generator)
    context = torch.randn(1, 5, tiny_flux.CONTEXT if is_flux else 64, generator=generator)
    with torch.no_grad():
        return model(x, torch.tensor([0.5]), context=context, transformer_options=options or {})


@pytest.fixture(scope="module", params=["sd1", "flux"])
def model(request):
    return sd1_model() if request.param == "sd1" else flux_model()


def test_a_replaced_attention_reaches_running_models_with_their_options(model, monkeypatch):
    plain, seen = run(model), []

    def doubled(q, k, v, heads, *args, transformer_options=None, **kwargs):
        seen.append(transformer_options["mark"])
        return attention.attention_pytorch(q, k, v, heads, *args, **kwargs) * 2

    monkeypatch.setattr(attention, "optimized_attention", doubled)
    changed = run(model, {"mark": 7})
    assert seen and set(seen) == {7} and not torch.allclose(changed, plain)
    monkeypatch.undo()
    torch.testing.assert_close(run(model), plain, atol=0, rtol=0)


def test_an_attention_of_equal_numbers_changes_nothing(model, monkeypatch):
    plain = run(model)
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_basic)
    torch.testing.assert_close(run(model), plain, atol=1e-5, rtol=1e-4)


def test_an_override_in_the_options_reaches_running_models(model):
    calls = []

    def override(function, *args, **kwargs):
        calls.append(function.__name__)
        inner = attention.optimized_attention(*args, **kwargs)  # must not come back here
        torch.testing.assert_close(inner, function(*args, **kwargs))
        return inner * 0

    plain = run(model)
    changed = run(model, {"optimized_attention_override": override})
    assert calls and set(calls) == {"attention_pytorch"} and not torch.allclose(changed, plain)


def test_an_attention_that_only_knows_joined_heads_fits_too(monkeypatch):
    model = flux_model()
    plain = run(model)

    def joined(q, k, v, heads, mask=None, skip_reshape=False, **kwargs):
        return attention.attention_pytorch(q, k, v, heads, mask, skip_reshape=skip_reshape)

    monkeypatch.setattr(attention, "optimized_attention", joined)
    torch.testing.assert_close(run(model), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("use_split_cross_attention", "split"),
        ("use_quad_cross_attention", "sub_quad"),
        ("use_sage_attention", "sage"),
        ("use_flash_attention", "flash"),
        ("use_pytorch_cross_attention", "pytorch"),
    ],
)
def test_the_options_of_the_program_choose_the_function(option, name, monkeypatch):
    monkeypatch.setattr(attention.args, option, True)
    assert attention._chosen() is getattr(attention, f"attention_{name}")
