"""The public names of `comfy_api.latest.ui`."""

from comfy_api.latest.ui import *  # noqa: F403
