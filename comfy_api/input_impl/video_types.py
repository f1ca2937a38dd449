"""Older name of classes in `comfy_api.latest.InputImpl`."""

from comfy_api.latest._input_impl.video_types import VideoFromComponents, VideoFromFile

__all__ = ["VideoFromComponents", "VideoFromFile"]
