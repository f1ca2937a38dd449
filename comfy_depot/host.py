"""The port through which the depot speaks to whatever runs it.

The depot imports neither the executor nor the server; `main.py` hands it callables. The command line uses
`Host()`, which knows no node and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Executing:
    """The node that runs now on the calling thread or task."""

    prompt_id: str
    node_id: str
    tenant: str | None = None


@dataclass(frozen=True)
class QueuedPrompt:
    """A prompt that runs or waits."""

    prompt_id: str
    graph: Mapping[str, Any]
    """{node id: {"class_type", "inputs"}}"""
    outputs: tuple[str, ...]
    """The nodes for whose sake it runs."""
    tenant: str | None = None


@dataclass(frozen=True)
class Chosen:
    """A text that an input holds, and the list that it was chosen from."""

    text: str
    choices: Sequence[Any]


def _no_prompts(most: int) -> Sequence[QueuedPrompt]:
    return ()


def _nothing_chosen(prompt: QueuedPrompt) -> Sequence[Chosen]:
    return ()


def _no_node() -> Executing | None:
    return None


def _report_nothing(done: int, total: int) -> None:
    """Nobody watches."""


def _never_interrupted() -> None:
    """Nobody interrupts."""


def _send_nothing(event: str, data: Mapping[str, Any]) -> None:
    """Nobody listens."""


def _no_models() -> AbstractSet[tuple[str, str]]:
    return frozenset()


def _no_settings() -> Hashable:
    return None


def _nothing_to_let_go() -> bool:
    return False


def _nothing_loaded(folder: str, name: str) -> bool:
    return False


def _nothing_patched() -> Mapping[str, int]:
    return {}


def _nothing_to_show(depot: Any) -> None:
    """There is no web page."""


def _all_of_the_machine() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _no_limit(device: Any) -> float:
    return float("inf")


def _no_devices() -> list[dict[str, Any]]:
    return []


@dataclass(frozen=True)
class Host:
    """What the depot may ask of its host. Each callable may be called from any thread."""

    current_node: Callable[[], Executing | None] = _no_node
    """The node that asks for a file, or None outside the execution of a node."""
    report: Callable[[int, int], None] = _report_nothing
    """Progress of the current node, in bytes: `report(done, total)`."""
    raise_if_interrupted: Callable[[], None] = _never_interrupted
    """Raises what the host raises when the user cancels the prompt."""
    send: Callable[[str, Mapping[str, Any]], None] = _send_nothing
    """An event to every websocket client: `send("depot", payload)`."""
    models_in_use: Callable[[], AbstractSet[tuple[str, str]]] = _no_models
    """(folder type, name with "/") of every model that a running or queued prompt names; never evicted."""
    queued_prompts: Callable[[int], Sequence[QueuedPrompt]] = _no_prompts
    """The running prompts and the first of those that wait (at most so many), in the order of running."""
    chosen: Callable[[QueuedPrompt], Sequence[Chosen]] = _nothing_chosen
    """What the nodes of a prompt have chosen from lists, in the order in which they will run."""
    load_settings: Callable[[], Hashable] = _no_settings
    """What decides, besides a loader's arguments, how a model is loaded: the devices of now."""
    let_models_go: Callable[[], bool] = _nothing_to_let_go
    """Let go of models that are kept for prompts to come; whether there were any. A node waits for room."""
    load_model: Callable[[str, str], bool] = _nothing_loaded
    """Load a model as a workflow would, and place it; whether it is in memory. ValueError says why not."""
    bytes_free: Callable[[Any], float] = _no_limit
    """Bytes of memory that are free on a device (a `torch.device`)."""
    bytes_allowed: Callable[[], int] = _all_of_the_machine
    """Bytes of memory that this process may use at most, everything that it uses already included."""
    bytes_of_device: Callable[[], int] = _all_of_the_machine
    """Bytes of memory of the device that models work on; may load what is needed to know."""
    memory_report: Callable[[], list[dict[str, Any]]] = _no_devices
    """{"device", "total", "free", "allocated", "reserved", "peak"} of each device, in bytes."""
    patched_weights: Callable[[], Mapping[str, int]] = _nothing_patched
    """Weights that were computed from LoRAs and other patches, that were put back, and the bytes of these."""
    on_routes: Callable[[Any], None] = _nothing_to_show
    """The server gets the routes of this depot: what the host has to tell it besides."""
