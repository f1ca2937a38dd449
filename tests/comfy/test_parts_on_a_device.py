"""Parts of the library on a device of its own, beside the same parts on the CPU."""

import functools

import numpy as np
import pytest
import torch

import comfy.k_diffusion.sampling
import comfy.latent_formats
import comfy.lora
import comfy.merged_sampling
import comfy.sample
import comfy.samplers
import comfy.sd
import latent_preview
from comfy import sampler_names
from comfy.cli_args import LatentPreviewMethod, args
from tests.comfy import test_lora, tiny_flux, tiny_sd1
from tests.comfy.test_taesd import author_files, tiny_autoencoder
from tests.comfy.toy_model import latents, prompt, toy_model
from tests.fakes.accelerator import KINDS, accelerated
from tests.fakes.accounting_device import counting


@pytest.fixture(params=KINDS)
def device(request):
    with accelerated(request.param) as device:
        yield device


def assert_same(found, expected, tolerance=2e-5):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    off = (found.cpu().double() - expected.double()).abs().max()
    assert off <= tolerance * max(1.0, float(expected.double().abs().max())), off


# --- samplers -----------------------------------------------------------------------------------------


def sampled(model, sampler, scheduler="karras", seed=4, steps=4, **options):
    latent = latents(9)
    noise = comfy.sample.prepare_noise(latent, seed)
    return comfy.sample.sample(
        model, noise, steps, 3.0, sampler, scheduler, prompt(1), prompt(2), latent, denoise=0.9, seed=seed,
        disable_pbar=True, **options,
    )  # fmt: skip


def drawn_by_the_cpu(x, seed=None):
    """Noise that is the same for every device."""
    generator = torch.Generator().manual_seed(77)
    return lambda sigma, sigma_next: torch.randn(x.shape, generator=generator).to(x)


# One of each way to handle levels and noise; all of them with `make test-slow`.
FIRST = [
    "euler",
    "dpm_adaptive",
    "dpmpp_sde",
    "dpmpp_2m_sde_gpu",
    "lms",
    "deis",
    "uni_pc",
    "sa_solver",
    "er_sde",
]


@pytest.mark.parametrize(
    "sampler", [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow)
                for name in sampler_names.SAMPLER_NAMES],
)  # fmt: skip
def test_a_sampler_walks_as_on_the_cpu(sampler, device, monkeypatch):
    sampling = comfy.k_diffusion.sampling
    on_the_cpu = functools.partial(_path_of_the_cpu, sampling.BrownianTreeNoiseSampler)
    monkeypatch.setattr(sampling, "BrownianTreeNoiseSampler", on_the_cpu)
    monkeypatch.setattr(sampling, "default_noise_sampler", drawn_by_the_cpu)
    assert_same(sampled(toy_model(device), sampler), sampled(toy_model(), sampler))


def _path_of_the_cpu(kind, *given, cpu=False, **options):
    return kind(*given, cpu=True, **options)


@pytest.mark.parametrize(
    "sampler", ["euler_ancestral", "lcm", pytest.param("dpmpp_sde_gpu", marks=pytest.mark.slow)]
)
def test_a_sampler_that_draws_on_the_device_follows_the_seed(sampler, device):
    first, again, other = (sampled(toy_model(device), sampler, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and torch.isfinite(first).all() and first.std() > 0.01
    assert not torch.allclose(first, other)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", sampler_names.SCHEDULER_NAMES)
def test_a_scheduler_walks_as_on_the_cpu(scheduler, device):
    found, expected = (sampled(model, "dpmpp_2m", scheduler) for model in (toy_model(device), toy_model()))
    assert_same(found, expected)


@pytest.mark.parametrize("device_of_latents", ["cpu", "device"])
def test_masks_and_latents_may_be_anywhere(device, device_of_latents):
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., :20] = 1
    expected = sampled(toy_model(), "euler", noise_mask=mask)
    there = mask.to(device if device_of_latents == "device" else "cpu")
    assert_same(sampled(toy_model(device), "euler", noise_mask=there), expected)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun"])
def test_more_steps_copy_nothing_more_to_the_device(sampler):
    """Prompts, masks and levels come to the device once for a run; only the result goes back."""
    with accelerated() as acct:
        moved = []
        for steps in (2, 9):
            with counting() as counted:
                sampled(toy_model(acct), sampler, steps=steps, noise_mask=torch.ones(1, 1, 16, 24))
            moved.append((counted.to_device.copies, counted.to_host.bytes))
    assert moved[0] == moved[1] and moved[0][1] == latents(9).nbytes


def test_requests_of_one_batch_are_sampled_as_on_the_cpu(device):
    def together(model):
        requests = []
        for seed, cfg in ((1, 3.0), (2, 7.0)):
            latent, mask = latents(seed)[:1], torch.full((1, 1, 16, 24), 0.5)
            noise = comfy.sample.prepare_noise(latent, seed)
            requests.append(
                comfy.merged_sampling.Request(noise, latent, prompt(seed), prompt(9), cfg, seed, mask)
            )
        return comfy.merged_sampling.sample(
            model, requests, steps=3, sampler_name="dpmpp_2m", scheduler="normal", disable_pbar=True
        )

    for found, expected in zip(together(toy_model(device)), together(toy_model()), strict=True):
        assert_same(found, expected)


# --- patches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "layer"), test_lora.KINDS)
@pytest.mark.parametrize("with_magnitudes", [False, True])
def test_a_lora_of_every_kind_changes_weights_on_the_device(make, layer, with_magnitudes, device):
    tensors, rank, _ = make()
    shape = (32, 32, 3, 3) if layer == test_lora.CONV else (32, 32)
    weight = torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)
    lora = {f"x{ending}": tensor for ending, tensor in tensors.items()}
    if rank is not None:
        lora["x.alpha"] = torch.tensor(1.5)
    if with_magnitudes:
        lora["x.dora_scale"] = torch.linspace(1, 2, 32).reshape(-1, *[1] * (weight.ndim - 1))
    (patch,) = comfy.lora.load_lora(lora, {"x": "x.weight"}).values()
    changed = [
        comfy.lora.calculate_weight([(0.7, patch, 0.9, None, None)], weight.clone().to(where), "x.weight")
        for where in (device, "cpu")
    ]
    assert_same(*changed)


def test_patches_of_whole_weights_change_weights_on_the_device(device):
    weight, other = torch.linspace(-1, 1, 12).reshape(3, 4), torch.ones(3, 4)
    patches = [
        (1.0, ("set", (other * 2,)), 1.0, None, None), (0.5, ("diff", (other,)), 1.0, None, None),
        (0.5, ("diff", (torch.ones(4, 5), {"pad_weight": True})), 1.0, None, None),
        (1.0, ("diff", (torch.ones(1, 5),)), 1.0, (0, 1, 1), lambda change: change * 2),
        (0.3, [(other, lambda tensor, inplace: tensor + 1), (1.0, ("diff", (other,)), 1.0, None, None)], 1.0,
         (1, 0, 4), None),
    ]  # fmt: skip
    found = [comfy.lora.calculate_weight(patches[:4], weight.clone().to(w), "k") for w in (device, "cpu")]
    assert_same(*found)
    found = [
        comfy.lora.calculate_weight([(0.3, patches[4][1], 1.0, None, None)], weight.clone().to(w), "k")
        for w in (device, "cpu")
    ]
    assert_same(*found)


# --- previews -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SD15", "SDXL", "Flux"])
def test_a_latent_on_the_device_has_the_same_preview(name, device, monkeypatch):
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    latent_format = getattr(comfy.latent_formats, name)()
    x0 = torch.randn(2, latent_format.latent_channels, 6, 5, generator=torch.Generator().manual_seed(1))
    pictures = [
        np.asarray(latent_preview.get_previewer(where, latent_format).decode_latent_to_preview(x0.to(where)))
        for where in (device, torch.device("cpu"))
    ]
    assert np.array_equal(*pictures)


def test_a_latent_on_the_device_has_the_same_preview_by_the_tiny_decoder(device, tmp_path):
    _, decoder = author_files(tiny_autoencoder(), tmp_path)
    latent = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(2))
    pictures = []
    for where in (device, torch.device("cpu")):
        tiny = latent_preview._load_tiny_decoder(str(decoder), 0, where)
        preview = latent_preview.TAESDPreviewerImpl(tiny).decode_latent_to_preview(latent.to(where))
        pictures.append(np.asarray(preview).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


# --- precision ----------------------------------------------------------------------------------------


def flux_prediction(**load):
    """The network's answer for fixed inputs, computed on the device of the model, as fp32 on the CPU."""
    model = comfy.sd.load_diffusion_model_state_dict(load.pop("weights"), model_options=load)
    comfy.model_management.load_models_gpu([model])
    return model, _denoised(model, (1, 16, 8, 6), tiny_flux.CONTEXT, y=tiny_flux.POOLED, guidance=3.5)


def _denoised(model, shape, context, y=None, guidance=None):
    generator = torch.Generator().manual_seed(5)
    x, text = (torch.randn(size, generator=generator) for size in (shape, (1, 7, context)))
    more = {} if y is None else {"y": torch.randn(1, y, generator=generator)}
    more |= {} if guidance is None else {"guidance": torch.tensor([guidance])}
    device = model.load_device
    with torch.inference_mode():
        return model.model.apply_model(
            x.to(device), torch.tensor([0.7]).to(device), c_crossattn=text, **more
        ).cpu()


def relative(found, expected):
    """How far off: the root mean square of the difference over that of what is expected."""
    assert torch.isfinite(found).all()
    return float((found - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt())


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_flux_computes_in_bfloat16_where_the_device_is_fast_in_it(stored):
    weights = {key: tensor.to(stored) for key, tensor in tiny_flux.transformer().items()}
    _, expected = flux_prediction(weights={key: tensor.float() for key, tensor in weights.items()})
    with accelerated(half=torch.bfloat16) as device:
        model, found = flux_prediction(weights=weights)
        kept = {weight.dtype for weight in model.model.diffusion_model.parameters()}
        assert {weight.device for weight in model.model.diffusion_model.parameters()} == {device}
    assert kept == {torch.bfloat16 if stored.itemsize > 1 else stored}
    assert model.model.get_dtype_inference() is torch.bfloat16
    assert 1e-5 < relative(found, expected) < 0.02


def test_scaled_fp8_weights_are_scaled_on_the_device():
    stored, meant = tiny_flux.quantise(tiny_flux.transformer(), "model.diffusion_model.scaled_fp8")
    _, expected = flux_prediction(weights=meant)
    with accelerated() as device:
        model, found = flux_prediction(weights=stored)
        assert {weight.device for weight in model.model.diffusion_model.parameters()} == {device}
    assert_same(found, expected)


@pytest.fixture(scope="module")
def sd1_weights():
    return tiny_sd1.checkpoint()


def sd1_prediction(weights, **options):
    unet = {key: tensor for key, tensor in weights.items() if "diffusion_model" in key}
    model = comfy.sd.load_state_dict_guess_config(unet, **options)[0]
    comfy.model_management.load_models_gpu([model])
    return model, _denoised(model, (1, 4, 8, 8), 64)


@pytest.mark.parametrize(
    ("half", "dtype"),
    [
        (None, torch.float16), (torch.float16, torch.float16), (torch.bfloat16, torch.float16),
        (torch.float16, torch.float8_e4m3fn),
    ],
)  # fmt: skip
def test_sd1_in_half_precision_is_near_the_full_one(half, dtype, sd1_weights):
    """Weights kept in `dtype`; arithmetic in `half` where the device is fast in it, else in fp32."""
    _, expected = sd1_prediction(sd1_weights)
    with accelerated(half=half):
        model, found = sd1_prediction(sd1_weights, model_options={"dtype": dtype})
    assert model.model.get_dtype() is dtype
    assert model.model.get_dtype_inference() is (half or torch.float32)
    assert relative(found, expected) < (0.1 if dtype.itemsize == 1 else 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_picture_in_half_precision_is_near_the_full_one(half, sd1_weights):
    def picture():
        model, clip, vae, _ = comfy.sd.load_state_dict_guess_config(dict(sd1_weights))
        sides = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a red cat", "rain")]
        empty = torch.zeros(1, 4, 8, 8)
        noise = comfy.sample.prepare_noise(empty, 3)
        latent = comfy.sample.sample(
            model, noise, 3, 2.0, "euler", "normal", *sides, empty, seed=3, disable_pbar=True
        )
        return latent.cpu(), vae.encode(vae.decode(latent * 0.1)).cpu(), vae.vae_dtype

    with torch.inference_mode():
        expected = picture()
        with accelerated(mode="gpu_only", half=half):
            found = picture()
    assert expected[2] is torch.float32
    assert found[2] is (torch.bfloat16 if half is torch.bfloat16 else torch.float32)
    assert relative(found[0], expected[0]) < 0.1
    assert relative(found[1], expected[1]) < 0.2
