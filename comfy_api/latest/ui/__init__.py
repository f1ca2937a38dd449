"""What nodes show in the web page, and files for it: `from comfy_api.latest import ui`."""

from comfy_api.latest.ui.audio import AudioSaveHelper
from comfy_api.latest.ui.images import ImageSaveHelper
from comfy_api.latest.ui.previews import (
    PreviewAudio,
    PreviewImage,
    PreviewMask,
    PreviewText,
    PreviewUI3D,
    PreviewUI3DAdvanced,
    PreviewVideo,
)
from comfy_api.latest.ui.results import SavedAudios, SavedImages, SavedResult

__all__ = [
    "AudioSaveHelper", "ImageSaveHelper", "PreviewAudio", "PreviewImage", "PreviewMask", "PreviewText",
    "PreviewUI3D", "PreviewUI3DAdvanced", "PreviewVideo", "SavedAudios", "SavedImages", "SavedResult",
]  # fmt: skip
