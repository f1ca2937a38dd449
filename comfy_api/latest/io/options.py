"""Values that the options of inputs take."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

from comfy_api.internal import prune_dict


class FolderType(str, Enum):
    """Folders of the server that files are read from and written to."""

    input = "input"
    output = "output"
    temp = "temp"


class UploadType(str, Enum):
    """What a list of files can be extended by."""

    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"
    model = "file_upload"


class NumberDisplay(str, Enum):
    """How a number is shown."""

    number = "number"
    slider = "slider"
    gradient_slider = "gradientslider"


class ControlAfterGenerate(str, Enum):
    """What the web page does with a number after each run."""

    fixed = "fixed"
    increment = "increment"
    decrement = "decrement"
    randomize = "randomize"


class RemoteOptions:
    """Choices that the web page fetches. `timeout` and `refresh`, how long they stay fresh, in milliseconds.
    """

    def __init__(
        self,
        route: str,
        refresh_button: bool,
        control_after_refresh: Literal["first", "last"] = "first",
        timeout: int | None = None,
        max_retries: int | None = None,
        refresh: int | None = None,
    ) -> None:
        self.route = route
        self.refresh_button = refresh_button
        self.control_after_refresh = control_after_refresh
        self.timeout = timeout
        self.max_retries = max_retries
        self.refresh = refresh

    def as_dict(self) -> dict[str, Any]:
        """As /object_info tells it."""
        return prune_dict(dict(vars(self)))
