"""What a node shows without saving it for good."""

from __future__ import annotations

import os
import secrets
from typing import Any

import folder_paths
from comfy_api.latest.io.node import _UIOutput
from comfy_api.latest.io.options import FolderType
from comfy_api.latest.ui.audio import AudioSaveHelper
from comfy_api.latest.ui.images import ImageSaveHelper
from comfy_api.latest.ui.results import SavedResult


def _temporary_prefix() -> str:
    """Differs from call to call, since browsers keep files by name."""
    return f"ComfyUI_temp_{secrets.token_hex(4)}"


class PreviewImage(_UIOutput):
    """Shows pictures (B, H, W, C)."""

    def __init__(self, image: Any, animated: bool = False, cls: Any = None, **kwargs: Any) -> None:
        self.values = ImageSaveHelper.save_images(
            image, _temporary_prefix(), FolderType.temp, cls, compress_level=1
        )
        self.animated = animated

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (self.animated,)}


class PreviewMask(PreviewImage):
    """Shows masks (..., H, W) in gray."""

    def __init__(self, mask: Any, animated: bool = False, cls: Any = None, **kwargs: Any) -> None:
        gray = mask.reshape(-1, *mask.shape[-2:], 1).expand(-1, -1, -1, 3)
        super().__init__(gray, animated, cls, **kwargs)


class PreviewAudio(_UIOutput):
    """Plays sound."""

    def __init__(self, audio: dict[str, Any], cls: Any = None, **kwargs: Any) -> None:
        self.values = AudioSaveHelper.save_audio(audio, _temporary_prefix(), FolderType.temp, cls)

    def as_dict(self) -> dict[str, Any]:
        return {"audio": self.values}


class PreviewVideo(_UIOutput):
    """Plays videos that are saved already."""

    def __init__(self, values: list[SavedResult | dict[str, Any]], **kwargs: Any) -> None:
        self.values = values

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (True,)}


class PreviewText(_UIOutput):
    """Shows a text."""

    def __init__(self, value: str, **kwargs: Any) -> None:
        self.value = value

    def as_dict(self) -> dict[str, Any]:
        return {"text": (self.value,)}


class PreviewUI3D(_UIOutput):
    """Shows a 3D file, before a picture `bg_image` (1, H, W, C) if one is given."""

    def __init__(self, model_file: Any, camera_info: Any, **kwargs: Any) -> None:
        self.model_file = model_file
        self.camera_info = camera_info
        self.bg_image_path: str | None = None
        if kwargs.get("bg_image") is not None:
            name = f"bg_{secrets.token_hex(16)}.png"
            picture = ImageSaveHelper._convert_tensor_to_pil(kwargs["bg_image"][0])
            folder = folder_paths.get_temp_directory()
            os.makedirs(folder, exist_ok=True)
            picture.save(os.path.join(folder, name), compress_level=1)
            self.bg_image_path = f"temp/{name}"

    def as_dict(self) -> dict[str, Any]:
        return {"result": [self.model_file, self.camera_info, self.bg_image_path]}


class PreviewUI3DAdvanced(_UIOutput):
    """Shows a 3D file with the places of its objects."""

    def __init__(self, model_file: Any, camera_info: Any, model_3d_info: Any) -> None:
        self.model_file = model_file
        self.camera_info = camera_info
        self.model_3d_info = model_3d_info

    def as_dict(self) -> dict[str, Any]:
        return {"result": [self.model_file, self.camera_info, self.model_3d_info]}
