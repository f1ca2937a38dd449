"""Opening pictures that Pillow finds damaged. Pillow is imported on first use."""

from collections.abc import Callable
from typing import Any


def pillow(fn: Callable[[Any], Any], arg: Any) -> Any:
    """`fn(arg)`, once more with Pillow's tolerance for truncated files if it fails."""
    from PIL import ImageFile, UnidentifiedImageError

    try:
        return fn(arg)
    except (OSError, UnidentifiedImageError, ValueError):
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            return fn(arg)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
