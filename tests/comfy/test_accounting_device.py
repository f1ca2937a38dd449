"""The accounting device has the rules of a real one: what runs here on `acct` runs with `-m gpu` on CUDA."""

import copy
import pickle

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from tests.fakes import accounting_device, accounting_module
from tests.fakes.accelerator import KINDS
from tests.fakes.accounting_device import counting, limited_to

OTHER_DEVICE = "Expected all tensors to be on the same device|should be either on cpu or on the same device"


@pytest.fixture(params=KINDS)
def device(request):
    if request.param == "cuda":
        yield torch.device("cuda", 0)
        return
    accounting_device.register()
    with accounting_module.present():
        yield accounting_device.DEVICE


@pytest.fixture
def acct():
    accounting_device.register()
    with accounting_module.present():
        accounting_module.Module.empty_cache()
        accounting_module.Module.reset_peak_memory_stats()
        yield accounting_device.DEVICE


@pytest.fixture(params=[torch.no_grad, torch.inference_mode], ids=["no_grad", "inference"])
def graded(request):
    """torch takes operations apart before, or after, a tensor of the device sees them."""
    with request.param():
        yield


# --- what it computes ---------------------------------------------------------------------------------

X = torch.linspace(-2, 2, 64).reshape(1, 4, 4, 4)
COMPUTED = {
    "sum of products": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1),
    "convolution": lambda x: F.conv2d(x, x.repeat(3, 1, 1, 1)[:, :, :3, :3], padding=1),
    "group norm": lambda x: F.group_norm(x, 2),
    "layer norm": lambda x: F.layer_norm(x, (4,)),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2.5, mode="bicubic", antialias=True),
    "fft": lambda x: torch.fft.ifftn(torch.fft.fftn(x, dim=(-2, -1)) * 0.5, dim=(-2, -1)).real,
    "complex": lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(32, 2)).conj() * 2),
    "fp16": lambda x: (x.half() @ x.half()).float(),
    "bf16": lambda x: x.bfloat16().softmax(-1).float(),
    "fp8": lambda x: x.to(torch.float8_e4m3fn).to(torch.float16).float(),
    "indexing": lambda x: x[:, [2, 0], 1:, ::2],
    "masks": lambda x: torch.where(x > 0, x, x.new_zeros(())) + x[x > 1].sum(),
    "split and joined": lambda x: torch.cat([part.flip(-1) for part in x.chunk(2, dim=1)], dim=2),
    "views": lambda x: x.movedim(1, -1).unfold(1, 2, 2).reshape(-1, 8).T.contiguous(),
    "as_strided": lambda x: x[:, 1:].as_strided((3, 5), (2, 1), 7),
    "sorted": lambda x: x.flatten().sort(descending=True).values.cumsum(0),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_it_computes_what_the_cpu_computes(name, device, graded):
    computed = COMPUTED[name](X.to(device))
    expected = COMPUTED[name](X)
    assert computed.device == device and computed.shape == expected.shape
    assert computed.dtype == expected.dtype and computed.stride() == expected.stride()
    torch.testing.assert_close(computed.cpu(), expected)


def test_tensors_are_made_on_it(device, graded):
    made = {
        "zeros": torch.zeros(3, device=device), "arange": torch.arange(3, device=device),
        "linspace": torch.linspace(0, 1, 3, device=device), "full": torch.full((3,), 2.0, device=device),
        "tensor": torch.tensor([1.0, 2.0, 3.0], device=device), "eye": torch.eye(3, device=device)[0],
        "new_tensor": torch.ones(1, device=device).new_tensor([1, 2, 3]),
        "like": torch.zeros_like(torch.ones(3), device=device), "randn": torch.randn(3, device=device),
        "randperm": torch.randperm(3, device=device), "randint": torch.randint(0, 2, (3,), device=device),
    }  # fmt: skip
    assert {name: (tensor.device, tuple(tensor.shape)) for name, tensor in made.items()} == dict.fromkeys(
        made, (device, (3,))
    )
    assert made["arange"].tolist() == [0, 1, 2] and made["tensor"].tolist() == [1.0, 2.0, 3.0]
    with device:
        assert torch.ones(2).device == device


# --- what it refuses ----------------------------------------------------------------------------------

REFUSED = {
    "a sum": lambda here, there: there + here,
    "a sum with a number on the device": lambda here, there: here + there.sum(),
    "in place on the CPU": lambda here, there: here.sum().add_(there.sum()),
    "a matrix": lambda here, there: F.linear(there, here),
    "a bias": lambda here, there: F.linear(there, there, here[0]),
    "joining": lambda here, there: torch.cat([there, here]),
    "joining numbers": lambda here, there: torch.stack([there.sum(), here.sum()]),
    "a condition": lambda here, there: torch.where(here > 0, there, there),
    "an index on the device": lambda here, there: here[(there[0] > 0)],
    "values written through an index": lambda here, there: there.index_put_((torch.tensor([0]),), here[:1]),
    "a lookup": lambda here, there: F.embedding(torch.tensor([1]), there),
    "picked lines": lambda here, there: there.index_select(0, torch.tensor([1])),
    "an output": lambda here, there: torch.add(there, 1, out=here),
    "a target in place": lambda here, there: here.mul_(there),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tensors_of_two_devices_do_not_mix(name, device, graded):
    here = torch.ones(3, 3)
    with pytest.raises(RuntimeError, match=OTHER_DEVICE):
        REFUSED[name](here, here.to(device))


def test_numbers_and_indices_may_be_cpu_tensors(device, graded):
    there = torch.arange(6.0).to(device).reshape(2, 3)
    assert (there + torch.tensor(1.0)).device == device
    assert (torch.tensor(2.0, dtype=torch.float64) * there).dtype == torch.float32
    assert there[torch.tensor([1])].tolist() == [[3, 4, 5]]
    assert there[torch.tensor([True, False])].tolist() == [[0, 1, 2]]
    there[torch.tensor([0])] = 9.0
    there[1] = torch.ones(3)  # a copy, which may come from anywhere
    assert there.tolist() == [[9, 9, 9], [1, 1, 1]]
    assert torch.zeros(3).expand_as(there).device.type == "cpu"


def test_it_is_no_array(device):
    with pytest.raises(TypeError, match="Tensor.cpu"):
        torch.ones(2, device=device).numpy()


def test_generators_belong_to_a_device(device, graded):
    with pytest.raises(RuntimeError, match="device type for generator but found"):
        torch.randn(3, device=device, generator=torch.Generator().manual_seed(1))
    drawn = [
        torch.randn(3, device=device, generator=torch.Generator(device).manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0].cpu(), torch.randn(3, generator=torch.Generator().manual_seed(1)))


def test_its_default_generator_is_not_that_of_the_cpu(device):
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    first = torch.randn(4, device=device)
    assert torch.equal(torch.randn(4), expected), "drawing there took nothing from here"
    assert not torch.equal(first.cpu(), expected)
    torch.manual_seed(3)
    assert torch.equal(torch.randn(4, device=device), first)


# --- tensors that change and modules ------------------------------------------------------------------


def test_what_changes_in_place_is_seen_through_every_view(device, graded):
    whole = torch.zeros(2, 3, device=device)
    view = whole[1]
    assert view.add_(1) is view
    whole[:, 0] *= 5
    whole.T[2].copy_(torch.tensor([7.0, 8.0]))
    assert whole.tolist() == [[0, 0, 7], [5, 1, 8]] and view.tolist() == [5, 1, 8]


def test_views_of_tensors_from_before_are_possible_while_no_gradients_are_kept(device):
    before = torch.zeros(2, 3, device=device)
    with torch.inference_mode():
        view = before[:1]
        view += 1
        made = before + 1
    assert not view.is_inference() and made.is_inference() and made[0].is_inference()
    assert before.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_shapes_follow_operations_that_change_them_in_place(device, graded):
    tensor, out = torch.zeros(2, 3, device=device), torch.empty(0, device=device)
    torch.add(tensor, 1, out=out)
    assert out.shape == (2, 3) and out.tolist() == [[1] * 3] * 2
    assert tensor.clone().t_().shape == (3, 2) and tensor.clone().unsqueeze_(0).shape == (1, 2, 3)
    assert tensor.clone().resize_(4, 4).shape == (4, 4)
    assert tensor.clone().set_(torch.ones(5, device=device)).tolist() == [1] * 5


def test_what_needs_no_copy_is_the_same_tensor(device, graded):
    tensor = torch.ones(2, device=device)
    assert tensor.to(device) is tensor and tensor.float() is tensor and tensor.contiguous() is tensor
    assert tensor.to(device, copy=True) is not tensor
    assert tensor.cpu().device.type == "cpu" and tensor.to("cpu", torch.float16).dtype == torch.float16


def test_data_and_detached_tensors_share_the_memory(device):
    parameter = torch.nn.Parameter(torch.zeros(2, device=device), requires_grad=False)
    parameter.data.add_(1)
    parameter.detach()[0] = 5
    assert parameter.tolist() == [5, 1]
    parameter.data = torch.ones(3, device=device)
    assert parameter.shape == (3,) and parameter.tolist() == [1, 1, 1]


def test_modules_go_there_and_back(device):
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).eval()
    x = torch.linspace(0, 1, 8).reshape(2, 4)
    expected = module(x)
    moved = copy.deepcopy(module).to(device)
    assert {tensor.device for tensor in moved.state_dict().values()} == {device}
    assert all(isinstance(weight, torch.nn.Parameter) for weight in moved.parameters())
    torch.testing.assert_close(moved(x.to(device)).cpu(), expected)
    with pytest.raises(RuntimeError, match=OTHER_DEVICE):
        moved(x)
    moved.half()
    assert moved[0].weight.dtype == torch.float16 and moved[0].weight.device == device
    back = moved.float().cpu()
    assert type(back[0].weight) is torch.nn.Parameter
    torch.testing.assert_close(back(x), expected, rtol=1e-2, atol=1e-3)


def test_copies_and_pickles_stay_on_it(device):
    module = torch.nn.Linear(2, 2).to(device)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other.weight.device == device and isinstance(other.weight, torch.nn.Parameter)
        assert torch.equal(other.weight, module.weight)
        other.weight.data.zero_()
        assert module.weight.abs().sum() > 0


def test_autocast_leaves_it_alone_or_casts(device):
    with torch.autocast(device.type, dtype=torch.bfloat16):
        made = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    assert made.tolist() == [[2, 2], [2, 2]]


def test_its_tensors_are_saved_after_a_copy_to_the_host(device, tmp_path):
    safetensors.torch.save_file({"x": X.to(device).cpu()}, tmp_path / "x.safetensors")
    assert torch.equal(safetensors.torch.load_file(tmp_path / "x.safetensors")["x"], X)


# --- memory -------------------------------------------------------------------------------------------


def test_memory_is_what_the_storages_take_and_views_take_none(acct, graded):
    module = torch.get_device_module(acct)
    start = module.memory_allocated()
    whole = torch.zeros(256, 1024, device=acct)
    views = [whole[3], whole.T, whole.reshape(-1), whole.detach(), whole.data, whole.expand(5, 256, 1024)]
    assert module.memory_allocated() - start == whole.nbytes
    half = whole.half()
    assert module.memory_allocated() - start == whole.nbytes * 3 // 2
    del whole, half
    assert module.memory_allocated() - start == 256 * 1024 * 4, "the views hold it"
    del views
    assert module.memory_allocated() == start


def test_a_storage_that_grows_takes_more(acct):
    start = torch.acct.memory_allocated()
    tensor = torch.zeros(0, device=acct)
    tensor.resize_(1000)
    assert torch.acct.memory_allocated() - start == 4000
    tensor.data = torch.zeros(10, device=acct)
    assert torch.acct.memory_allocated() - start == 40


def test_freed_memory_is_kept_until_the_cache_is_emptied(acct):
    start = torch.acct.memory_allocated()
    with limited_to(start + (1 << 20)):
        tensor = torch.zeros(1 << 18, dtype=torch.uint8, device=acct)
        del tensor
        stats = torch.acct.memory_stats(acct)
        assert stats["active_bytes.all.current"] == stats["allocated_bytes.all.current"] == start
        assert stats["reserved_bytes.all.current"] == stats["allocated_bytes.all.peak"] == start + (1 << 18)
        assert torch.acct.mem_get_info(acct) == ((1 << 20) - (1 << 18), start + (1 << 20))
        torch.acct.empty_cache()
        assert torch.acct.mem_get_info(acct)[0] == 1 << 20


def test_more_than_there_is_raises_out_of_memory_and_takes_nothing(acct):
    start = torch.acct.memory_allocated()
    with limited_to(start + 3000):
        held = torch.zeros(500, device=acct)
        with pytest.raises(torch.OutOfMemoryError, match=r"out of memory\. Tried to allocate"):
            held + 1
        assert torch.acct.memory_allocated() - start == 2000
        del held
        assert torch.zeros(700, device=acct).shape == (700,)


# --- copies -------------------------------------------------------------------------------------------


def test_copies_are_counted_by_their_way(acct, graded):
    with counting() as moved:
        there = torch.zeros(10).to(acct)
        there.copy_(torch.zeros(10))
        there[:2] = torch.zeros(2)
        there.half().cpu()
        there.clone()
        float(there[0])
        _ = there + 1
    assert (moved.to_device.copies, moved.to_device.bytes) == (3, 40 + 40 + 8)
    assert (moved.to_host.copies, moved.to_host.bytes) == (1, 20)
    assert (moved.on_device.copies, moved.on_device.bytes) == (2, 20 + 40)
    assert moved.reads == 1
    there.cpu()
    assert moved.to_host.copies == 1, "counting is over"


def test_streams_and_events_write_down_what_they_would_order(acct):
    module = torch.get_device_module("acct")
    stream = module.Stream()
    with module.stream(stream):
        assert module.current_stream() is stream
        torch.zeros(3).to(acct, non_blocking=True)
        event = stream.record_event()
    module.current_stream().wait_event(event)
    module.synchronize()
    assert accounting_module.journal == [
        ("to_device", stream, 12), ("record", event, stream),
        ("wait_event", module.current_stream(), event), ("synchronize", None),
    ]  # fmt: skip


# --- torch around it ----------------------------------------------------------------------------------


def test_torch_sees_it_only_while_it_is_present():
    accounting_device.register()
    assert not torch.accelerator.is_available() and torch.accelerator.device_count() == 0
    with accounting_module.present():
        assert torch.accelerator.current_accelerator(check_available=True).type == "acct"
        assert torch.accelerator.device_count() == 1
    assert torch.accelerator.current_accelerator(check_available=True) is None
    assert type(torch.ones(1)) is torch.Tensor


def test_cpu_generators_are_generators_while_it_is_there(acct):
    generator = torch.Generator().manual_seed(5)
    assert isinstance(generator, torch.Generator) and generator.device.type == "cpu"
    assert isinstance(torch.default_generator, torch.Generator)
