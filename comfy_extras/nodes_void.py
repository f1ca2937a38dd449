"""VOID: things removed from videos, with what they do to others."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import frame_size, guided, sides_out

# What is to be removed; where that and what it changes overlap; what it changes; what stays.
QUAD_LEVELS = (0.0, 63.0, 127.0, 255.0)

OpticalFlowLoader = absent_node(
    "OpticalFlowLoader",
    "RAFT optical flow",
    display_name="Load Optical Flow Model",
    category="model/loaders",
    description="Loads a network that finds how pixels move.",
    inputs=lambda: [io.Combo.Input("model_name", options=folder_paths.get_filename_list("optical_flow"))],
    outputs=lambda: [io.Custom("OPTICAL_FLOW").Output()],
)


class VOIDQuadmaskPreprocess(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VOIDQuadmaskPreprocess",
            display_name="VOID Quadmask Preprocessor",
            category="image/mask",
            inputs=[io.Mask.Input("mask"), io.Int.Input("dilate_width", default=0, min=0, max=50, step=1)],
            outputs=[io.Mask.Output(display_name="quadmask")],
        )

    @classmethod
    def execute(cls, mask, dilate_width=0):
        import torch

        levels = mask if mask.max() > 1 else mask * 255
        if dilate_width > 0:
            if mask.ndim != 3:
                raise ValueError(
                    f"VOIDQuadmaskPreprocess was given a mask of {tuple(mask.shape)}. It takes (T, H, W)."
                )
            is_primary = (levels < 128).float()
            size = 2 * dilate_width + 1
            grown = torch.nn.functional.max_pool2d(is_primary[:, None], size, stride=1, padding=dilate_width)
            levels = levels.masked_fill(grown[:, 0] > 0.5, 0)
        bounds = levels.new_tensor([31, 95, 191])
        return io.NodeOutput(1 - levels.new_tensor(QUAD_LEVELS)[torch.bucketize(levels, bounds)] / 255)


VOIDInpaintConditioning = absent_node(
    "VOIDInpaintConditioning",
    "VOID",
    category="model/conditioning/void",
    inputs=lambda: [
        *guided(),
        io.Image.Input("video"),
        io.Mask.Input("quadmask"),
        *frame_size(672, 384, step=8),
        io.Int.Input("length", default=45, min=1, max=MAX_RESOLUTION, step=1),
        io.Int.Input("batch_size", default=1, min=1, max=64),
    ],
    outputs=lambda: sides_out(),
)


VOIDWarpedNoise = absent_node(
    "VOIDWarpedNoise",
    "VOID",
    category="model/latent/void",
    inputs=lambda: [
        io.Custom("OPTICAL_FLOW").Input("optical_flow"),
        io.Image.Input("video"),
        *frame_size(672, 384, step=8),
        io.Int.Input("length", default=45, min=1, max=MAX_RESOLUTION, step=1),
        io.Int.Input("batch_size", default=1, min=1, max=64),
    ],
    outputs=lambda: [io.Latent.Output(display_name="warped_noise")],
)


VOIDWarpedNoiseSource = absent_node(
    "VOIDWarpedNoiseSource",
    "VOID",
    category="model/latent/void",
    inputs=lambda: [io.Latent.Input("warped_noise")],
    outputs=lambda: [io.Noise.Output()],
)


VOIDSampler = absent_node(
    "VOIDSampler",
    "VOID",
    category="model/sampling/samplers",
    inputs=list,
    outputs=lambda: [io.Sampler.Output()],
)


class VoidExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            OpticalFlowLoader,
            VOIDQuadmaskPreprocess,
            VOIDInpaintConditioning,
            VOIDWarpedNoise,
            VOIDWarpedNoiseSource,
            VOIDSampler,
        ]


def comfy_entrypoint():
    return VoidExtension()
