"""Hooks change weights for the conditionings that have them, by strengths that follow the run, and for nobody
else; afterwards every weight is the tensor that it was.
"""

import math

import pytest
import torch

import comfy.hooks
import comfy.sample
import comfy.samplers
import comfy.sd
from comfy.hooks import HookGroup, HookKeyframe, HookKeyframeGroup
from comfy_extras import nodes_hooks
from tests.comfy import tiny_sd1
from tests.comfy.toy_model import latents, prompt, toy_model

MIX = "diffusion_model.mix"


def change(seed):
    """A difference of the toy network's first matrix."""
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))


def hooks_of(difference, strength=1.0):
    """A group of one hook that adds the difference."""
    hook = comfy.hooks.WeightHook(strength_model=strength)
    hook.weights, hook.need_weight_init = {MIX: ("diff", (difference,))}, False
    group = HookGroup()
    group.add(hook)
    return group


def keyframes(*pairs, guarantee_steps=1):
    """(strength, start_percent) each."""
    group = HookKeyframeGroup()
    for strength, start in pairs:
        group.add(HookKeyframe(strength, start, guarantee_steps))
    return group


def run(model, positive, negative, steps=4, cfg=3.0, watch=None):
    """Sample; `watch` gets the first matrix and the sides of each evaluation."""
    if watch is not None:

        def look(apply, args):
            watch.append((model.model.diffusion_model.mix.detach().clone(), args["cond_or_uncond"],
                          float(args["timestep"][0])))  # fmt: skip
            return apply(args["input"], args["timestep"], **args["c"])

        model = model.clone()
        model.set_model_unet_function_wrapper(look)
    x = latents(3)
    return comfy.sample.sample(
        model, x, steps, cfg, "euler", "normal", positive, negative, torch.zeros_like(x), seed=1
    )


@pytest.fixture
def model():
    return toy_model()


def test_a_hooked_side_is_predicted_with_the_patched_weights_and_the_other_one_is_not(model):
    before, difference, seen = model.model.diffusion_model.mix, change(1), []
    positive = comfy.hooks.set_hooks_for_conditioning(prompt(1), hooks_of(difference, 0.5))
    out = run(model, positive, prompt(2), watch=seen)

    for mix, sides, _ in seen:
        expected = before + 0.5 * difference if sides == [0] else before
        assert sides in ([0], [1])
        torch.testing.assert_close(mix, expected)
    assert len(seen) == 8
    assert model.model.diffusion_model.mix is before  # the very tensor, not a copy
    assert not model.hook_patches and not model.hook_backup and not model.cached_hook_patches
    assert not torch.allclose(out, run(model, prompt(1), prompt(2)))


def test_hooks_on_all_sides_are_what_the_patched_model_gives_in_one_batch(model):
    patched, hooks, seen = model.clone(), hooks_of(change(2), 0.7), []
    patched.add_patches({MIX: ("diff", (change(2),))}, 0.7)
    sides = comfy.hooks.set_conds_props([prompt(1), prompt(2)], 1.0, "default", hooks=hooks)

    expected = run(patched, prompt(1), prompt(2))
    torch.testing.assert_close(run(model, *sides, watch=seen), expected)
    assert [sorted(sides) for _, sides, _ in seen] == [[0, 1]] * 4


def test_hooks_come_on_top_of_the_patches_that_the_model_has(model):
    loaded, seen = model.clone(), []
    loaded.add_patches({MIX: ("diff", (change(5),))}, 1.0)
    original = model.model.diffusion_model.mix.detach().clone()
    hooked = comfy.hooks.set_hooks_for_conditioning(prompt(1), hooks_of(change(6)))
    run(loaded, hooked, prompt(2), steps=1, watch=seen)

    found = {tuple(sides): mix for mix, sides, _ in seen}
    torch.testing.assert_close(found[0,], original + change(5) + change(6))
    torch.testing.assert_close(found[1,], original + change(5))


def test_a_conditioning_of_two_groups_is_evaluated_with_the_weights_of_each(model):
    seen = []
    both = [
        *comfy.hooks.set_hooks_for_conditioning(prompt(1), hooks_of(change(1))),
        *comfy.hooks.set_hooks_for_conditioning(prompt(2), hooks_of(change(2))),
    ]
    base = model.model.diffusion_model.mix.detach().clone()
    run(model, both, prompt(3), steps=2, cfg=1.0, watch=seen)
    assert len(seen) == 4  # the negative side has no weight at scale 1
    for mix, expected in zip([mix for mix, *_ in seen], [change(1), change(2)] * 2):
        torch.testing.assert_close(mix, base + expected)


def test_groups_add_up_and_a_hook_that_comes_twice_counts_once(model):
    first, second, seen = hooks_of(change(1)), hooks_of(change(2)), []
    group = HookGroup.combine_all_hooks([first, second, first, None])
    assert len(group) == 2
    assert HookGroup.combine_all_hooks([None, None]) is None
    assert HookGroup.combine_all_hooks([None, first]) is first
    base = model.model.diffusion_model.mix.detach().clone()
    run(
        model,
        comfy.hooks.set_hooks_for_conditioning(prompt(1), group),
        prompt(2),
        steps=1,
        cfg=1.0,
        watch=seen,
    )
    torch.testing.assert_close(seen[0][0], base + change(1) + change(2))


def test_too_few_groups_are_refused():
    with pytest.raises(ValueError, match="2 or more groups of hooks are needed, 1 came"):
        HookGroup.combine_all_hooks([hooks_of(change(1)), None], require_count=2)


@pytest.mark.parametrize(
    ("frames", "guarantee", "expected"),
    [
        ([(1.0, 0.0)], 1, [1.0] * 6),
        ([(0.25, 0.0), (2.0, 0.5)], 1, None),  # by the noise level
        ([(0.25, 0.001), (2.0, 0.001)], 2, [0.25, 0.25, 2.0, 2.0, 2.0, 2.0]),  # sure of two steps
        ([(0.25, 0.0), (2.0, 0.0)], 2, [2.0] * 6),  # 0.0 is before any noise level, and sure of nothing
        ([(0.5, 0.0), (1.5, 0.0), (3.0, 0.0)], 0, [3.0] * 6),  # sure of none: the last that has started
        ([(0.0, 0.0), (1.0, 1.0)], 1, [0.0] * 6),  # 1.0 is no noise at all
    ],
)
def test_the_strength_follows_the_keyframes(model, frames, guarantee, expected):
    hooks, seen = hooks_of(change(4)), []
    hooks.set_keyframes_on_hooks(keyframes(*frames, guarantee_steps=guarantee))
    base = model.model.diffusion_model.mix.detach().clone()
    run(model, comfy.hooks.set_hooks_for_conditioning(prompt(1), hooks), prompt(2), 6, 1.0, watch=seen)
    if expected is None:
        sampling = model.get_model_object("model_sampling")
        expected = [2.0 if sigma <= sampling.percent_to_sigma(0.5) else 0.25 for *_, sigma in seen]
        assert 0 < expected.index(2.0) < 5
    strengths = [float(((mix - base) / change(4)).median()) for mix, *_ in seen]
    assert strengths == pytest.approx(expected, abs=1e-4)


def test_two_hooks_with_the_same_keyframes_both_follow_them(model):
    shared, seen = keyframes((1.0, 0.0), (-1.0, 0.5)), []
    conds = []
    for seed in (1, 2):
        hooks = hooks_of(change(seed))
        hooks.hooks[0].hook_keyframe = shared
        conds += comfy.hooks.set_hooks_for_conditioning(prompt(seed), hooks)
    base = model.model.diffusion_model.mix.detach().clone()
    run(model, conds, prompt(3), steps=4, cfg=1.0, watch=seen)
    signs = [float(((mix - base) / change(1 + number % 2)).median()) for number, (mix, *_) in enumerate(seen)]
    assert signs[::2] == pytest.approx(signs[1::2], abs=1e-4)
    assert {round(sign) for sign in signs} == {1, -1}


def test_another_model_as_a_hook_goes_towards_its_weights(model):
    other, seen = change(9), []
    hooks = comfy.hooks.create_hook_model_as_lora({MIX: other}, None, 0.25, 0.0)
    loaded = model.clone()
    loaded.add_patches({MIX: ("diff", (change(5),))}, 1.0)
    base = model.model.diffusion_model.mix.detach().clone()
    hooked = comfy.hooks.set_hooks_for_conditioning(prompt(1), hooks)
    run(loaded, hooked, prompt(2), steps=1, cfg=1.0, watch=seen)
    torch.testing.assert_close(seen[0][0], base + change(5) + 0.25 * (other - base))


def test_wrappers_of_a_hook_surround_what_has_the_hook_alone(model):
    calls = []

    def wrapper(executor, *args, **kwargs):
        calls.append(args[-1]["cond_or_uncond"])
        return executor(*args, **kwargs)

    kind = comfy.patcher_extension.WrappersMP.APPLY_MODEL
    for scope, expected in (("HookedOnly", [0]), ("AllConditioning", [0, 1])):
        calls.clear()
        group = HookGroup()
        group.add(comfy.hooks.TransformerOptionsHook(
            {"wrappers": {kind: {"test": [wrapper]}}}, hook_scope=comfy.hooks.EnumHookScope[scope]
        ))  # fmt: skip
        run(model, comfy.hooks.set_hooks_for_conditioning(prompt(1), group), prompt(2), steps=1)
        assert sorted(side for sides in calls for side in sides) == expected


def test_models_of_a_hook_are_loaded_beside(model):
    import comfy.model_management

    beside = toy_model()
    group = HookGroup()
    group.add(comfy.hooks.AdditionalModelsHook([beside]))
    run(model, comfy.hooks.set_hooks_for_conditioning(prompt(1), group), prompt(2), steps=1)
    assert any(loaded.model.is_clone(beside) for loaded in comfy.model_management.current_loaded_models)


@pytest.mark.parametrize("kind", [comfy.hooks.ObjectPatchHook, comfy.hooks.InjectionsHook])
def test_kinds_that_no_sampler_applies_say_so(model, kind):
    group = HookGroup()
    group.add(kind())
    with pytest.raises(NotImplementedError, match="cannot be applied per conditioning. Change the MODEL"):
        run(model, comfy.hooks.set_hooks_for_conditioning(prompt(1), group), prompt(2), steps=1)


def test_hooks_that_are_not_wanted_are_not_applied(model):
    hooks, seen = hooks_of(change(1)), []
    hooks.hooks[0].custom_should_register = lambda *_: False
    base = model.model.diffusion_model.mix.detach().clone()
    run(model, comfy.hooks.set_hooks_for_conditioning(prompt(1), hooks), prompt(2), steps=1, watch=seen)
    assert [sorted(sides) for _, sides, _ in seen] == [[0, 1]]
    assert torch.equal(seen[0][0], base)


# --- nodes ---------------------------------------------------------------------------------------------


def node(name):
    return nodes_hooks.NODE_CLASS_MAPPINGS[name]()


@pytest.mark.parametrize(
    ("method", "middle"),
    [("linear", 2.0), ("ease_in", 1.5), ("ease_out", 2.5), ("ease_in_out", 2.0)],
)
def test_interpolated_keyframes_go_along_a_curve(method, middle):
    make = node("CreateHookKeyframesInterpolated").create_hook_keyframes
    (group,) = make(1.0, 3.0, method, 0.2, 0.6, 5, prev_hook_kf=keyframes((9.0, 0.0)))
    added = group.keyframes[1:]
    assert [frame.start_percent for frame in added] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])
    assert [added[i].strength for i in (0, 2, 4)] == pytest.approx([1.0, middle, 3.0])
    quarter = {"linear": 0.25, "ease_in": 1 / 16, "ease_out": 7 / 16,
               "ease_in_out": (1 - math.cos(math.pi / 4)) / 2}  # fmt: skip
    assert added[1].strength == pytest.approx(1 + 2 * quarter[method])
    assert [frame.guarantee_steps for frame in added] == [1, 0, 0, 0, 0]


def test_keyframes_of_a_list_of_floats_are_spread_evenly():
    make = node("CreateHookKeyframesFromFloats").create_hook_keyframes
    (group,) = make([1, 0.5, 0], 0.0, 0.5)
    assert [(f.strength, f.start_percent) for f in group.keyframes] == [(1.0, 0.0), (0.5, 0.25), (0.0, 0.5)]
    assert make(0.3, 0.1, 0.9)[0].keyframes[0].start_percent == 0.1
    with pytest.raises(ValueError, match="floats_strength is a NoneType. Connect a list of numbers"):
        make(None, 0.0, 1.0)


def test_an_unknown_interpolation_is_named():
    with pytest.raises(ValueError, match="no interpolation 'wavy'. Known are: linear"):
        comfy.hooks.InterpolationMethod.get_weights(0, 1, 3, "wavy")


def test_properties_are_set_on_new_conditionings_and_combined_with_old_ones():
    hooks, mask = hooks_of(change(1)), torch.ones(8, 8)
    (positive, negative) = node("PairConditioningSetPropertiesAndCombine").set_properties(
        0.5, "mask bounds", mask, hooks, (0.1, 0.4), positive=prompt(1), negative=prompt(2),
        positive_NEW=prompt(3), negative_NEW=prompt(4),
    )  # fmt: skip
    for side, seeds in ((positive, (1, 3)), (negative, (2, 4))):
        assert [torch.equal(tokens, prompt(s)[0][0]) for (tokens, _), s in zip(side, seeds)] == [True, True]
        assert side[0][1] == {}
        extras = side[1][1]
        assert (extras["start_percent"], extras["end_percent"]) == (0.1, 0.4)
        assert extras["set_area_to_bounds"] is True and extras["mask_strength"] == 0.5
        assert extras["mask"].shape == (1, 8, 8)
        assert extras["hooks"] is hooks


def test_a_default_conditioning_counts_where_no_other_one_does(model):
    left = torch.zeros(1, 16, 24)
    left[..., :12] = 1.0
    (masked,) = node("ConditioningSetProperties").set_properties(1.0, "default", left, cond_NEW=prompt(1))
    (both,) = node("ConditioningSetDefaultCombine").set_default_and_combine(
        cond=masked, cond_DEFAULT=prompt(2)
    )
    out = run(model, both, prompt(3), steps=1, cfg=1.0)
    one, two = (run(model, prompt(seed), prompt(3), steps=1, cfg=1.0) for seed in (1, 2))
    torch.testing.assert_close(out[..., :12], one[..., :12])
    torch.testing.assert_close(out[..., 12:], two[..., 12:])


def test_ranges_before_and_after():
    assert node("ConditioningTimestepsRange").create_range(0.2, 0.7) == ((0.2, 0.7), (0.0, 0.2), (0.7, 1.0))


# --- text encoders -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip():
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint())[1]


def lora_for(clip, seed=0):
    """A LoRA of one layer of the text encoder, as a file has it."""
    key = next(k for k in clip.patcher.model_state_dict() if k.endswith("layers.0.mlp.fc1.weight"))
    rows, columns = clip.patcher.model_state_dict()[key].shape
    generator = torch.Generator().manual_seed(seed)
    layer = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    return {
        f"{layer}.lora_up.weight": torch.randn(rows, 2, generator=generator),
        f"{layer}.lora_down.weight": torch.randn(2, columns, generator=generator),
    }


def encode(clip, text="a red circle", **add):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text), add_dict=add)


def test_text_is_encoded_with_the_hooks_of_its_encoder_and_hands_them_on(clip):
    lora = lora_for(clip)
    plain = encode(clip)[0][0]
    expected = encode(comfy.sd.load_lora_for_models(None, clip, lora, 0, 0.8)[1])[0][0]
    hooks = comfy.hooks.create_hook_lora(lora, 1.0, 0.8)
    (hooked,) = node("SetClipHooks").apply_hooks(clip, True, False, hooks)
    for _ in range(2):  # back and forth
        ((tokens, extras),) = encode(hooked)
        torch.testing.assert_close(tokens, expected)
        assert extras["hooks"] is hooks
        assert not torch.allclose(tokens, plain)
        assert torch.equal(encode(clip)[0][0], plain)


def test_text_is_encoded_for_each_range_of_its_keyframes(clip):
    lora = lora_for(clip)
    hooks = comfy.hooks.create_hook_lora(lora, 1.0, 1.0)
    hooks.set_keyframes_on_hooks(keyframes((0.5, 0.0), (0.5, 0.2), (1.0, 0.6)))
    (hooked,) = node("SetClipHooks").apply_hooks(clip, False, True, hooks)
    entries = encode(hooked)
    ranges = [(extras["clip_start_percent"], extras["clip_end_percent"]) for _, extras in entries]
    assert ranges == [(0.0, 0.6), (0.6, 1.0)]
    for (tokens, extras), strength in zip(entries, (0.5, 1.0)):
        assert "hooks" not in extras
        expected = encode(comfy.sd.load_lora_for_models(None, clip, lora, 0, strength)[1])[0][0]
        torch.testing.assert_close(tokens, expected)
    assert len(encode(hooked, start_percent=0.7, end_percent=1.0)) == 1
