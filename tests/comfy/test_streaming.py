"""Weights that do not fit come while their layer computes: the same results, in the planned memory."""

import gc

import pytest
import torch

from comfy import host_memory
from comfy import model_management as mm
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from comfy.streaming import Streamer
from tests.fakes import accounting_device
from tests.fakes.accounting_module import journal, memory, present

accounting_device.register()
DEVICE, CPU = accounting_device.DEVICE, torch.device("cpu")
WIDTH, LAYERS = 256, 8
LAYER_BYTES = 4 * (WIDTH * WIDTH + WIDTH)
TAKEN = [0]


class Network(torch.nn.Module):
    """Layers in a row, with a weight and a buffer that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.shift = torch.nn.Parameter(torch.empty(WIDTH))
        self.register_buffer("scale", torch.ones(1))
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=WIDTH**-0.5, generator=generator)
        self.requires_grad_(False)
        self.fails_at = None

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            if number == self.fails_at:
                raise RuntimeError("on purpose")
            x = torch.tanh(layer(x)) * self.scale + self.shift
        return x


@pytest.fixture(autouse=True)
def device(monkeypatch):
    for name in ("cpu", "gpu_only", "highvram", "lowvram", "novram"):
        monkeypatch.setattr(args, name, False)
    monkeypatch.setattr(mm, "EXTRA_RESERVED_VRAM", 0, raising=False)
    monkeypatch.setattr(mm, "minimum_inference_memory", lambda: 0)
    mm._choose_cpu_state.cache_clear()
    mm.current_loaded_models.clear()
    gc.collect()  # a streamed model and its hooks refer to each other
    TAKEN[0] = memory.active
    with present():
        yield
    mm.current_loaded_models.clear()
    mm._choose_cpu_state.cache_clear()


def limited_to(room: int):
    """The device has so much memory, besides what tests before may still hold."""
    return accounting_device.limited_to(TAKEN[0] + room)


def patcher(seed=0) -> ModelPatcher:
    return ModelPatcher(Network(), DEVICE, CPU)


X = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))


def result(model: ModelPatcher) -> torch.Tensor:
    return model.model(X.to(DEVICE)).cpu()


def place(model: ModelPatcher, room: int, **options) -> None:
    """Load the model when the device has so much memory."""
    with limited_to(room):
        mm.load_models_gpu([model], **options)


def change(layer: int, seed: int = 5):
    """A patch of one weight."""
    generator = torch.Generator().manual_seed(seed)
    return {f"layers.{layer}.weight": (torch.randn(WIDTH, WIDTH, generator=generator) * 0.1,)}


def on_the_cpu(*patches) -> torch.Tensor:
    """What the network says when all of it is in host memory."""
    model = ModelPatcher(Network(), CPU, CPU)
    for patch in patches:
        model.add_patches(patch)
    mm.load_models_gpu([model])
    return model.model(X)


@pytest.mark.slow
@pytest.mark.parametrize("layers_of_room", [0.5, 3, 5, 6.5, 7.9])
def test_a_model_that_does_not_fit_gives_the_same_result_within_the_room(layers_of_room):
    model, expected = patcher(), on_the_cpu()
    room = int(layers_of_room * LAYER_BYTES)
    place(model, room)
    assert 0 < model.loaded_size() <= room and model.loaded_size() < model.model_size()
    assert model.model.model_lowvram
    needed = model.loaded_size() + 2 * LAYER_BYTES + 16 * X.nbytes  # a layer computes, another is on its way
    with limited_to(needed):
        assert torch.equal(result(model), expected)
        assert torch.equal(result(model), expected)


def test_a_model_that_fits_is_not_streamed():
    model = patcher()
    place(model, 2 * model.model_size())
    assert model.loaded_size() == model.model_size() and not model.model.model_lowvram
    with accounting_device.counting() as moved:
        result(model)
    assert moved.to_device.bytes == X.nbytes


def test_only_what_is_not_resident_is_copied():
    model = patcher()
    place(model, 6 * LAYER_BYTES + 8 * WIDTH)
    with accounting_device.counting() as moved:
        result(model)
    streamed = model.model_size() - model.loaded_size()
    assert streamed == 4 * LAYER_BYTES  # 6 - 2 for those on their way stay
    assert moved.to_device.bytes == streamed + X.nbytes
    with accounting_device.counting() as moved:  # at its end the first of the next run is on its way
        result(model)
    assert moved.to_device.bytes == streamed + LAYER_BYTES + X.nbytes
    assert moved.to_host.bytes == X.nbytes  # the result


@pytest.mark.parametrize(("option", "resident"), [("lowvram", 0.5), ("novram", 0.0)])
def test_less_may_be_asked_for_than_fits(monkeypatch, option, resident):
    monkeypatch.setattr(args, option, True)
    model = patcher()
    place(model, 10 * model.model_size())
    assert model.loaded_size() <= resident * model.model_size() + 2 * 4 * WIDTH
    assert torch.equal(result(model), on_the_cpu())


def test_the_next_layer_is_on_its_way_before_one_computes():
    model = patcher()
    place(model, LAYER_BYTES)
    result(model)
    streamer, started = model.model.streamer, []
    fetch, layers = streamer._fetch, list(model.model.layers)
    streamer._fetch = lambda layer: (started.append(layers.index(layer)), fetch(layer))[1]
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: started.append(f"computed {number}"))
    result(model)
    for number in range(LAYERS - 1):
        assert started.index(number + 1) < started.index(f"computed {number}")


@pytest.mark.parametrize(("given", "ahead"), [(None, 1), (3, 3), ("never", 0)])
def test_so_many_layers_are_on_their_way_as_asked_for(monkeypatch, given, ahead):
    monkeypatch.setattr(args, "disable_async_offload", given == "never")
    monkeypatch.setattr(args, "async_offload", None if given == "never" else given)
    model, most = patcher(), []
    place(model, LAYER_BYTES)
    result(model)
    model.model.layers[2].register_forward_hook(lambda *_: most.append(len(model.model.streamer._coming)))
    assert torch.equal(result(model), on_the_cpu())
    assert most == [ahead]


def test_of_small_layers_more_are_on_their_way():
    large, small = torch.nn.Linear(8, 64), [torch.nn.Linear(8, 8) for _ in range(12)]
    network = torch.nn.Sequential(*small, large)
    streamer, coming = Streamer(list(network), DEVICE), []
    first, *others = small
    first.register_forward_hook(lambda *_: coming.append([layer in streamer._coming for layer in others]))
    x = torch.ones(1, 8, device=DEVICE)
    assert torch.equal(network(x), network(x))
    assert coming[-1] == [True] * 8 + [False] * 3  # 64 * 8 + 64 numbers are the large one, 8 * 8 + 8 a small


def test_a_copy_waits_for_earlier_work_and_computing_waits_for_the_copy():
    model = patcher()
    place(model, LAYER_BYTES)
    result(model)
    journal.clear()
    result(model)
    kinds = [entry[0] for entry in journal]
    assert kinds.count("wait_stream") == kinds.count("record") == LAYERS + 1  # and the first of the next run
    recorded = [entry[1] for entry in journal if entry[0] == "record"]
    awaited = [entry[2] for entry in journal if entry[0] == "wait_event"]
    assert len(set(awaited)) == LAYERS
    assert awaited == recorded[:LAYERS]


def test_patches_count_on_layers_of_both_kinds_and_the_base_stays_clean():
    base = patcher()
    clone = base.clone()
    room = 9 * LAYER_BYTES + 8 * WIDTH  # to apply a patch takes memory for some layers, as a run does
    patches = [change(layer, seed=layer) for layer in range(LAYERS)]
    for patch in patches:
        clone.add_patches(patch)
    place(clone, room, memory_required=3 * LAYER_BYTES)
    assert 0 < clone.loaded_size() < clone.model_size() and clone.lowvram_patch_counter() == 4
    assert torch.equal(result(clone), on_the_cpu(*patches))
    place(base, room, memory_required=3 * LAYER_BYTES)
    assert torch.equal(result(base), on_the_cpu())
    place(clone, 100 * LAYER_BYTES)
    assert torch.equal(result(clone), on_the_cpu(*patches))
    mm.unload_all_models()
    weights = base.model.state_dict()
    clean = Network().state_dict()
    assert all(torch.equal(weights[key], clean[key]) and weights[key].device == CPU for key in clean)


def test_a_resident_model_gives_way_and_comes_back():
    model, expected = patcher(), on_the_cpu()
    model.add_patches(change(3))
    expected = on_the_cpu(change(3))
    place(model, 100 * LAYER_BYTES)
    freed = model.partially_unload(CPU, 3 * LAYER_BYTES)
    assert freed >= 3 * LAYER_BYTES and model.loaded_size() == model.model_size() - freed
    assert torch.equal(result(model), expected)
    assert model.partially_load(DEVICE, 1e30) == freed
    assert not model.model.model_lowvram and torch.equal(result(model), expected)
    assert model.partially_unload(CPU, 0) == 0


def test_a_larger_run_takes_memory_from_weights_and_gives_it_back():
    model = patcher()
    place(model, 9 * LAYER_BYTES)
    assert model.loaded_size() == model.model_size()
    place(model, 9 * LAYER_BYTES, memory_required=4 * LAYER_BYTES, minimum_memory_required=4 * LAYER_BYTES)
    assert model.loaded_size() <= 5 * LAYER_BYTES
    assert torch.equal(result(model), on_the_cpu())
    place(model, 9 * LAYER_BYTES)
    assert model.loaded_size() == model.model_size()


def test_a_layer_that_fails_leaves_its_weights_in_host_memory():
    model = patcher()
    place(model, LAYER_BYTES)
    model.model.layers[2].forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        result(model)
    del model.model.layers[2].forward
    assert {tensor.device.type for tensor in model.model.layers[2].parameters()} == {"cpu"}
    assert torch.equal(result(model), on_the_cpu())


def test_a_run_that_ends_early_or_takes_another_way_is_right_the_next_time():
    model = patcher()
    place(model, LAYER_BYTES)
    result(model)
    model.model.fails_at = 3
    with pytest.raises(RuntimeError, match="on purpose"):
        result(model)
    model.model.fails_at = None
    assert torch.equal(result(model), on_the_cpu())
    model.model.layers = torch.nn.ModuleList(reversed(model.model.layers))
    result(model)
    model.model.layers = torch.nn.ModuleList(reversed(model.model.layers))
    assert torch.equal(result(model), on_the_cpu())


def test_a_closed_streamer_leaves_plain_layers():
    layer = torch.nn.Linear(4, 4)
    streamer = Streamer([layer], DEVICE)
    layer(torch.ones(1, 4, device=DEVICE))
    assert streamer.bytes_copied == 80
    streamer.close()
    x = torch.ones(1, 4)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert not layer._forward_hooks and not layer._forward_pre_hooks


def test_a_device_that_is_fuller_than_it_says_gets_less(monkeypatch, caplog):
    model = patcher()
    monkeypatch.setattr(mm, "get_free_memory", lambda device: 100 * LAYER_BYTES)
    place(model, 7 * LAYER_BYTES)
    assert 0 < model.loaded_size() < model.model_size() // 2 and "less of the model will stay" in caplog.text
    assert torch.equal(result(model), on_the_cpu())
    whole = patcher()
    with pytest.raises(torch.OutOfMemoryError):
        place(whole, 7 * LAYER_BYTES, force_full_load=True)
    assert whole.loaded_size() == 0 and {tensor.device for tensor in whole.model.parameters()} == {CPU}


def test_weights_that_a_parent_reads_are_not_streamed():
    attention = torch.nn.MultiheadAttention(WIDTH, 4, batch_first=True).requires_grad_(False)
    model = ModelPatcher(torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), attention), DEVICE, CPU)
    model.load(DEVICE, lowvram_model_memory=1)
    assert attention.out_proj.weight.device == DEVICE
    assert model.model[0].weight.device == CPU


def test_the_first_to_come_to_a_full_device_leaves_and_returns_without_a_copy_from_it():
    first, second = patcher(), patcher()
    place(first, 9 * LAYER_BYTES)
    with accounting_device.counting() as moved:
        place(second, 9 * LAYER_BYTES)
    assert mm.loaded_models() == [second] and first.loaded_size() == 0
    assert moved.to_host.bytes == 0  # host memory has it already
    place(first, 9 * LAYER_BYTES)
    assert torch.equal(result(first), on_the_cpu())


def test_pages_are_locked_where_that_helps(monkeypatch):
    monkeypatch.setattr(host_memory, "locks_pages", lambda device: device.type != "cpu")
    model = patcher()
    place(model, 100 * LAYER_BYTES)
    with accounting_device.counting() as moved:
        mm.unload_all_models()
    assert moved.to_host.bytes == model.model_size()
    assert host_memory.locked_bytes() >= model.model_size()
    place(model, 100 * LAYER_BYTES)
    assert torch.equal(result(model), on_the_cpu())
    del model
    mm.cleanup_models_gc()


def test_what_must_be_whole_and_does_not_fit_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(args, "gpu_only", True)
    model = patcher()
    with pytest.raises(MemoryError, match=r"Network .* must be on .* as a whole, and 0.00 GB are missing"):
        place(model, LAYER_BYTES)
    assert model.loaded_size() == 0


def test_with_gpu_only_a_model_that_is_not_pinned_goes_to_host_memory_when_the_device_is_full(monkeypatch):
    monkeypatch.setattr(args, "gpu_only", True)
    first, second = (ModelPatcher(Network(), DEVICE, DEVICE) for _ in range(2))
    place(first, 9 * LAYER_BYTES)
    place(second, 9 * LAYER_BYTES)
    assert {tensor.device for tensor in first.model.parameters()} == {CPU}
    assert first.loaded_size() == 0 and second.loaded_size() == second.model_size()
    place(first, 9 * LAYER_BYTES)
    assert torch.equal(result(first), on_the_cpu())


def test_a_pinned_model_stays_and_the_other_is_streamed_beside_it():
    pinned, other = patcher(), patcher()
    place(pinned, 100 * LAYER_BYTES)
    pinned.model.is_pinned = True
    weights = [tensor.data_ptr() for tensor in pinned.model.parameters()]
    place(other, 13 * LAYER_BYTES)
    assert pinned.loaded_size() == pinned.model_size() and other.loaded_size() < other.model_size()
    assert weights == [tensor.data_ptr() for tensor in pinned.model.parameters()]
    assert torch.equal(result(other), on_the_cpu()) and torch.equal(result(pinned), on_the_cpu())


def test_a_pinned_model_is_switched_between_patches_without_a_copy():
    base = patcher()
    base.model.is_pinned = True
    clones = [base.clone() for _ in range(3)]
    for seed, clone in enumerate(clones[1:]):
        for layer in range(LAYERS):
            clone.add_patches(change(layer, seed=10 * seed + layer))
    room = 40 * LAYER_BYTES
    results = []
    for clone in clones:
        place(clone, room)
        results.append(result(clone))
    with accounting_device.counting() as moved:
        for number in (0, 1, 2, 1, 0, 2):
            place(clones[number], room)
    assert moved.to_device.bytes == moved.to_host.bytes == moved.on_device.bytes == 0
    for number in (2, 0, 1):
        place(clones[number], room)
        assert torch.equal(result(clones[number]), results[number])


def test_a_pinned_model_gives_originals_to_host_memory_where_both_do_not_fit():
    base = patcher()
    base.model.is_pinned = True
    clone = base.clone()
    for layer in range(LAYERS):
        clone.add_patches(change(layer, seed=layer))
    place(clone, 15 * LAYER_BYTES)
    assert torch.equal(result(clone), on_the_cpu(*(change(layer, seed=layer) for layer in range(LAYERS))))
    place(base, 15 * LAYER_BYTES)
    assert torch.equal(result(base), on_the_cpu())


def test_a_large_tensor_comes_by_threads_and_arrives_whole(monkeypatch):
    monkeypatch.setattr(host_memory, "BUFFER_BYTES", 1000 * 4)
    monkeypatch.setattr(host_memory, "LEAST_BYTES_FOR_THREADS", 8000)
    weights = {str(size): torch.randn(size) for size in (10, 2001, 5000, 100_001)}
    weights["half"] = torch.randn(300, 77).half()
    weights["turned"] = torch.randn(300, 77).t()
    arrived = host_memory.to_device(weights, DEVICE)
    assert arrived.keys() == weights.keys()
    for name, tensor in weights.items():
        assert arrived[name].device == DEVICE and torch.equal(arrived[name].cpu(), tensor), name
