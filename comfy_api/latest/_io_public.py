"""The public names of `comfy_api.latest.io`."""

from comfy_api.latest.io import *  # noqa: F403
