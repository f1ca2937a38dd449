"""`torch.acct`, the module of the accounting device: memory, counters, generators, streams."""

from __future__ import annotations

import contextlib
import threading
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

NAME = "acct"
DEVICE = torch.device("privateuseone", 0)
LARGE = 1 << 40


def format_bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


# --- memory -------------------------------------------------------------------------------------------


class Memory:
    """Bytes of the device. What was freed is kept, as torch's caching allocators do, until `empty_cache`."""

    def __init__(self) -> None:
        self.capacity = LARGE
        self.active = self.reserved = self.peak = 0
        self._lock = threading.RLock()  # a lease that ends may interrupt one that begins

    def take(self, count: int) -> None:
        """Raises torch.OutOfMemoryError where the device has no room."""
        with self._lock:
            if self.active + count > self.capacity:
                free = self.capacity - self.active
                raise torch.OutOfMemoryError(
                    f"{NAME} out of memory. Tried to allocate {format_bytes(count)}. {NAME}:0 has a total "
                    f"capacity of {format_bytes(self.capacity)} of which {format_bytes(free)} is free."
                )
            self.active += count
            self.reserved = min(max(self.reserved, self.active), self.capacity)
            self.peak = max(self.peak, self.active)

    def give(self, count: int) -> None:
        with self._lock:
            self.active -= count


memory = Memory()


class Lease:
    """The device memory of one storage; it ends with the last tensor that stands in the storage."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self.count = 0
        self.storage = storage
        self._give = memory.give  # also when the interpreter ends and takes the module apart
        self.resize(storage.nbytes())

    def is_of(self, raw: torch.Tensor) -> bool:
        return raw.untyped_storage()._cdata == self.storage._cdata

    def resize(self, count: int) -> None:
        """Raises torch.OutOfMemoryError where the device has no room."""
        if count > self.count:
            memory.take(count - self.count)
        elif count < self.count:
            self._give(self.count - count)
        self.count = count

    def __del__(self) -> None:
        self._give(self.count)


_leases: weakref.WeakValueDictionary[int, Lease] = weakref.WeakValueDictionary()


def lease_for(raw: torch.Tensor) -> Lease:
    """The lease of the storage that `raw` stands in; views share it. Raises torch.OutOfMemoryError."""
    storage = raw.untyped_storage()
    lease = _leases.get(storage._cdata)
    if lease is None:
        lease = _leases[storage._cdata] = Lease(storage)
    return lease


# --- copies -------------------------------------------------------------------------------------------


@dataclass
class Way:
    """Copies in one direction."""

    copies: int = 0
    bytes: int = 0


@dataclass
class Moved:
    """What was copied to the device, to the host, within the device; how often a number was waited for."""

    to_device: Way = field(default_factory=Way)
    to_host: Way = field(default_factory=Way)
    on_device: Way = field(default_factory=Way)
    reads: int = 0


class Counts:
    """Adds copies to everyone who counts."""

    def __init__(self) -> None:
        self._counting: list[Moved] = []

    def add(self, source: torch.device, target: torch.device, count: int) -> None:
        ways = {(False, True): "to_device", (True, False): "to_host", (True, True): "on_device"}
        name = ways.get((source.type == NAME, target.type == NAME))
        if name and len(streams) > 1:
            journal.append((name, streams[-1], count))
        for moved in self._counting if name else ():
            way = getattr(moved, name)
            way.copies += 1
            way.bytes += count

    def read(self) -> None:
        for moved in self._counting:
            moved.reads += 1

    @contextlib.contextmanager
    def noting(self) -> Iterator[Moved]:
        moved = Moved()
        self._counting.append(moved)
        try:
            yield moved
        finally:
            self._counting[:] = [other for other in self._counting if other is not moved]


counts = Counts()


# --- random numbers -----------------------------------------------------------------------------------


class _KnowsTheOthers(type(torch.Generator)):
    """Generators of the CPU are instances of the class that stands in the place of torch's."""

    def __instancecheck__(cls, instance) -> bool:
        return type.__instancecheck__(_cpu_generator, instance)


_cpu_generator = torch.Generator
# A CPU generator draws by the lower half of its seed. The upper half says that it belongs to the device.
_MARK = 0xACC7 << 32
_OTHER_NUMBERS = 0x5DEECE66


class Generator(_cpu_generator, metaclass=_KnowsTheOthers):
    """A generator of the device; for other devices torch's own. It draws other numbers than the CPU's."""

    def __new__(cls, device="cpu"):
        if torch.device(device).type != NAME:
            return _cpu_generator(device)
        return super().__new__(cls, "cpu")

    def __init__(self, device="cpu") -> None:
        self.manual_seed(0)

    @property
    def device(self) -> torch.device:
        return DEVICE

    def manual_seed(self, seed: int):
        super().manual_seed(_MARK | ((seed ^ _OTHER_NUMBERS) & 0xFFFF_FFFF))
        return self


def is_ours(generator) -> bool:
    return generator.initial_seed() >> 32 == _MARK >> 32


_default: list[Generator] = []


def default_generator() -> Generator:
    """What draws where no generator is named."""
    if not _default:
        _default.append(Generator(NAME))
    return _default[0]


@contextlib.contextmanager
def generators_of_the_device() -> Iterator[None]:
    """Inside, `torch.Generator("acct")` is possible."""
    torch.Generator = Generator
    try:
        yield
    finally:
        torch.Generator = _cpu_generator


# --- streams ------------------------------------------------------------------------------------------


class Stream:
    """Work is done at once; what would have been ordered is written into `journal`, copies as well."""

    def __init__(self, device=None, priority=0, **_options) -> None:
        self.device, self.priority = DEVICE, priority

    def wait_stream(self, other) -> None:
        journal.append(("wait_stream", self, other))

    def wait_event(self, event) -> None:
        journal.append(("wait_event", self, event))

    def record_event(self, event=None):
        event = Event() if event is None else event
        event.record(self)
        return event

    def synchronize(self) -> None:
        journal.append(("synchronize", self))

    def query(self) -> bool:
        return True

    def __enter__(self):
        streams.append(self)
        return self

    def __exit__(self, *_exception) -> None:
        streams.pop()


class Event:
    """A point in a stream."""

    def __init__(self, enable_timing=False, blocking=False, **_options) -> None:
        self.device = DEVICE

    def record(self, stream=None) -> None:
        journal.append(("record", self, stream or streams[-1]))

    def wait(self, stream=None) -> None:
        journal.append(("wait_event", stream or streams[-1], self))

    def synchronize(self) -> None:
        journal.append(("synchronize", self))

    def query(self) -> bool:
        return True

    def elapsed_time(self, _end) -> float:
        return 0.0


journal: list[tuple] = []
streams: list[Stream] = [Stream()]


# --- the module ---------------------------------------------------------------------------------------

_present = [False]


@contextlib.contextmanager
def present() -> Iterator[None]:
    """Inside, torch is told that the device is there."""
    before, _present[0] = _present[0], True
    try:
        with generators_of_the_device():
            yield
    finally:
        _present[0] = before
        journal.clear()


def hook():
    """What torch asks about the device."""

    class Hook(torch._C._acc.PrivateUse1Hooks):
        def is_available(self) -> bool:
            return _present[0]

        def has_primary_context(self, dev_id) -> bool:
            return True

        def is_built(self) -> bool:
            return True

    return Hook()


class Module(types.ModuleType):
    """`torch.acct`: the functions of `torch.cuda` that do not need CUDA."""

    Stream, Event, Generator = Stream, Event, Generator

    is_available = staticmethod(lambda: _present[0])
    is_initialized = staticmethod(lambda: _present[0])
    _is_in_bad_fork = staticmethod(lambda: False)
    device_count = staticmethod(lambda: int(_present[0]))
    current_device = staticmethod(lambda: 0)
    set_device = staticmethod(lambda device: None)
    device = staticmethod(lambda device: contextlib.nullcontext())
    get_device_name = staticmethod(lambda device=None: "accounting device")
    get_amp_supported_dtype = staticmethod(lambda: [torch.float16, torch.bfloat16])
    is_bf16_supported = staticmethod(lambda: True)

    current_stream = staticmethod(lambda device=None: streams[-1])
    default_stream = staticmethod(lambda device=None: streams[0])
    stream = staticmethod(lambda stream: contextlib.nullcontext() if stream is None else stream)

    memory_allocated = staticmethod(lambda device=None: memory.active)
    max_memory_allocated = staticmethod(lambda device=None: memory.peak)
    memory_reserved = staticmethod(lambda device=None: memory.reserved)
    ipc_collect = staticmethod(lambda: None)

    @staticmethod
    def synchronize(device=None) -> None:
        journal.append(("synchronize", device))

    @staticmethod
    def mem_get_info(device=None) -> tuple[int, int]:
        """(free, total) bytes; what torch keeps is not free."""
        return memory.capacity - memory.reserved, memory.capacity

    @staticmethod
    def memory_stats(device=None) -> dict[str, int]:
        kinds = {"active": memory.active, "allocated": memory.active, "reserved": memory.reserved}
        stats = {f"{kind}_bytes.all.current": count for kind, count in kinds.items()}
        return {**stats, "allocated_bytes.all.peak": memory.peak, "active_bytes.all.peak": memory.peak}

    @staticmethod
    def empty_cache() -> None:
        memory.reserved = memory.active

    @staticmethod
    def reset_peak_memory_stats(device=None) -> None:
        memory.peak = memory.active

    @staticmethod
    def memory_summary(device=None) -> str:
        return f"{NAME}:0: {format_bytes(memory.active)} of {format_bytes(memory.capacity)}"

    @staticmethod
    def manual_seed(seed: int) -> None:
        default_generator().manual_seed(seed)

    manual_seed_all = manual_seed

    @staticmethod
    def get_rng_state(device=None) -> torch.Tensor:
        return default_generator().get_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device=None) -> None:
        default_generator().set_state(state)
