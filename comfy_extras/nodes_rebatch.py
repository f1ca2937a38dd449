"""Other sizes of batches."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_inputs import PIXELS_PER_LATENT


def _masks_of(latent):
    """Noise masks (B, 1, H, W), one per latent, in pixels; ones where there is none."""
    import torch

    import comfy.utils

    samples = latent["samples"]
    size = tuple(side * PIXELS_PER_LATENT for side in samples.shape[-2:])
    mask = latent.get("noise_mask")
    if mask is None:
        return torch.ones(samples.shape[0], 1, *size)
    mask = mask.reshape(-1, 1, *mask.shape[-2:])
    if mask.shape[-2:] != size:
        mask = torch.nn.functional.interpolate(mask, size=size, mode="bilinear")
    return comfy.utils.repeat_to_batch_size(mask, samples.shape[0])


def _runs_of_one_size(latents):
    """Lists of (samples, mask, number) of single latents; a new list where the size changes."""
    runs, count = [], 0
    for latent in latents:
        samples, masks = latent["samples"], _masks_of(latent)
        numbers = latent.get("batch_index", range(count, count + len(samples)))
        count += len(samples)
        if not runs or runs[-1][0][0].shape[1:] != samples.shape[1:]:
            runs.append([])
        runs[-1] += zip(samples.split(1), masks.split(1), numbers)
    return runs


def _together(parts):
    """One latent of single ones."""
    import torch

    samples, masks, numbers = zip(*parts)
    latent = {"samples": torch.cat(samples), "batch_index": list(numbers)}
    mask = torch.cat([one.to(masks[0].device) for one in masks])
    return latent if bool((mask == 1).all()) else {**latent, "noise_mask": mask}


class LatentRebatch(io.ComfyNode):
    """Batches of a given size, out of all latents that come in."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RebatchLatents",
            display_name="Rebatch Latents",
            category="model/latent/batch",
            description="Makes batches of a given size out of all latents; sizes are not mixed.",
            inputs=[
                io.Latent.Input("latents"),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[io.Latent.Output(is_output_list=True)],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, latents, batch_size):
        size = batch_size[0]
        return io.NodeOutput(
            [
                _together(run[start : start + size])
                for run in _runs_of_one_size(latents)
                for start in range(0, len(run), size)
            ]
        )


class RebatchImages(io.ComfyNode):
    """Batches of a given size, out of all pictures that come in. The last one may be smaller."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RebatchImages",
            display_name="Rebatch Images",
            category="image/batch",
            description="Makes batches of a given size out of all pictures that come in.",
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", is_output_list=True)],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, images, batch_size):
        import torch

        singles = [single for batch in images for single in batch.split(1)]
        size = batch_size[0]
        return io.NodeOutput(
            [torch.cat(singles[start : start + size]) for start in range(0, len(singles), size)]
        )


ImageRebatch = RebatchImages  # the name that node packs import


class RebatchExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [LatentRebatch, RebatchImages]


def comfy_entrypoint():
    return RebatchExtension()
