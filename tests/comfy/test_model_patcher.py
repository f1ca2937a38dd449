"""Patches on clones: applied when loaded, undone for the next, never left in the base."""

import pytest
import torch

import comfy.model_management
from comfy.model_patcher import ModelPatcher, get_key_weight
from comfy.patcher_extension import CallbacksMP, PatcherInjection

CPU = torch.device("cpu")


def patcher() -> ModelPatcher:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)).requires_grad_(False)
    torch.nn.init.ones_(model[0].weight)
    return ModelPatcher(model, CPU, CPU)


def load(model: ModelPatcher) -> torch.Tensor:
    comfy.model_management.load_models_gpu([model])
    return model.model[0].weight


def test_a_difference_is_added_when_the_clone_is_loaded_and_gone_when_the_base_is():
    base = patcher()
    clone = base.clone()
    assert clone.add_patches({"0.weight": (torch.full((2, 2), 2.0),), "no": (torch.ones(1),)}, 0.5) == [
        "0.weight"
    ]
    assert torch.equal(load(clone), torch.full((2, 2), 2.0))
    assert torch.equal(load(base), torch.ones(2, 2))
    assert torch.equal(load(clone), torch.full((2, 2), 2.0))
    comfy.model_management.unload_all_models()
    assert torch.equal(base.model[0].weight, torch.ones(2, 2))


def test_the_strength_of_the_model_and_of_the_patch_both_count():
    model = patcher()
    model.add_patches({"0.weight": (torch.ones(2, 2),)}, strength_patch=3.0, strength_model=0.5)
    assert torch.equal(load(model), torch.full((2, 2), 3.5))


def test_a_part_of_a_weight_is_patched_through_a_function():
    model = patcher()
    model.add_patches({("0.weight", (0, 1, 1), lambda change: change * 2): (torch.ones(1, 2),)})
    assert torch.equal(load(model), torch.tensor([[1.0, 1.0], [3.0, 3.0]]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (("set", (torch.full((2, 2), 7.0),)), 7.0),
        (("diff", (torch.ones(2, 2),)), 2.0),
        (("unheard of", (torch.ones(2, 2),)), 1.0),
        ((torch.ones(3, 3),), 1.0),  # a wrong shape changes nothing
        ([(torch.full((2, 2), 4.0), lambda w, **_: w), (1.0, (torch.ones(2, 2),), 1.0, None, None)], 6.0),
    ],
)
def test_every_kind_of_patch(value, expected):
    model = patcher()
    model.add_patches({"0.weight": value})
    assert torch.equal(load(model), torch.full((2, 2), expected))


def test_a_patch_object_computes_its_own_weight():
    class Adapter:
        name = "half"

        def calculate_weight(self, weight, key, strength, *rest):
            return weight * strength

    model = patcher()
    model.add_patches({"0.weight": Adapter()}, 0.5)
    assert torch.equal(load(model), torch.full((2, 2), 0.5))


def test_in_place_patches_keep_the_tensor_and_are_undone():
    model = patcher()
    model.weight_inplace_update = True
    tensor = model.model[0].weight
    model.add_patches({"0.weight": (torch.ones(2, 2),)})
    assert load(model) is tensor and torch.equal(tensor, torch.full((2, 2), 2.0))
    model.detach()
    assert torch.equal(tensor, torch.ones(2, 2))


def test_key_patches_give_the_clean_weight_first():
    model = patcher()
    model.add_patches({"0.weight": (torch.ones(2, 2),)})
    load(model)
    (weight, convert), patch = model.get_key_patches("0.w")["0.weight"]
    assert torch.equal(convert(weight), torch.ones(2, 2))
    assert patch[0] == 1.0
    assert set(model.model_state_dict("1.")) == {"1.weight", "1.bias"}
    assert get_key_weight(model.model, "0.bias")[0] is model.model[0].bias


def test_object_patches_are_seen_by_their_patcher_and_set_while_it_is_loaded():
    base = patcher()
    clone = base.clone()
    base.model.setting = 1
    clone.add_object_patch("setting", 2)
    assert (base.get_model_object("setting"), clone.get_model_object("setting")) == (1, 2)
    load(clone)
    assert base.model.setting == 2
    assert base.get_model_object("setting") == 1
    load(base)
    assert base.model.setting == 1


def test_a_clone_has_its_own_options_and_the_same_model():
    base = patcher()
    base.set_model_attn1_patch("a")
    clone = base.clone()
    clone.set_model_attn1_patch("b")
    clone.set_model_attn2_replace("c", "middle", 0, 1)
    clone.set_model_sampler_cfg_function(lambda cond, uncond, scale: cond * scale)
    clone.set_model_sampler_post_cfg_function("post", disable_cfg1_optimization=True)
    clone.set_model_sampler_pre_cfg_function("pre")
    options = clone.model_options
    assert base.model_options == {"transformer_options": {"patches": {"attn1_patch": ["a"]}}}
    assert options["transformer_options"]["patches"] == {"attn1_patch": ["a", "b"]}
    assert options["transformer_options"]["patches_replace"] == {"attn2": {("middle", 0, 1): "c"}}
    assert options["sampler_cfg_function"]({"cond": 2, "uncond": 1, "cond_scale": 3}) == 6
    assert options["sampler_post_cfg_function"] == ["post"] and options["sampler_pre_cfg_function"] == ["pre"]
    assert options["disable_cfg1_optimization"] is True
    assert clone.is_clone(base) and clone.clone_has_same_weights(base)
    clone.add_patches({"0.weight": (torch.ones(2, 2),)})
    assert not clone.clone_has_same_weights(base)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("set_model_input_block_patch", "input_block_patch"),
        ("set_model_input_block_patch_after_skip", "input_block_patch_after_skip"),
        ("set_model_output_block_patch", "output_block_patch"),
        ("set_model_attn1_output_patch", "attn1_output_patch"),
        ("set_model_attn2_output_patch", "attn2_output_patch"),
        ("set_model_attn2_patch", "attn2_patch"),
        ("set_model_emb_patch", "emb_patch"),
        ("set_model_forward_timestep_embed_patch", "forward_timestep_embed_patch"),
        ("set_model_double_block_patch", "double_block"),
        ("set_model_post_input_patch", "post_input"),
        ("set_model_noise_refiner_patch", "noise_refiner"),
    ],
)
def test_each_setter_writes_under_its_name(method, name):
    model = patcher()
    getattr(model, method)("patch")
    assert model.model_options["transformer_options"]["patches"] == {name: ["patch"]}


def test_patches_that_can_move_are_moved_and_their_models_found():
    class Movable:
        def to(self, device):
            return ("moved", device)

        def models(self):
            return ["extra"]

    model = patcher()
    model.set_model_attn1_patch(Movable())
    model.set_model_attn1_replace(Movable(), "input", 1)
    model.set_model_unet_function_wrapper(Movable())
    assert model.model_patches_models() == ["extra"] * 3
    model.model_patches_to("gpu")
    assert model.model_options["transformer_options"]["patches"]["attn1_patch"] == [("moved", "gpu")]
    assert model.model_options["model_function_wrapper"] == ("moved", "gpu")


def test_callbacks_are_called_at_their_moments():
    said = []
    model = patcher()
    for kind in (CallbacksMP.ON_CLONE, CallbacksMP.ON_LOAD, CallbacksMP.ON_DETACH, CallbacksMP.ON_CLEANUP,
                 CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_PREPARE_STATE):  # fmt: skip
        model.add_callback(kind, lambda *args, kind=kind: said.append(kind))
    model.clone()
    load(model)
    model.pre_run()
    model.prepare_state(0)
    model.cleanup()
    model.detach()
    assert said == [
        "on_clone",
        "on_load_after",
        "on_pre_run",
        "on_prepare_state",
        "on_cleanup",
        "on_detach_after",
    ]
    model.add_callback_with_key("kind", "key", "f")
    assert model.get_callbacks("kind", "key") == ["f"]
    model.remove_callbacks_with_key("kind", "key")
    assert model.get_all_callbacks("kind") == []


def test_injections_are_in_the_model_while_it_is_loaded_and_never_twice():
    log = []
    model = patcher()
    model.set_injections("pack", [PatcherInjection(lambda p: log.append("in"), lambda p: log.append("out"))])
    load(model)
    assert model.is_injected and log == ["in"]
    with model.use_ejected():
        assert not model.is_injected
    assert log == ["in", "out", "in"]
    model.detach()
    assert log[-1] == "out" and not model.is_injected
    model.remove_injections("pack")
    assert model.get_injections("pack") is None


def test_registries_keep_wrappers_attachments_and_models_by_key():
    model, other, third = patcher(), patcher(), patcher()
    model.add_wrapper_with_key("kind", "key", "f")
    model.set_attachments("a", 1)
    model.set_additional_models("m", [other])
    clone = model.clone()
    other.set_additional_models("deeper", [third, model])
    assert clone.get_additional_models()[0].is_clone(other)
    assert clone.get_wrappers("kind", "key") == ["f"] and clone.get_attachment("a") == 1
    assert model.get_nested_additional_models() == [other, third, model]
    assert model.get_additional_models_with_key("m") == [other]
    for remove, key in ((model.remove_attachments, "a"), (model.remove_additional_models, "m")):
        remove(key)
    model.remove_wrappers_with_key("kind", "key")
    assert (model.get_all_wrappers("kind"), model.get_attachment("a"), model.get_additional_models()) == (
        [],
        None,
        [],
    )


def test_a_load_that_fails_leaves_the_model_as_it_was():
    model = patcher()

    class Broken:
        def calculate_weight(self, *args):
            raise RuntimeError("broken adapter")

    model.add_object_patch("setting", 2)
    model.model.setting = 1
    model.add_patches({"0.weight": Broken()})
    with pytest.raises(RuntimeError, match="broken adapter"):
        load(model)
    assert model.model.setting == 1
    assert torch.equal(model.model[0].weight, torch.ones(2, 2))
