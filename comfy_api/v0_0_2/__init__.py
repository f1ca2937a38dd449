"""Version 0.0.2 of the node interface: the latest one until that changes."""

from __future__ import annotations

from typing import Any

from comfy_api.internal.async_to_sync import create_sync_class
from comfy_api.latest import IO, UI, ComfyAPI_latest, ComfyExtension, io, ui
from comfy_api.latest import Input as Input_latest
from comfy_api.latest import InputImpl as InputImpl_latest
from comfy_api.latest import Types as Types_latest

__all__ = [
    "ComfyAPI", "ComfyAPISync", "ComfyExtension", "IO", "Input", "InputImpl", "Types", "UI", "io", "ui",
]  # fmt: skip


class ComfyAPIAdapter_v0_0_2(ComfyAPI_latest):
    """What packs can ask of the server while it runs."""

    VERSION = "0.0.2"
    STABLE = False


class Input(Input_latest):
    """Types of values, for annotations."""


class InputImpl(InputImpl_latest):
    """Classes of values that nodes make."""


class Types(Types_latest):
    """Classes that values consist of."""


ComfyAPI = ComfyAPIAdapter_v0_0_2
ComfyAPISync: Any = create_sync_class(ComfyAPIAdapter_v0_0_2)
