"""Older name of a class in `comfy_api.latest.Input`."""

from comfy_api.latest._input.video_types import VideoInput

__all__ = ["VideoInput"]
