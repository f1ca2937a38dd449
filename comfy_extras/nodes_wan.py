"""Wan: the many ways in which its video models are told what to show. The nodes stand in `wan_<topic>.py`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension
from comfy_extras.wan_animate import WanAnimate2Cache, WanAnimate2ToVideo, WanAnimateToVideo
from comfy_extras.wan_frames import (
    TrimVideoLatent,
    Wan22FunControlToVideo,
    Wan22ImageToVideoLatent,
    WanCameraImageToVideo,
    WanFirstLastFrameToVideo,
    WanFunControlToVideo,
    WanFunInpaintToVideo,
    WanImageToVideo,
    WanPhantomSubjectToVideo,
    WanVaceToVideo,
)
from comfy_extras.wan_sound import (
    WanHuMoImageToVideo,
    WanInfiniteTalkToVideo,
    WanSoundImageToVideo,
    WanSoundImageToVideoExtend,
)
from comfy_extras.wan_tracks import WanTrackToVideo, parse_json_tracks

__all__ = ["parse_json_tracks"]


class WanExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            WanTrackToVideo,
            WanImageToVideo,
            WanFunControlToVideo,
            Wan22FunControlToVideo,
            WanFunInpaintToVideo,
            WanFirstLastFrameToVideo,
            WanVaceToVideo,
            TrimVideoLatent,
            WanCameraImageToVideo,
            WanPhantomSubjectToVideo,
            WanSoundImageToVideo,
            WanSoundImageToVideoExtend,
            WanHuMoImageToVideo,
            WanAnimateToVideo,
            WanAnimate2ToVideo,
            WanAnimate2Cache,
            Wan22ImageToVideoLatent,
            WanInfiniteTalkToVideo,
        ]


def comfy_entrypoint():
    return WanExtension()
