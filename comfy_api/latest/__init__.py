"""The node interface as it is now. `from comfy_api.latest import ComfyExtension, io, ui`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from comfy_api.internal import ComfyAPIBase, lazy_attribute
from comfy_api.internal.async_to_sync import create_sync_class
from comfy_api.internal.singleton import ProxiedSingleton
from comfy_api.latest import _input, _input_impl, _util, io, ui
from comfy_api.latest.progress import report_progress
from comfy_api.node_replacements import add_replacement
from comfy_execution import cache_provider

__all__ = [
    "Caching", "ComfyAPI", "ComfyAPISync", "ComfyExtension", "IO", "Input", "InputImpl", "Types", "UI",
    "io", "ui",
]  # fmt: skip


class ComfyAPI_latest(ComfyAPIBase):
    """What packs can ask of the server while it runs."""

    VERSION = "latest"
    STABLE = False

    def __init__(self) -> None:
        self.node_replacement = self.NodeReplacement()
        self.execution = self.Execution()
        self.caching = self.Caching()

    class NodeReplacement(ProxiedSingleton):
        """Successors of node classes that are gone."""

        async def register(self, node_replace: io.NodeReplace) -> None:
            """Add one."""
            add_replacement(node_replace)

    class Execution(ProxiedSingleton):
        """The node that runs."""

        async def set_progress(
            self,
            value: float,
            max_value: float,
            node_id: str | None = None,
            preview_image: Any = None,
            ignore_size_limit: bool = False,
        ) -> None:
            """Say how far a node is, the one that runs unless `node_id` names another, and show a picture of
            it: a Pillow image, or a tensor (H, W, C) or (B, H, W, C).
            """
            report_progress(value, max_value, node_id, preview_image, ignore_size_limit)

    class Caching(ProxiedSingleton):
        """Results of nodes that are kept outside of this process."""

        CacheProvider = cache_provider.CacheProvider
        CacheContext = cache_provider.CacheContext
        CacheValue = cache_provider.CacheValue

        async def register_provider(self, provider: cache_provider.CacheProvider) -> None:
            """Ask this provider too, after those that were registered before."""
            cache_provider.register_cache_provider(provider)

        async def unregister_provider(self, provider: cache_provider.CacheProvider) -> None:
            """Ask this provider no more."""
            cache_provider.unregister_cache_provider(provider)


class ComfyExtension(ABC):
    """A node pack. A module's `comfy_entrypoint()` returns an object of such a class."""

    async def on_load(self) -> None:  # noqa: B027
        """Called once, before the nodes are asked for."""

    @abstractmethod
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes of the pack."""


class Input:
    """Types of values, for annotations."""

    Image = lazy_attribute("comfy_api.latest._input", "ImageInput")
    Mask = lazy_attribute("comfy_api.latest._input", "MaskInput")
    Audio = _input.AudioInput
    Latent = _input.LatentInput
    Video = _input.VideoInput


class InputImpl:
    """Classes of values that nodes make."""

    VideoFromFile = _input_impl.VideoFromFile
    VideoFromComponents = _input_impl.VideoFromComponents


class Types:
    """Classes that values consist of."""

    VideoCodec = _util.VideoCodec
    VideoContainer = _util.VideoContainer
    VideoComponents = _util.VideoComponents
    MESH = _util.MESH
    VOXEL = _util.VOXEL
    SPLAT = _util.SPLAT
    File3D = _util.File3D


ComfyAPI = ComfyAPI_latest
Caching = ComfyAPI_latest.Caching
ComfyAPISync: Any = create_sync_class(ComfyAPI_latest)
IO = io
UI = ui
