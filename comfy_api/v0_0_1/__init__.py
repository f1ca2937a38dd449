"""Version 0.0.1 of the node interface. Packs should name a later one."""

from __future__ import annotations

from typing import Any

from comfy_api.internal.async_to_sync import create_sync_class
from comfy_api.v0_0_2 import ComfyAPIAdapter_v0_0_2
from comfy_api.v0_0_2 import Input as Input_v0_0_2
from comfy_api.v0_0_2 import InputImpl as InputImpl_v0_0_2
from comfy_api.v0_0_2 import Types as Types_v0_0_2

__all__ = ["ComfyAPI", "ComfyAPISync", "Input", "InputImpl", "Types"]


class ComfyAPIAdapter_v0_0_1(ComfyAPIAdapter_v0_0_2):
    """What packs can ask of the server while it runs."""

    VERSION = "0.0.1"
    STABLE = True


class Input(Input_v0_0_2):
    """Types of values, for annotations."""


class InputImpl(InputImpl_v0_0_2):
    """Classes of values that nodes make."""


class Types(Types_v0_0_2):
    """Classes that values consist of."""


ComfyAPI = ComfyAPIAdapter_v0_0_1
ComfyAPISync: Any = create_sync_class(ComfyAPIAdapter_v0_0_1)
