"""Guidance, regions, batching and step ranges, on a model of two matrices."""

import pytest
import torch

import comfy.interruption
import comfy.model_management
import comfy.sample
import comfy.samplers
from tests.comfy.toy_model import latents, prompt, tokens, toy_model

EMPTY = torch.zeros(2, 4, 16, 24)


def run(model, latent=EMPTY, positive=None, negative=None, **options):
    """Four Euler steps, unless the options say otherwise."""
    chosen = {
        "sampler_name": options.pop("sampler", "euler"),
        "scheduler": options.pop("scheduler", "normal"),
    }
    chosen |= {
        "steps": options.pop("steps", 4),
        "cfg": 5.0,
        "seed": options.pop("seed", 42),
        "disable_pbar": True,
    }
    noise = comfy.sample.prepare_noise(latent, chosen["seed"], options.pop("inds", None))
    sides = {"positive": positive or prompt(1), "negative": negative or prompt(2)}
    return comfy.sample.sample(model, noise, latent_image=latent, **chosen, **sides, **options)


def predict(model, x, sigma, conds, cfg=1.0, **options):
    """One guided prediction, outside of a run."""
    model.pre_run()
    conds = {name: comfy.sampler_helpers.convert_cond(cond) for name, cond in conds.items()}
    conds = comfy.samplers.process_conds(model.model, x, conds, x.device)
    sigma = torch.full((x.shape[0],), sigma)
    sides = (conds.get("negative"), conds.get("positive"))
    return comfy.samplers.sampling_function(
        model.model, x, sigma, *sides, cfg, options or model.model_options
    )


def calls(model):
    return model.model.diffusion_model.calls


def test_both_sides_are_evaluated_in_one_batch_when_memory_allows():
    model = toy_model()
    predict(model, EMPTY, 1.0, {"positive": prompt(1), "negative": prompt(2)}, 5.0)
    assert [(call["batch"], call["cond_or_uncond"]) for call in calls(model)] == [(4, [1, 0])]


def test_sides_are_evaluated_one_after_the_other_when_memory_is_short(monkeypatch):
    model = toy_model()
    together = predict(model, EMPTY + 1, 1.0, {"positive": prompt(1), "negative": prompt(2)}, 5.0)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_: 0)
    alone = predict(model, EMPTY + 1, 1.0, {"positive": prompt(1), "negative": prompt(2)}, 5.0)
    assert [call["batch"] for call in calls(model)] == [4, 2, 2]
    assert torch.allclose(together, alone, atol=1e-6)


def test_a_batch_that_the_machine_can_never_hold_is_refused_before_linux_ends_the_server(monkeypatch):
    model = toy_model()
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda device=None: 4 << 30)
    assert run(model, latents(1)).isfinite().all()
    huge = torch.zeros(1, 1, 1, 1).expand(4096, 4, 64, 64)
    with pytest.raises(ValueError, match=r"4096 latents of 64 x 64 need about .* GB .* has 4\."):
        comfy.samplers.CFGGuider(model).sample(huge, huge, None, torch.ones(3))
    assert run(model, latents(1)).isfinite().all()


def test_texts_of_another_length_share_a_batch_by_repeating():
    model = toy_model()
    predict(model, EMPTY, 1.0, {"positive": prompt(1, 14), "negative": prompt(2, 7)}, 5.0)
    assert [call["batch"] for call in calls(model)] == [4]


def test_guidance_is_the_line_from_negative_to_positive():
    model = toy_model()
    x = latents(3)
    side = [predict(model, x, 1.0, {"positive": prompt(seed)}) for seed in (1, 2)]
    guided = predict(model, x, 1.0, {"positive": prompt(1), "negative": prompt(2)}, 3.0)
    assert torch.allclose(guided, side[1] + 3.0 * (side[0] - side[1]), atol=1e-5)


def test_at_scale_one_the_negative_side_is_not_evaluated():
    model = toy_model()
    predict(model, EMPTY, 1.0, {"positive": prompt(1), "negative": prompt(2)}, 1.0)
    both = {"positive": prompt(1), "negative": prompt(2)}
    predict(model, EMPTY, 1.0, both, 1.0, disable_cfg1_optimization=True, transformer_options={})
    assert [call["batch"] for call in calls(model)] == [2, 4]


def test_the_functions_of_a_pack_stand_where_they_should():
    model = toy_model()
    order = []

    def note(name, result):
        def function(args, *rest):
            order.append(name)
            return result(args)

        return function

    model.model_options |= {
        "sampler_calc_cond_batch_function": note("batch", lambda a: [a["input"] * 2, a["input"]]),
        "sampler_pre_cfg_function": [note("before", lambda a: a["conds_out"])],
        "sampler_cfg_function": note("guide", lambda a: a["cond"] + a["uncond"]),
        "sampler_post_cfg_function": [note("after", lambda a: a["denoised"] * 10)],
    }
    x = latents(3)
    out = predict(model, x, 1.0, {"positive": prompt(1), "negative": prompt(2)}, 5.0)
    assert order == ["batch", "before", "guide", "after"]
    # The guidance function works on x minus the predictions: -x and 0 here, so that x - (-x) = 2x comes out.
    assert torch.allclose(out, x * 2 * 10)


def test_a_wrapper_around_the_model_gets_what_it_needs():
    model = toy_model()
    seen = []

    def wrapper(apply_model, args):
        seen.append(sorted(args))
        return apply_model(args["input"], args["timestep"], **args["c"])

    plain = run(model, steps=2)
    model.set_model_unet_function_wrapper(wrapper)
    assert torch.equal(run(model, steps=2), plain)
    assert seen[0] == ["c", "cond_or_uncond", "input", "timestep"]


def test_an_area_changes_only_its_place():
    model = toy_model()
    x = latents(3)
    area = {"area": (8, 12, 8, 12), "strength": 2.0}
    whole = predict(model, x, 1.0, {"positive": prompt(1)})
    with_area = predict(model, x, 1.0, {"positive": [*prompt(1), [tokens(5), area]]})
    changed = (with_area - whole).abs().amax(dim=(0, 1)) > 1e-6
    assert changed[8:, 12:].all()
    assert not changed[:8].any()
    assert not changed[:, :12].any()


def test_an_area_fades_towards_the_inside_of_the_picture():
    model = toy_model()
    cond = {"model_conds": {}, "uuid": 0, "area": (16, 12, 0, 12)}
    ready = comfy.samplers.get_area_and_mult(cond, EMPTY, torch.ones(2))
    assert ready.area == [16, 12, 0, 12]
    assert ready.mult[0, 0, 0].tolist() == pytest.approx([1 / 3, 2 / 3, *[1.0] * 10])
    assert model.model.latent_format.latent_channels == 4


def test_an_area_in_percent_is_the_same_as_in_latent_units():
    model = toy_model()
    sides = [
        predict(model, latents(3), 1.0, {"positive": [*prompt(1), [tokens(5), {"area": area}]]})
        for area in (("percentage", 0.5, 0.25, 0.5, 0.5), (8, 6, 8, 12))
    ]
    assert torch.equal(*sides)


def test_a_mask_weighs_the_conditioning_place_by_place():
    model = toy_model()
    x = latents(3)
    mask = torch.zeros(1, 16, 24)
    mask[:, :, :12] = 1
    first, second = ({"mask": m, "mask_strength": 1.0} for m in (mask, 1 - mask))
    mixed = predict(model, x, 1.0, {"positive": [[tokens(1), first], [tokens(5), second]]})
    alone = [predict(model, x, 1.0, {"positive": prompt(seed)}) for seed in (1, 5)]
    assert torch.allclose(mixed, torch.where(mask.bool(), *alone), atol=1e-6)


def test_a_mask_of_pixels_is_scaled_to_the_latent():
    conds = [{"mask": torch.ones(128, 192)}]
    comfy.samplers.resolve_areas_and_cond_masks_multidim(conds, (16, 24), torch.device("cpu"))
    assert conds[0]["mask"].shape == (1, 16, 24)


@pytest.mark.parametrize(
    ("rows", "columns", "area"),
    [(slice(2, 12), slice(3, 15), (10, 12, 2, 3)), (slice(4, 5), slice(6, 7), (8, 8, 4, 6)),
     (slice(0, 0), slice(0, 0), (8, 8, 0, 0))],
)  # fmt: skip
def test_the_bounds_of_a_mask_become_an_area_of_at_least_eight(rows, columns, area):
    mask = torch.zeros(1, 16, 24)
    mask[:, rows, columns] = 1
    conds = [{"mask": mask, "set_area_to_bounds": True}]
    comfy.samplers.resolve_areas_and_cond_masks_multidim(conds, (16, 24), torch.device("cpu"))
    assert conds[0]["area"] == area


def test_a_default_conditioning_fills_what_others_leave():
    model = toy_model()
    x = latents(3)
    mask = torch.zeros(1, 16, 24)
    mask[:, :, :12] = 1
    filled = [[tokens(1), {"mask": mask, "mask_strength": 1.0}], [tokens(5), {"default": True}]]
    alone = [predict(model, x, 1.0, {"positive": prompt(seed)}) for seed in (1, 5)]
    assert torch.allclose(
        predict(model, x, 1.0, {"positive": filled}), torch.where(mask.bool(), *alone), atol=1e-6
    )


def test_a_timestep_range_switches_a_conditioning_off():
    model = toy_model()
    early, late = {"start_percent": 0.0, "end_percent": 0.5}, {"start_percent": 0.5, "end_percent": 1.0}
    ranged = {"positive": [[tokens(1), early], [tokens(5), late]]}
    x = latents(3)
    for sigma, seed in ((10.0, 1), (0.1, 5)):
        assert torch.equal(
            predict(model, x, sigma, ranged), predict(model, x, sigma, {"positive": prompt(seed)})
        )


def test_each_side_gets_a_counterpart_for_an_area_of_the_other():
    conds = [{"model_conds": {"a": 1}, "area": (8, 8, 0, 0)}, {"model_conds": {"a": 2}}]
    comfy.samplers.create_cond_with_same_area_if_none(conds, {"area": (4, 4, 1, 1), "model_conds": {}})
    assert conds[-1] == {"area": (4, 4, 1, 1), "model_conds": {"a": 1}}
    count = len(conds)
    comfy.samplers.create_cond_with_same_area_if_none(conds, {"area": (4, 4, 1, 1), "model_conds": {}})
    assert len(conds) == count


def test_the_result_is_the_same_for_the_same_seed_and_another_for_another():
    model = toy_model()
    assert torch.equal(run(model), run(model))
    assert not torch.equal(run(model), run(model, seed=43))


def test_a_picture_of_a_batch_can_be_made_again_alone():
    model = toy_model()
    batch = run(model, torch.zeros(3, 4, 16, 24), inds=[0, 1, 2])
    assert torch.allclose(run(model, EMPTY[:1], inds=[2]), batch[2:], atol=1e-5)


def test_the_kept_region_of_an_inpainted_latent_comes_back():
    model = toy_model()
    latent = latents(3)
    mask = torch.zeros(1, 128, 192)
    mask[:, :64] = 1
    for sampler in ("euler", "ddim", "dpmpp_2m"):
        out = run(model, latent, sampler=sampler, noise_mask=mask)
        assert torch.allclose(out[:, :, 8:], latent[:, :, 8:], atol=1e-4)
        assert not torch.allclose(out[:, :, :8], latent[:, :, :8], atol=0.1)


def test_the_mask_of_inpainting_can_change_with_the_noise_level():
    model = toy_model()
    seen = []

    def shrink(sigma, mask, extra_options):
        seen.append(sorted(extra_options))
        return mask * 0

    model.set_model_denoise_mask_function(shrink)
    latent = latents(3)
    assert torch.allclose(run(model, latent, noise_mask=torch.ones(1, 16, 24)), latent, atol=1e-4)
    assert seen[0] == ["model", "sigmas"]


def test_less_denoise_keeps_more_of_the_latent():
    model = toy_model()
    latent = latents(3)
    moved = [(run(model, latent, denoise=d) - latent).abs().mean() for d in (0.0, 0.2, 0.6, 1.0)]
    assert moved[0] == 0
    assert moved == sorted(moved)


def test_denoise_takes_the_tail_of_a_longer_schedule():
    model = toy_model()
    sampler = comfy.samplers.KSampler(model, 10, "cpu", "euler", "normal", denoise=0.5)
    longer = comfy.samplers.calculate_sigmas(model.model.model_sampling, "normal", 20)
    assert torch.equal(sampler.sigmas, longer[-11:])


@pytest.mark.parametrize("name", ["dpm_2", "dpm_2_ancestral"])
def test_two_call_samplers_lose_the_level_before_the_last(name):
    model = toy_model()
    sampler = comfy.samplers.KSampler(model, 10, "cpu", name, "normal")
    longer = comfy.samplers.calculate_sigmas(model.model.model_sampling, "normal", 11)
    assert torch.equal(sampler.sigmas, torch.cat([longer[:-2], longer[-1:]]))
    assert len(sampler.sigmas) == 11


def test_two_halves_of_the_steps_make_the_whole():
    model = toy_model()
    whole = run(model, steps=6)
    half = run(model, steps=6, last_step=3)
    noise = torch.zeros_like(half)
    rest = comfy.sample.sample(
        model, noise, 6, 5.0, "euler", "normal", prompt(1), prompt(2), half, start_step=3, disable_pbar=True
    )
    assert torch.allclose(rest, whole, atol=1e-4)


def test_leftover_noise_is_removed_when_asked():
    model = toy_model()
    kept = []
    stop_early = {"steps": 6, "last_step": 3, "callback": lambda step, x0, x, total: kept.append(x0)}
    noisy, clean = (run(model, force_full_denoise=full, **stop_early) for full in (False, True))
    denoised = model.model.process_latent_out(kept[-1])
    assert torch.allclose(clean, denoised, atol=1e-3)
    assert not torch.allclose(noisy, denoised, atol=1.0)


def test_a_range_without_steps_gives_the_latent_back():
    model = toy_model()
    latent = latents(3)
    assert torch.equal(run(model, latent, steps=4, start_step=9), latent)


def test_unknown_names_fall_back_to_the_first_of_the_lists():
    sampler = comfy.samplers.KSampler(toy_model(), 4, "cpu", "no such sampler", "no such scheduler")
    assert (sampler.sampler, sampler.scheduler) == ("euler", "simple")


def test_the_callback_counts_the_steps():
    seen = []
    run(toy_model(), steps=3, callback=lambda step, x0, x, total: seen.append((step, total, x0.shape)))
    assert seen == [(step, 3, EMPTY.shape) for step in range(3)]


def test_a_wish_to_stop_ends_the_run_and_lets_go_of_the_model():
    model = toy_model()

    def stop(step, x0, x, total):
        comfy.interruption.interrupt_current_processing()

    with pytest.raises(comfy.interruption.InterruptProcessingException):
        run(model, steps=9, callback=stop)
    assert len(calls(model)) == 1
    assert model.model.current_patcher is None
    assert torch.isfinite(run(model)).all()


@pytest.mark.parametrize("name", [*comfy.samplers.KSampler.SAMPLERS])
def test_every_sampler_runs_by_its_name(name):
    out = run(toy_model(), torch.zeros(1, 4, 4, 4), sampler=name, scheduler="karras", steps=3)
    assert out.shape == (1, 4, 4, 4)
    assert torch.isfinite(out).all()


def test_wrappers_surround_their_stage():
    model = toy_model()
    order = []
    stages = ["outer_sample", "prepare_sampling", "sampler_sample"]
    stages += ["predict_noise", "calc_cond_batch", "apply_model"]
    for kind in stages:

        def wrapper(executor, *args, kind=kind, **kwargs):
            order.append(kind)
            return executor(*args, **kwargs)

        model.add_wrapper_with_key(kind, "test", wrapper)
    run(model, steps=1)
    assert order == stages


def test_a_latent_without_content_takes_the_shape_of_the_model():
    model = toy_model()
    fixed = comfy.sample.fix_empty_latent_channels(model, torch.zeros(1, 16, 8, 8), 16)
    assert fixed.shape == (1, 4, 16, 16)
    kept = torch.ones(1, 16, 8, 8)
    assert comfy.sample.fix_empty_latent_channels(model, kept) is kept


def test_noise_of_a_seed_is_that_of_torch():
    expected = torch.randn(EMPTY.shape, generator=torch.Generator().manual_seed(9))
    assert torch.equal(comfy.sample.prepare_noise(EMPTY, 9), expected)
