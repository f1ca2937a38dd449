"""Windows cover every frame as their schedule says, and their predictions are blended by their weights."""

from types import SimpleNamespace

import pytest
import torch

import comfy.conds
import comfy.context_windows as cw
import comfy.sample
from comfy_extras.nodes_context_windows import (
    ContextWindowsManualNode,
    LTXVContextWindowsNode,
    WanContextWindowsManualNode,
)
from tests.comfy.toy_model import latents, prompt, toy_model


def windows(schedule, frames, **options):
    handler = SimpleNamespace(
        **{"context_length": 8, "context_overlap": 2, "context_stride": 1, "closed_loop": False, "_step": 0,
           **options}
    )  # fmt: skip
    return cw.get_matching_context_schedule(schedule).func(frames, handler, {})


def span(first, last, stride=1):
    return list(range(first, last + 1, stride))


@pytest.mark.parametrize(
    ("schedule", "frames", "options", "expected"),
    [
        ("standard_static", 8, {}, [span(0, 7)]),
        ("standard_static", 20, {}, [span(0, 7), span(6, 13), span(12, 19)]),
        ("standard_static", 21, {}, [span(0, 7), span(6, 13), span(12, 19), span(13, 20)]),
        ("batched", 20, {}, [span(0, 7), span(8, 15), span(16, 19)]),
        # Steps 1 and 3 move the begin by 1/2 and 3/4 of the frames.
        ("standard_uniform", 20, {"_step": 0}, [span(0, 7), span(6, 13), span(12, 19)]),
        ("standard_uniform", 9, {"_step": 1}, [span(1, 8), span(0, 7)]),
        ("looped_uniform", 20, {"_step": 3, "closed_loop": True},
         [[15, 16, 17, 18, 19, 0, 1, 2], span(1, 8), span(7, 14), [13, 14, 15, 16, 17, 18, 19, 0]]),
        ("looped_uniform", 20, {"_step": 1, "context_stride": 2},
         [span(10, 17), [16, 17, 18, 19, 0, 1, 2, 3], span(2, 9), [11, 13, 15, 17, 19, 1, 3, 5],
          span(5, 19, 2)]),
        ("looped_uniform", 5, {}, [span(0, 4)]),
    ],
)  # fmt: skip
def test_a_schedule_gives_these_windows(schedule, frames, options, expected):
    assert windows(schedule, frames, **options) == expected


@pytest.mark.parametrize("schedule", list(cw.CONTEXT_MAPPING))
def test_windows_cover_all_frames_and_no_others(schedule):
    for frames in (9, 16, 21, 33):
        for stride in (1, 2, 3):
            for step in range(8):
                for loop in (False, True):
                    options = {"context_stride": stride, "_step": step, "closed_loop": loop}
                    found = windows(schedule, frames, **options)
                    if schedule == "looped_uniform" and not loop:
                        continue  # leaves a gap at the begin of some steps, which the next ones close
                    assert {frame for window in found for frame in window} == set(range(frames)), options


def test_an_overlap_as_long_as_a_window_is_refused():
    for schedule in ("standard_static", "standard_uniform", "looped_uniform"):
        with pytest.raises(ValueError, match="context_overlap is 8, context_length 8. Choose an overlap"):
            windows(schedule, 20, context_overlap=8)


@pytest.mark.parametrize(("get", "what"), [
    (cw.get_matching_context_schedule, "context_schedule"), (cw.get_matching_fuse_method, "fuse_method"),
])  # fmt: skip
def test_unknown_names_are_refused(get, what):
    with pytest.raises(ValueError, match=f"no {what} 'odd'. Known are: "):
        get("odd")


@pytest.mark.parametrize(
    ("method", "frames", "expected"),
    [
        ("flat", span(2, 6), [1, 1, 1, 1, 1]),
        ("pyramid", span(2, 6), [1, 2, 3, 2, 1]),
        ("pyramid", span(0, 5), [1, 2, 3, 3, 2, 1]),
        ("relative", span(2, 6), [0.01, 1 - 1 / 2.005, 1, 1 - 1 / 2.005, 0.01]),
        ("overlap-linear", span(0, 4), [1, 1, 1, 0.5, 0]),
        ("overlap-linear", span(3, 7), [0, 0.5, 1, 0.5, 0]),
        ("overlap-linear", span(15, 19), [0, 0.5, 1, 1, 1]),
    ],
)
def test_frames_of_a_window_count_so_much(method, frames, expected):
    handler = SimpleNamespace(fuse_method=cw.get_matching_fuse_method(method), context_overlap=3)
    found = cw.get_context_weights(len(frames), 20, frames, handler)
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_window_cuts_adds_and_knows_its_place():
    window = cw.IndexListContextWindow([2, 3, 5], dim=1, total_frames=10)
    full = torch.arange(20.0).reshape(2, 10)
    assert window.get_tensor(full).tolist() == [[2, 3, 5], [12, 13, 15]]
    assert window.get_tensor(full, retain_index_list=[0, 7]).tolist() == [[0, 3, 5], [10, 13, 15]]
    window.causal_anchor_index = 1
    assert window.get_tensor(full).tolist() == [[1, 2, 3, 5], [11, 12, 13, 15]]
    assert window.get_tensor(torch.ones(1), dim=0).tolist() == [1]  # one for all
    window.add_window(full, torch.full((2, 3), 100.0))
    assert full[0].tolist() == [0, 1, 102, 103, 4, 105, 6, 7, 8, 9]
    assert [window.get_region_index(count) for count in (1, 2, 3, 10)] == [0, 0, 1, 3]


def test_windows_move_to_either_end():
    window = [6, 7, 0, 1]
    assert cw.does_window_roll_over(window, 8) == (True, 2)
    cw.shift_window_to_end(window, 10)
    assert window == [4, 5, 8, 9]  # the distances stay
    cw.shift_window_to_start(window, 10)
    assert window == [0, 1, 4, 5]


def test_freenoise_repeats_the_first_window_shuffled():
    noise = torch.arange(20.0)[None, :, None]
    out = cw.apply_freenoise(noise.clone(), 1, 8, 2, seed=5)[0, :, 0].tolist()
    assert out[:8] == span(0, 7)
    assert sorted(out[8:14]) == span(0, 5)
    assert sorted(out[14:]) == sorted(out[6:12])  # from the window before, which is shuffled already
    assert out == cw.apply_freenoise(noise.clone(), 1, 8, 2, seed=5)[0, :, 0].tolist()
    assert out != cw.apply_freenoise(noise.clone(), 1, 8, 2, seed=6)[0, :, 0].tolist()


# --- sampling ------------------------------------------------------------------------------------------

NAMES = ("context_length", "context_overlap", "context_schedule", "context_stride", "closed_loop",
         "fuse_method", "dim", "freenoise", "cond_retain_index_list", "split_conds_to_windows",
         "latent_retain_index_list", "causal_window_fix")  # fmt: skip
DEFAULTS = dict(zip(NAMES, (4, 2, "standard_static", 1, False, "pyramid", 0, False, "", False, "", False)))


def windowed(model, **options):
    return ContextWindowsManualNode.execute(model=model, **{**DEFAULTS, **options}).args[0]


def run(model, positive, frames=9, steps=2, cfg=1.0):
    x = latents(3, batch=frames, rows=8, columns=8)
    return comfy.sample.sample(
        model, x, steps, cfg, "euler", "normal", positive, prompt(2), torch.zeros_like(x), seed=1
    )


@pytest.mark.parametrize("fuse_method", cw.ContextFuseMethods.LIST_STATIC)
@pytest.mark.parametrize("causal_window_fix", [False, True])
def test_frames_that_know_nothing_of_each_other_are_the_same_in_windows(fuse_method, causal_window_fix):
    model = toy_model()
    expected = run(model, prompt(1), cfg=3.0)
    network = model.model.diffusion_model
    network.calls.clear()
    out = run(
        windowed(model, fuse_method=fuse_method, causal_window_fix=causal_window_fix), prompt(1), cfg=3.0
    )
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    most = max(call["batch"] for call in network.calls)
    assert most == 2 * (4 + causal_window_fix)  # both sides, and the frame before
    assert [call["context_window"].index_list for call in network.calls[:4]] == [
        span(0, 3), span(2, 5), span(4, 7), span(5, 8)
    ]  # fmt: skip


def test_windows_that_share_frames_are_blended_by_their_weights():
    """The network sees the mean of its window, so each window predicts something else."""
    model = toy_model()

    def mean_of_window(apply, args):
        x = args["input"]
        return torch.zeros_like(x) + x.mean(0, keepdim=True)

    model.set_model_unet_function_wrapper(mean_of_window)
    x = latents(4, batch=6, rows=8, columns=8)
    handler = windowed(model).model_options["context_handler"]
    conds = comfy.sampler_helpers.convert_cond(prompt(1))
    model.model.current_patcher = model
    sigma = torch.ones(6)
    options = {**model.model_options, "transformer_options": {"sample_sigmas": torch.tensor([2.0, 1.0, 0.0])}}
    (out,) = handler.execute(comfy.samplers._calc_cond_batch_outer, model.model, [conds], x, sigma, options)
    first, second = x[:4].mean(0), x[2:].mean(0)
    assert handler._step == 1
    torch.testing.assert_close(out[0], first)
    torch.testing.assert_close(out[2], (2 * first + 1 * second) / 3)
    torch.testing.assert_close(out[3], (1 * first + 2 * second) / 3)
    torch.testing.assert_close(out[5], second)


def test_short_latents_are_sampled_as_they_are():
    model = toy_model()
    run(windowed(model, context_length=16), prompt(1), frames=4, steps=1)
    assert "context_window" not in model.model.diffusion_model.calls[-1]


def test_an_axis_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="dim is 4, and these latents have the axes 0 to 3"):
        run(windowed(toy_model(), dim=4), prompt(1))


def test_several_conditionings_go_to_the_windows_in_turn():
    model = toy_model()
    both = prompt(1) + prompt(5)
    options = {"split_conds_to_windows": True, "context_schedule": "batched"}
    out = run(windowed(model, **options), both, frames=8)
    torch.testing.assert_close(out[:4], run(model, prompt(1), frames=8)[:4])
    torch.testing.assert_close(out[4:], run(model, prompt(5), frames=8)[4:])


def test_what_has_a_row_for_each_frame_is_cut_to_the_window():
    handler = windowed(toy_model(), cond_retain_index_list="0").model_options["context_handler"]
    window = cw.IndexListContextWindow([4, 5, 6, 7], 0, 9)
    rows = torch.arange(9.0)[:, None]
    cond = {
        "mask": rows, "pooled_output": torch.ones(1, 3), "strength": 0.5,
        "model_conds": {"y": comfy.conds.CONDRegular(rows), "one": comfy.conds.CONDRegular(rows[:1]),
                        "num_video_frames": comfy.conds.CONDConstant(9)},
    }  # fmt: skip
    (out,) = handler.get_resized_cond([cond], torch.zeros(9, 4, 8, 8), window)
    assert out["mask"].flatten().tolist() == [4, 5, 6, 7]
    assert out["pooled_output"] is cond["pooled_output"] and out["strength"] == 0.5
    assert out["model_conds"]["y"].cond.flatten().tolist() == [0, 5, 6, 7]  # the first place is kept
    assert out["model_conds"]["one"].cond.tolist() == [[0]]
    assert out["model_conds"]["num_video_frames"].cond == 4
    assert cond["model_conds"]["num_video_frames"].cond == 9


def test_callbacks_of_packs_are_called():
    model, seen = toy_model(), []
    patched = windowed(model)
    kinds = cw.IndexListCallbacks
    for kind in (kinds.EXECUTE_START, kinds.EVALUATE_CONTEXT_WINDOWS, kinds.EXECUTE_CLEANUP):
        callback = lambda *args, kind=kind: seen.append(kind)  # noqa: E731
        table = patched.model_options["context_handler"].callbacks
        comfy.patcher_extension.add_callback(kind, callback, table)
    run(patched, prompt(1), frames=6, steps=1)
    assert seen == [kinds.EXECUTE_START, *[kinds.EVALUATE_CONTEXT_WINDOWS] * 2, kinds.EXECUTE_CLEANUP]


def test_freenoise_changes_the_noise_that_is_sampled_from():
    model = toy_model()
    plain, shuffled = (run(windowed(model, freenoise=on), prompt(1), steps=1) for on in (False, True))
    torch.testing.assert_close(plain[:4], shuffled[:4])
    assert not torch.allclose(plain[4:], shuffled[4:])


def test_lists_of_places_must_be_numbers():
    with pytest.raises(ValueError, match="'1, x' is no list of frames. Write numbers with commas"):
        windowed(toy_model(), latent_retain_index_list="1, x")


@pytest.mark.parametrize(
    ("node", "frames", "overlap", "expected"),
    [
        (WanContextWindowsManualNode, 81, 30, (21, 7, [0], [])),
        (WanContextWindowsManualNode, 1, 1, (1, 0, [0], [])),
        (LTXVContextWindowsNode, 145, 40, (19, 5, [0], [0])),
        (LTXVContextWindowsNode, 9, 9, (2, 1, [0], [0])),
    ],
)
def test_video_nodes_count_in_frames_of_the_video(node, frames, overlap, expected):
    options = {name: DEFAULTS[name] for name in NAMES[2:6]}
    model = node.execute(
        toy_model(), frames, overlap, freenoise=True, retain_first_frame=True, split_conds_to_windows=False,
        **options,
    ).args[0]  # fmt: skip
    handler = model.model_options["context_handler"]
    names = ("context_length", "context_overlap", "cond_retain_index_list", "latent_retain_index_list")
    assert tuple(getattr(handler, name) for name in names) == expected
    assert handler.dim == 2
