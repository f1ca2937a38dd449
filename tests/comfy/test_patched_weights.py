"""Patched weights are kept for the next time, for the same patches only, and go when memory is wanted."""

import gc

import pytest
import torch

from comfy import model_management as mm
from comfy import patched_weights
from comfy.lora import load_lora
from comfy.model_patcher import ModelPatcher
from comfy.ram import Ram

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_kept():
    patched_weights._kept.clear()
    mm.current_loaded_models.clear()
    yield
    patched_weights._kept.clear()
    mm.current_loaded_models.clear()


@pytest.fixture
def base() -> ModelPatcher:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)).requires_grad_(False)
    return ModelPatcher(layers, CPU, CPU)


def lora(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layer.lora_{side}.weight": torch.randn(*shape, generator=generator)
            for side, shape in (("up", (8, 2)), ("down", (2, 8)))}  # fmt: skip


def with_lora(base: ModelPatcher, file, strength: float = 1.0) -> ModelPatcher:
    """A clone with the patches of a file, made anew as a loader node does that runs again."""
    clone = base.clone()
    clone.add_patches(load_lora(file, {"layer": "0.weight"}), strength)
    return clone


def weight(model: ModelPatcher) -> torch.Tensor:
    mm.load_models_gpu([model])
    return model.model[0].weight


@pytest.fixture
def computed(monkeypatch):
    """The weights that were computed from patches."""
    names = []
    compute = ModelPatcher.patch_weight_to_device

    def noted(self, key, *rest):
        names.append(key)
        return compute(self, key, *rest)

    monkeypatch.setattr(ModelPatcher, "patch_weight_to_device", noted)
    return names


def test_going_back_to_a_lora_puts_the_same_tensors_back(base, computed):
    first, second = with_lora(base, lora(1)), with_lora(base, lora(2))
    before, clean = weight(first), base.model[1].weight
    value, pointer = before.clone(), before.data_ptr()
    weight(second), weight(base)
    assert len(computed) == 2
    assert weight(first).data_ptr() == pointer and torch.equal(weight(first), value)
    assert len(computed) == 2
    assert base.model[1].weight is clean


def test_what_is_computed_and_what_is_put_back_is_counted(base):
    before = patched_weights.stats()
    first, second = with_lora(base, lora(1)), with_lora(base, lora(2))
    for model in (first, second, first, base, second):
        weight(model)
    now = patched_weights.stats()
    assert {name: now[name] - before[name] for name in ("computed", "put_back")} == {
        "computed": 2, "put_back": 2}
    assert now["bytes_kept"] == patched_weights.bytes_kept() > 0


def test_the_base_is_clean_between(base):
    clean = base.model[0].weight.clone()
    for _ in range(2):
        weight(with_lora(base, lora(1)))
        assert torch.equal(weight(base), clean)
    mm.unload_all_models()
    assert torch.equal(base.model[0].weight, clean)


def test_a_lora_that_is_loaded_once_more_is_recognised(base, computed):
    file = lora(1)
    before = weight(with_lora(base, file, 0.5))
    again = with_lora(base, file, 0.5)
    assert weight(again) is before and len(computed) == 1  # it was loaded
    weight(base)
    assert weight(with_lora(base, file, 0.5)).data_ptr() == before.data_ptr() and len(computed) == 1


def test_weights_of_another_model_are_recognised_after_that_one_was_patched(base, computed):
    torch.manual_seed(1)
    layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)).requires_grad_(False)
    other = ModelPatcher(layers, CPU, CPU)

    def merged():
        clone = base.clone()
        clone.add_patches(other.get_key_patches(), 0.5, 0.5)
        return weight(clone)

    file = lora(2)
    first = merged()
    of_other = weight(with_lora(other, file))
    weight(other)
    weight(base)
    computed.clear()
    assert merged() is first and computed == []
    assert weight(with_lora(other, file)) is of_other and computed == []


@pytest.mark.parametrize("other", ["strength", "file", "more"])
def test_other_patches_are_computed(base, computed, other):
    file = lora(1)
    before = weight(with_lora(base, file, 0.5)).clone()
    changed = {
        "strength": lambda: with_lora(base, file, 0.6),
        "file": lambda: with_lora(base, {key: tensor * 2 for key, tensor in file.items()}, 0.5),
        "more": lambda: with_lora(with_lora(base, file, 0.5), lora(2), 0.5),
    }[other]()
    assert not torch.equal(weight(changed), before) and len(computed) == 2


def test_tensors_of_kept_patches_live_as_long_so_that_no_other_takes_their_identity(base):
    for seed in range(30):
        clone = with_lora(base, lora(seed))
        expected = base.model[1].weight  # untouched
        weight(clone)
        up, down = lora(seed).values()
        clean = base.clone()
        got = weight(clone).clone()
        assert torch.allclose(got - weight(clean), up @ down, atol=1e-5), seed
        assert base.model[1].weight is expected
        del clone


def test_another_set_of_patches_says_nothing_of_what_it_takes_to_bring_the_weights_back(base):
    weight(base)
    base.model.seconds_to_place = 7.0
    weight(with_lora(base, lora(1)))
    weight(base)
    assert base.model.seconds_to_place == 7.0


def test_what_is_asked_for_by_force_is_computed_again(base, computed):
    clone = with_lora(base, lora(1))
    weight(clone)
    mm.load_models_gpu([clone], force_patch_weights=True)
    assert torch.equal(clone.model[0].weight, weight(with_lora(base, lora(1))))


def test_what_is_kept_goes_with_its_model(base):
    weight(with_lora(base, lora(1)))
    weight(base)
    assert patched_weights.bytes_kept() >= 256
    module = base.model
    del base.model
    mm.current_loaded_models.clear()
    gc.collect()
    patched_weights.release(module)
    assert patched_weights.bytes_kept() == 0


def test_nothing_is_kept_of_a_model_that_is_gone():
    model = ModelPatcher(torch.nn.Sequential(torch.nn.Linear(8, 8)).requires_grad_(False), CPU, CPU)
    weight(with_lora(model, lora(1)))
    weight(model)
    assert patched_weights.bytes_kept()
    del model
    mm.current_loaded_models.clear()
    gc.collect()
    assert patched_weights.bytes_kept() == 0


def test_the_least_recently_used_goes_first_and_freeing_a_device_lets_go_of_all(base):
    for seed in range(3):
        weight(with_lora(base, lora(seed)))
    weight(base)
    oldest, *others = [one.weights["0.weight"].data_ptr() for one in patched_weights._kept.values()]
    patched_weights.release_bytes(1, torch.device("meta"))
    assert len(patched_weights._kept) == 3
    patched_weights.release_bytes(1, CPU)
    assert [one.weights["0.weight"].data_ptr() for one in patched_weights._kept.values()] == others
    mm.unload_all_models()
    assert patched_weights.bytes_kept() == 0


def test_nothing_is_kept_when_the_machine_is_nearly_full(base, monkeypatch):
    monkeypatch.setattr(patched_weights.ram, "read_ram", lambda: Ram(total=1000, available=300))
    weight(with_lora(base, lora(1)))
    weight(base)
    assert patched_weights.bytes_kept() == 0


def test_patches_in_place_are_not_kept(base):
    base.weight_inplace_update = True
    clean = base.model[0].weight.clone()
    weight(with_lora(base, lora(1)))
    assert torch.equal(weight(base), clean) and patched_weights.bytes_kept() == 0
