"""Nodes for control models of several types of pictures, and for those that paint into a hole."""

from __future__ import annotations

from comfy.cldm.control_types import UNION_CONTROLNET_TYPES
from comfy_api.latest import ComfyExtension, io
from comfy_extras import core_controlnet

AUTO = "auto"


def sides() -> list:
    """Both conditionings, as inputs."""
    return [io.Conditioning.Input("positive"), io.Conditioning.Input("negative")]


def strength_and_range() -> list:
    """How much a picture counts and in which share of the steps, as inputs."""
    return [
        io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01),
        io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001),
    ]


def sides_out() -> list:
    """Both conditionings, as outputs."""
    return [io.Conditioning.Output(display_name=name) for name in ("positive", "negative")]


class SetUnionControlNetType(io.ComfyNode):
    """The type of the picture, for networks that know several."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SetUnionControlNetType",
            category="conditioning/controlnet",
            description="Tells a union ControlNet what kind of picture it gets. The names are SDXL's "
            "networks; other unions get the number of the name.",
            inputs=[
                io.ControlNet.Input("control_net"),
                io.Combo.Input("type", options=[AUTO, *UNION_CONTROLNET_TYPES]),
            ],
            outputs=[io.ControlNet.Output()],
        )

    @classmethod
    def execute(cls, control_net, type):  # noqa: A002 (the name of the input)
        number = UNION_CONTROLNET_TYPES.get(type)
        told = control_net.copy()
        told.set_extra_arg("control_type", [] if number is None else [number])
        return io.NodeOutput(told)

    set_controlnet_type = execute


class ControlNetInpaintingAliMamaApply(io.ComfyNode):
    """A picture with a hole, and the mask of the hole."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ControlNetInpaintingAliMamaApply",
            category="conditioning/controlnet",
            description="Lets a control model for inpainting see a picture without what is under the mask.",
            inputs=[
                *sides(),
                io.ControlNet.Input("control_net"),
                io.Vae.Input("vae"),
                io.Image.Input("image"),
                io.Mask.Input("mask"),
                *strength_and_range(),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(
        cls, positive, negative, control_net, vae, image, mask, strength, start_percent, end_percent
    ):  # fmt: skip
        masks = []
        if control_net.concat_mask:
            import comfy.utils

            kept = 1.0 - mask.reshape(-1, 1, *mask.shape[-2:]).to(image.device)  # 1 where the picture stays
            height, width = image.shape[1:3]
            in_size = comfy.utils.common_upscale(kept, width, height, "bilinear", "center").round()
            image, masks = image * in_size.movedim(1, -1), [kept]
        apply = core_controlnet.ControlNetApplyAdvanced().apply_controlnet
        return io.NodeOutput(
            *apply(
                positive, negative, control_net, image, strength, start_percent, end_percent, vae=vae,
                extra_concat=masks,
            )
        )  # fmt: skip

    apply_inpaint_controlnet = execute


class ControlNetApplySD3(io.ComfyNode):
    """Like Apply ControlNet, for control models that see through a VAE."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ControlNetApplySD3",
            display_name="Apply Controlnet with VAE",
            category="conditioning/controlnet",
            description="Lets a picture control both sides through a VAE. Apply ControlNet does the same.",
            is_deprecated=True,
            inputs=[
                *sides(),
                io.ControlNet.Input("control_net"),
                io.Vae.Input("vae"),
                io.Image.Input("image"),
                *strength_and_range(),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(
        cls, positive, negative, control_net, image, strength, start_percent, end_percent, vae=None
    ):  # fmt: skip
        apply = core_controlnet.ControlNetApplyAdvanced().apply_controlnet
        return io.NodeOutput(
            *apply(positive, negative, control_net, image, strength, start_percent, end_percent, vae=vae)
        )

    apply_controlnet = execute


class ControlNetExtension(ComfyExtension):
    async def get_node_list(self):
        return [SetUnionControlNetType, ControlNetInpaintingAliMamaApply, ControlNetApplySD3]


async def comfy_entrypoint():
    return ControlNetExtension()
