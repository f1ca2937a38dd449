"""Older name of classes in `comfy_api.latest.Types`."""

from comfy_api.latest._util.video_types import VideoCodec, VideoComponents, VideoContainer

__all__ = ["VideoCodec", "VideoComponents", "VideoContainer"]
