"""`comfy_api.latest.ui` under the name of the module that packs import privately."""

from comfy_api.latest.ui import *  # noqa: F403
