"""Pictures with transparency: laid on one another, taken apart and put together."""

from __future__ import annotations

from enum import Enum

from comfy_api.latest import ComfyExtension, io

PorterDuffMode = Enum(
    "PorterDuffMode",
    "ADD CLEAR DARKEN DST DST_ATOP DST_IN DST_OUT DST_OVER LIGHTEN MULTIPLY OVERLAY SCREEN SRC SRC_ATOP "
    "SRC_IN SRC_OUT SRC_OVER XOR",
    start=0,
)

# How much of source and destination is seen, given the opacity of both (Porter and Duff 1984, table 3).
_OPERATORS = {
    "CLEAR": lambda source, destination: (0, 0),
    "DST": lambda source, destination: (0, 1),
    "DST_ATOP": lambda source, destination: (1 - destination, source),
    "DST_IN": lambda source, destination: (0, source),
    "DST_OUT": lambda source, destination: (0, 1 - source),
    "DST_OVER": lambda source, destination: (1 - destination, 1),
    "SRC": lambda source, destination: (1, 0),
    "SRC_ATOP": lambda source, destination: (destination, 1 - source),
    "SRC_IN": lambda source, destination: (destination, 0),
    "SRC_OUT": lambda source, destination: (1 - destination, 0),
    "SRC_OVER": lambda source, destination: (1, 1 - source),
    "XOR": lambda source, destination: (1 - destination, 1 - source),
}
_NEARLY_NOTHING = 1e-5


def _extreme(choose):
    """The darker or the lighter of both where they meet."""

    def blend(source, source_alpha, destination, destination_alpha):
        alone = (1 - destination_alpha) * source + (1 - source_alpha) * destination
        return alone + choose(source, destination)

    return blend


def _overlaid(source, source_alpha, destination, destination_alpha):
    light = source_alpha * destination_alpha - 2 * (destination_alpha - source) * (source_alpha - destination)
    return (2 * source * destination).where(2 * destination < destination_alpha, light)


def _screened(source, source_alpha, destination, destination_alpha):
    return source + destination - source * destination


def _blended(mode, source, source_alpha, destination, destination_alpha):
    """(colours times opacity, opacity) of the modes that mix colours."""
    import torch

    if mode == "ADD":
        return (source + destination).clamp(0, 1), (source_alpha + destination_alpha).clamp(0, 1)
    if mode == "MULTIPLY":
        return source * destination, source_alpha * destination_alpha
    blends = {
        "DARKEN": _extreme(torch.minimum),
        "LIGHTEN": _extreme(torch.maximum),
        "OVERLAY": _overlaid,
        "SCREEN": _screened,
    }
    mixed = blends[mode](source, source_alpha, destination, destination_alpha)
    return mixed, source_alpha + destination_alpha - source_alpha * destination_alpha


def porter_duff_composite(src_image, src_alpha, dst_image, dst_alpha, mode):
    """(colours, mask) of two pictures (..., C) with masks (..., 1) that are 1 where they are transparent."""
    source_alpha, destination_alpha = 1 - src_alpha, 1 - dst_alpha
    source, destination = src_image * source_alpha, dst_image * destination_alpha
    if mode.name in _OPERATORS:
        share, other = _OPERATORS[mode.name](source_alpha, destination_alpha)
        color = source * share + destination * other
        alpha = source_alpha * share + destination_alpha * other
    else:
        color, alpha = _blended(mode.name, source, source_alpha, destination, destination_alpha)
    color = (color / alpha).where(alpha > _NEARLY_NOTHING, 0.0).clamp(0, 1)
    return color, 1 - alpha


def resize_mask(mask, shape):
    """A mask (..., H, W) as (B, height, width), `shape` beginning with height and width."""
    import torch

    flat = mask.reshape(-1, 1, *mask.shape[-2:])
    return torch.nn.functional.interpolate(flat, size=tuple(shape[:2]), mode="bilinear").squeeze(1)


def _fitted(image, like):
    """(B, H, W, C) cut and scaled to the size of `like`, on its device."""
    import comfy.utils

    image = image.to(like.device)
    if image.shape[1:3] == like.shape[1:3]:
        return image
    size = like.shape[2], like.shape[1]
    return comfy.utils.common_upscale(image.movedim(-1, 1), *size, "bicubic", "center").movedim(1, -1)


class PorterDuffImageComposite(io.ComfyNode):
    """Two pictures with transparency as one."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PorterDuffImageComposite",
            display_name="Porter-Duff Image Composite",
            category="image/compositing",
            description="Lays pictures with transparency on others.",
            search_aliases=["alpha composite", "blend modes", "layer blend", "transparency blend"],
            inputs=[
                io.Image.Input("source"),
                io.Mask.Input("source_alpha", tooltip="1 where the source is transparent."),
                io.Image.Input("destination"),
                io.Mask.Input("destination_alpha", tooltip="1 where the destination is transparent."),
                io.Combo.Input("mode", options=[mode.name for mode in PorterDuffMode], default="DST"),
            ],
            outputs=[io.Image.Output(), io.Mask.Output()],
        )

    @classmethod
    def execute(cls, source, source_alpha, destination, destination_alpha, mode):
        if source.shape[-1] != destination.shape[-1]:
            raise ValueError(
                f"The source has {source.shape[-1]} channels, the destination {destination.shape[-1]}. "
                "Split off their alpha channels first (Split Image with Alpha)."
            )
        batch = min(len(one) for one in (source, source_alpha, destination, destination_alpha))
        base = destination[:batch]
        layers = (source, source_alpha.unsqueeze(-1), destination_alpha.unsqueeze(-1))
        top, top_mask, base_mask = (_fitted(one[:batch], base) for one in layers)
        color, mask = porter_duff_composite(top, top_mask, base, base_mask, PorterDuffMode[mode])
        return io.NodeOutput(color, mask.squeeze(-1))


class SplitImageWithAlpha(io.ComfyNode):
    """Colours and transparency apart."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SplitImageWithAlpha",
            display_name="Split Image with Alpha",
            category="image/compositing",
            description="Takes the transparency of pictures off as a mask, 1 where they are transparent.",
            search_aliases=["extract alpha", "separate transparency", "remove alpha"],
            inputs=[
                io.Image.Input("image"),
            ],
            outputs=[io.Image.Output(), io.Mask.Output()],
        )

    @classmethod
    def execute(cls, image):
        import torch

        has_alpha = image.shape[-1] > 3
        mask = 1 - image[..., 3] if has_alpha else torch.zeros_like(image[..., 0])
        return io.NodeOutput(image[..., :3].clone(), mask)


class JoinImageWithAlpha(io.ComfyNode):
    """Pictures made transparent."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="JoinImageWithAlpha",
            display_name="Join Image with Alpha",
            category="image/compositing",
            description="Makes pictures transparent where a mask is set.",
            search_aliases=["add transparency", "apply alpha", "composite alpha", "RGBA"],
            inputs=[
                io.Image.Input("image"),
                io.Mask.Input(
                    "alpha", tooltip="1 where the result is transparent; it is scaled to the picture."
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, alpha):
        import torch

        import comfy.utils

        batch = max(len(image), len(alpha))
        opacity = 1.0 - resize_mask(alpha.to(image), image.shape[1:])
        opacity, image = (comfy.utils.repeat_to_batch_size(one, batch) for one in (opacity, image))
        return io.NodeOutput(torch.cat((image[..., :3], opacity.unsqueeze(-1)), dim=-1))


class CompositingExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [PorterDuffImageComposite, SplitImageWithAlpha, JoinImageWithAlpha]


def comfy_entrypoint():
    return CompositingExtension()
