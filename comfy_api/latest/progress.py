"""Progress of the node that runs."""

from __future__ import annotations

from typing import Any

from comfy.cli_args import args
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context


def _picture(image: Any) -> Any:
    """A Pillow image of a tensor (H, W, C) or of the first of a batch; other pictures as they are."""
    if not hasattr(image, "shape"):
        return image
    import numpy
    from PIL import Image

    first = image[0] if len(image.shape) == 4 else image
    return Image.fromarray((first.cpu().float().numpy() * 255).clip(0, 255).astype(numpy.uint8))


def report_progress(
    value: float, max_value: float, node_id: str | None, preview_image: Any, ignore_size_limit: bool
) -> None:
    """Tell the clients how far a node is. ValueError if no node runs and none is named."""
    context = get_executing_context()
    if node_id is None and context is not None:
        node_id = context.node_id
    if node_id is None:
        raise ValueError("No node runs here, so it is not known whose progress this is. Pass node_id.")
    shown = None
    if preview_image is not None:
        picture = _picture(preview_image)
        limit = None if ignore_size_limit else args.preview_size
        shown = (getattr(picture, "format", None) or "JPEG", picture, limit)
    get_progress_state().update_progress(node_id, value, max_value, shown)
