"""Results from outside: providers look up what this process does not know, and store what it has computed.

A node pack registers a provider (on Redis, on a shared disk, ...). It is asked only for nodes of the user's
graph that are needed, not for those inside expansions, and not for nodes whose key has no stable content. A
result that it has makes everything above it unnecessary. Exceptions of a provider are logged, and the node
runs as if there were none.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

log = logging.getLogger(__name__)

SECONDS_BETWEEN_CHECKS = 0.25
SECONDS_FOR_STORES = 60.0
"""How long the end of a prompt waits for providers to store."""
LOOKUPS_AT_ONCE = 32


@dataclass
class CacheContext:
    """The node that a provider is asked about."""

    node_id: str
    class_type: str
    cache_key_hash: str
    """SHA-256 of the node's class, its inputs and all that is above it: the same in every process."""


@dataclass
class CacheValue:
    """A result: a list of values per output; and what the node showed, {"meta": ..., "output": ...}."""

    outputs: list[Any]
    ui: dict[str, Any] | None = None


class CacheProvider(ABC):
    """What a provider offers."""

    @abstractmethod
    async def on_lookup(self, context: CacheContext) -> CacheValue | None:
        """The stored result, or None. Called when this process has none."""

    @abstractmethod
    async def on_store(self, context: CacheContext, value: CacheValue) -> None:
        """A node has run: store its result. Runs beside the nodes that follow."""

    def should_cache(self, context: CacheContext, value: CacheValue | None = None) -> bool:
        """Is this node for the provider? Asked before a lookup without a value, before a store with it."""
        return True

    def on_prompt_start(self, prompt_id: str) -> None:  # noqa: B027  (providers need not have it)
        """A prompt begins."""

    def on_prompt_end(self, prompt_id: str) -> None:  # noqa: B027
        """A prompt has ended, and its results are stored."""


_lock = threading.Lock()
_providers: tuple[CacheProvider, ...] = ()  # packs register when they are imported


def register_cache_provider(provider: CacheProvider) -> None:
    """Ask this provider too, after those that were registered before."""
    global _providers
    with _lock:
        if provider in _providers:
            log.warning("The cache provider %s is registered already.", type(provider).__name__)
        else:
            _providers = (*_providers, provider)


def unregister_cache_provider(provider: CacheProvider) -> None:
    """Ask this provider no more."""
    global _providers
    with _lock:
        if provider not in _providers:
            log.warning("The cache provider %s is not registered.", type(provider).__name__)
        _providers = tuple(other for other in _providers if other is not provider)


def registered_providers() -> tuple[CacheProvider, ...]:
    """The providers, in the order in which they are asked."""
    return _providers


def key_hash(signature: bytes) -> str:
    """What a signature is called outside of this process."""
    return sha256(b"comfyui result " + signature).hexdigest()


class ProvidersOfPrompt:
    """The providers during one prompt."""

    def __init__(self, prompt_id: str, providers: Iterable[CacheProvider]) -> None:
        self.prompt_id = prompt_id
        self.providers = tuple(providers)
        self._stores: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        for provider in self.providers:
            _told(provider, "on_prompt_start", prompt_id)

    async def look_up(
        self, contexts: list[CacheContext], check: Callable[[], None] | None = None
    ) -> list[CacheValue | None]:
        """What the providers have, first come first served. `check` is called now and then, and may raise."""
        tasks = [asyncio.ensure_future(self._look_up(context)) for context in contexts]
        try:
            waiting = set(tasks)
            while waiting:
                _, waiting = await asyncio.wait(waiting, timeout=SECONDS_BETWEEN_CHECKS)
                if check is not None:
                    check()
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()

    async def _look_up(self, context: CacheContext) -> CacheValue | None:
        async with self._at_once:
            for provider in self.providers:
                try:
                    if provider.should_cache(context):
                        value = await provider.on_lookup(context)
                        if value is not None:
                            return _checked(value)
                except Exception as error:  # code of node packs; without its answer the node runs
                    _complain(provider, "on_lookup", error)
            return None

    def store(self, context: CacheContext, value: CacheValue) -> None:
        """Offer a new result to all providers, beside whatever comes next."""
        for provider in self.providers:
            task = asyncio.ensure_future(self._store(provider, context, value))
            self._stores.add(task)
            task.add_done_callback(self._stores.discard)

    async def _store(self, provider: CacheProvider, context: CacheContext, value: CacheValue) -> None:
        try:
            if provider.should_cache(context, value):
                await provider.on_store(context, value)
        except Exception as error:  # code of node packs; what it does not store is computed again
            _complain(provider, "on_store", error)

    async def end(self) -> None:
        """The prompt ends when its results are stored, or after SECONDS_FOR_STORES."""
        if self._stores:
            _, late = await asyncio.wait(set(self._stores), timeout=SECONDS_FOR_STORES)
            for task in late:
                task.cancel()
            if late:
                log.warning(
                    "Cache providers had not stored %d results after %d seconds; these are given up.",
                    len(late), SECONDS_FOR_STORES,
                )  # fmt: skip
        for provider in self.providers:
            _told(provider, "on_prompt_end", self.prompt_id)


def _checked(value: Any) -> CacheValue:
    """The value, if it is one. TypeError."""
    outputs, ui = value.outputs, value.ui
    if not isinstance(outputs, (list, tuple)) or not all(isinstance(slot, (list, tuple)) for slot in outputs):
        raise TypeError("outputs must be a list with a list of values per output")
    if ui is not None and not (isinstance(ui, dict) and isinstance(ui.get("output"), dict)):
        raise TypeError('ui must be None or {"meta": {...}, "output": {...}}')
    return CacheValue(list(outputs), ui)


def _told(provider: CacheProvider, method: str, prompt_id: str) -> None:
    try:
        getattr(provider, method)(prompt_id)
    except Exception as error:  # code of node packs; the prompt does not depend on it
        _complain(provider, method, error)


def _complain(provider: Any, method: str, error: Exception) -> None:
    log.warning("%s of the cache provider %s failed: %r", method, type(provider).__name__, error)
