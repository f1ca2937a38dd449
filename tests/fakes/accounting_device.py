"""A pretended accelerator, `acct:0`: it computes with the CPU's kernels and has a device's rules.

    register()                             once per process; torch then knows the device type `acct`
    with limited_to(64 << 20):             its memory, in bytes; OutOfMemoryError beyond it
        with counting() as moved:
            x = torch.ones(4).to("acct")
        assert moved.to_device.bytes == 16

A tensor of the device is an `AcctTensor` around a CPU tensor, which nobody else sees. What CUDA refuses is
refused: tensors of two devices in one operation (numbers, which are CPU tensors without dimensions, are
welcome, and CPU tensors may index), CPU generators, `numpy()`. Random numbers without a generator, and those
of a generator of the device, are not those that the CPU draws from the same seed.

The device module is `torch.acct` (see `accounting_module`). Until `register` is called nothing in torch
changes; after it the device is available to torch only inside `accounting_module.present()`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch

from tests.fakes import accounting_module
from tests.fakes.accounting_module import DEVICE, NAME, Lease, Moved, counts, lease_for, memory

__all__ = ["DEVICE", "NAME", "AcctTensor", "Moved", "counting", "limited_to", "register"]


class AcctTensor(torch.Tensor):
    """A tensor of the device: `raw` is its content, `lease` the device memory that it stands in."""

    raw: torch.Tensor
    lease: Lease
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> AcctTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            layout=raw.layout, device=DEVICE,
        )  # fmt: skip

    def __init__(self, raw: torch.Tensor) -> None:
        self.raw = raw
        self.lease = lease_for(raw)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    @property
    def data(self):
        return wrapped(self.raw.detach())

    @data.setter
    def data(self, other: torch.Tensor) -> None:
        if not isinstance(other, AcctTensor):
            raise RuntimeError(f"the data of a tensor on {DEVICE} cannot come to be on {other.device} here")
        self.raw, self.lease = other.raw, other.lease
        _follow(self)

    def data_ptr(self) -> int:
        return self.raw.data_ptr()

    def untyped_storage(self):
        return self.raw.untyped_storage()

    def numpy(self, **_options):
        raise TypeError(
            f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )

    __array__ = numpy

    def tolist(self):
        return self.cpu().tolist()

    def __format__(self, format_spec: str) -> str:
        return format(self.item(), format_spec) if self.dim() == 0 else super().__format__(format_spec)

    def __repr__(self, **_options) -> str:
        return f"{self.raw!r} on {DEVICE}"

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            memo[id(self)] = _restored(
                copy.deepcopy(self.raw, memo), self.requires_grad, isinstance(self, torch.nn.Parameter)
            )
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        return _restored, (self.raw, self.requires_grad, isinstance(self, torch.nn.Parameter))


def _restored(raw: torch.Tensor, requires_grad: bool, is_parameter: bool) -> torch.Tensor:
    if is_parameter:
        return torch.nn.Parameter(wrapped(raw), requires_grad)
    return wrapped(raw).requires_grad_(requires_grad)


def wrapped(raw: torch.Tensor) -> AcctTensor:
    """`raw` as a tensor of the device. Raises torch.OutOfMemoryError."""
    raw = raw.resolve_conj() if raw.is_conj() else raw
    if raw.is_inference() == torch.is_inference_mode_enabled():
        return AcctTensor(raw)
    with torch.inference_mode(raw.is_inference()):  # a view is of the kind that its base is
        return AcctTensor(raw)


def _follow(tensor: AcctTensor) -> None:
    """Make the shape that torch sees that of the content, after an operation that changes it in place."""
    raw = tensor.raw
    if tensor.lease.is_of(raw):
        tensor.lease.resize(raw.untyped_storage().nbytes())
    else:
        tensor.lease = lease_for(raw)
    if (tensor.shape, tensor.stride(), tensor.dtype) != (raw.shape, raw.stride(), raw.dtype):
        torch.Tensor.data.__set__(tensor, wrapped(raw))


# --- operations ---------------------------------------------------------------------------------------

# Those that take CPU tensors as an index, as their second argument.
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
# Those that refuse even a number that is a CPU tensor.
_STRICT = {
    "cat", "stack", "concat", "searchsorted", "bucketize", "gather", "scatter", "index_select", "embedding",
    "take", "index_add_", "index_copy_", "scatter_", "scatter_add_",
}  # fmt: skip
# Those that are taken apart always: the copies in them are counted, or there is none.
_MAY_COPY = {"to", "contiguous", "reshape"}
# Those that wait for the device, as their answer is a number.
_READS = {"item", "_local_scalar_dense", "is_nonzero", "equal"}
_DRAWN_BY_OTHERS = "Expected a '{}' device type for generator but found '{}'"


@dataclass(frozen=True)
class Kind:
    """What has to be known of an operation."""

    name: str
    is_composed: bool  # of others, by torch, for every device
    is_random: bool
    written: tuple[str, ...]  # arguments that are changed, by name
    positions: dict[str, int]

    def written_tensors(self, args, kwargs) -> list:
        found = []
        for name in self.written:
            place = self.positions[name]
            value = args[place] if place < len(args) else kwargs.get(name)
            found += value if isinstance(value, (list, tuple)) else [value]
        return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]


@cache
def _kind_of(func) -> Kind:
    arguments = func._schema.arguments
    written = tuple(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)
    return Kind(
        name=func.overloadpacket.__name__,
        is_composed=func._can_decompose(),
        is_random=torch.Tag.nondeterministic_seeded in func.tags,
        written=written,
        positions={argument.name: number for number, argument in enumerate(arguments)},
    )


def run(func, args, kwargs):
    """One operation on tensors of the device. Raises RuntimeError where CUDA would."""
    kind = _kind_of(func)
    special = _SPECIAL.get(kind.name)
    if special is not None:
        return special(func, args, kwargs)
    tensors: list[torch.Tensor] = []
    raw_args = _unwrap(args, tensors)
    raw_kwargs = {name: _unwrap(value, tensors) for name, value in kwargs.items()}
    is_mixed = any(not isinstance(tensor, AcctTensor) for tensor in tensors)
    if kind.is_composed and (is_mixed or kind.name in _MAY_COPY or kwargs.get("device") is not None):
        return func.decompose(*args, **kwargs)
    if is_mixed:
        _refuse_other_devices(kind, args, kwargs, tensors)
    if kind.name in _READS:
        counts.read()
    stays = _place(raw_kwargs)
    with _randomness(raw_kwargs) if kind.is_random else contextlib.nullcontext():
        out = func(*raw_args, **raw_kwargs)
    if kind.written:
        for tensor in kind.written_tensors(args, kwargs):
            _follow(tensor)
    return _wrap(out, tensors) if stays else out


def _unwrap(value, found: list):
    if isinstance(value, torch.Tensor):
        found.append(value)
        return value.raw if isinstance(value, AcctTensor) else value
    if isinstance(value, (list, tuple)):
        return type(value)(_unwrap(part, found) for part in value)
    return value


def _wrap(value, tensors):
    """Results as tensors of the device; what was changed in place stays the tensor that it was."""
    if isinstance(value, torch.Tensor):
        for tensor in tensors:
            if isinstance(tensor, AcctTensor) and tensor.raw is value:
                return tensor
        return wrapped(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_wrap(part, tensors) for part in value)
    return value


def _refuse_other_devices(kind: Kind, args, kwargs, tensors) -> None:
    welcome: list = []
    if kind.name in _INDEXED:
        _unwrap(args[1], welcome)
    written = kind.written_tensors(args, kwargs)
    foreign = [tensor for tensor in tensors if not isinstance(tensor, AcctTensor)]
    for tensor in foreign:
        is_number = tensor.device.type == "cpu" and tensor.dim() == 0 and kind.name not in _STRICT
        is_index = any(tensor is index for index in welcome) and isinstance(args[0], AcctTensor)
        if any(tensor is target for target in written) or not (is_number or is_index):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{DEVICE} and {tensor.device}! (arguments of {kind.name}, shape {tuple(tensor.shape)})"
            )


def _place(raw_kwargs: dict) -> bool:
    """Let the CPU compute what was asked of the device; False where the result is for the CPU."""
    raw_kwargs.pop("pin_memory", None)
    device = raw_kwargs.get("device")
    if device is None:
        return True
    raw_kwargs["device"] = torch.device("cpu")
    return device.type == NAME


@contextlib.contextmanager
def _randomness(raw_kwargs: dict) -> Iterator[None]:
    given = raw_kwargs.get("generator")
    if given is not None and not accounting_module.is_ours(given):
        raise RuntimeError(_DRAWN_BY_OTHERS.format(NAME, given.device.type))
    if given is not None:
        yield
        return
    state = torch.default_generator.get_state()
    torch.default_generator.set_state(accounting_module.default_generator().get_state())
    try:
        yield
    finally:
        accounting_module.default_generator().set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(state)


# --- operations between devices -----------------------------------------------------------------------


def _to_copy(func, args, kwargs):
    source, options = args[0], dict(kwargs)
    target = options.pop("device", None) or source.device
    options.pop("non_blocking", None)
    options.pop("pin_memory", None)
    raw = func(source.raw if isinstance(source, AcctTensor) else source, **options)
    counts.add(source.device, target, raw.nbytes)
    return wrapped(raw) if target.type == NAME else raw


def _copy(func, args, kwargs):
    target, source = args[:2]
    raw = [tensor.raw if isinstance(tensor, AcctTensor) else tensor for tensor in (target, source)]
    counts.add(source.device, target.device, target.numel() * target.element_size())
    raw[0].copy_(raw[1])
    return target


def _clone(func, args, kwargs):
    counts.add(DEVICE, DEVICE, args[0].nbytes)
    return wrapped(func(args[0].raw, **kwargs))


_SPECIAL: dict[str, Callable] = {
    "_to_copy": _to_copy,
    "copy_": _copy,
    "clone": _clone,
    "is_pinned": lambda func, args, kwargs: False,
    "record_stream": lambda func, args, kwargs: None,
}


# --- the device ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def limited_to(capacity: int) -> Iterator[None]:
    """The device has this many bytes of memory."""
    before, memory.capacity = memory.capacity, capacity
    try:
        yield
    finally:
        memory.capacity = before


@contextlib.contextmanager
def counting() -> Iterator[Moved]:
    """What is copied between the devices inside; filled in as it happens."""
    with counts.noting() as moved:
        yield moved


@cache
def register() -> None:
    """Make the device known to torch, for the rest of the process."""
    backend = torch.utils.backend_registration
    backend._setup_privateuseone_for_python_backend(
        NAME, backend_module=accounting_module.Module(NAME), hook=accounting_module.hook()
    )
    every, core = (torch.library.Library(name, "IMPL") for name in ("_", "aten"))
    every.fallback(lambda func, *args, **kwargs: run(func, args, kwargs), dispatch_key="PrivateUse1")
    every.fallback(torch.library.fallthrough_kernel, dispatch_key="AutocastPrivateUse1")
    # torch.tensor() copies where the fallback cannot be reached.
    core.impl("copy_", lambda *args, **kwargs: _copy(None, args, kwargs), "PrivateUse1")
    _kept.extend((every, core))  # kernels are there as long as their library


_kept: list = []
