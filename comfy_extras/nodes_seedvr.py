"""SeedVR2: videos restored and enlarged."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import raise_absent
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import sides_out

CHANNELS = 16
RESERVED_GIB = 8.5 + 4 * 0.55  # weights, and four times the spread of what was measured


def _require_latent(samples, node):
    if samples.ndim != 5 or samples.shape[1] != CHANNELS:
        raise ValueError(
            f"{node} takes latents of SeedVR2's VAE, (B, {CHANNELS}, T, H, W), but was given one of the "
            f"shape {tuple(samples.shape)}. Encode the pictures with that VAE."
        )


def _latents_that_fit(samples):
    """How many latent frames fit into free memory, as was measured: 0.55 GiB for each megapixel of each."""
    import comfy.model_management

    device = comfy.model_management.get_torch_device()
    free_gib = comfy.model_management.get_free_memory(device) / (1 << 30)
    megapixels = samples.shape[0] * samples.shape[3] * samples.shape[4] * 64 / 1e6
    return max(1, int((free_gib - RESERVED_GIB) / (0.55 * megapixels)))


def _in_size(pictures, size):
    """Pictures (B, H, W, C) in this (height, width)."""
    import torch

    if pictures.shape[1:3] == tuple(size):
        return pictures
    resized = torch.nn.functional.interpolate(
        pictures.movedim(-1, 1), size=tuple(size), mode="bicubic", antialias=True
    )
    return resized.movedim(1, -1)


def _fade(length, like):
    """How much of the part before there is in each of the frames that two parts share: a soft step."""
    import torch

    ramp = (torch.linspace(0.0, 1.0, length).to(like) * 3 - 1).clamp(0.0, 1.0)
    return (0.5 + 0.5 * torch.cos(torch.pi * ramp)).view(1, 1, -1, 1, 1)


def _require_like_first(parts):
    first = parts[0].shape
    for number, part in enumerate(parts[1:], 1):
        is_last = number == len(parts) - 1
        same = part.shape[:2] == first[:2] and part.shape[3:] == first[3:]
        if not same or (part.shape[2] != first[2] and not is_last):
            raise ValueError(
                f"SeedVR2TemporalMerge: part {number} has the shape {tuple(part.shape)}, the first one "
                f"{tuple(first)}. Only the last part may have another length."
            )


class SeedVR2Conditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SeedVR2Conditioning",
            display_name="Apply SeedVR2 Conditioning",
            category="model/conditioning",
            description="Gives SeedVR2 the latent that it restores.",
            inputs=[io.Model.Input("model"), io.Latent.Input("vae_conditioning", display_name="latent")],
            outputs=sides_out(latent=False),
            search_aliases=["seedvr2", "upscale", "conditioning"],
        )

    @classmethod
    def execute(cls, model, vae_conditioning):
        import torch

        latent = vae_conditioning["samples"]
        _require_latent(latent, "SeedVR2Conditioning")
        network = getattr(getattr(model, "model", None), "diffusion_model", None)
        if not hasattr(network, "positive_conditioning"):
            raise_absent("SeedVR2", "SeedVR2Conditioning")
        condition = {"condition": torch.cat([latent, torch.ones_like(latent[:, :1])], dim=1)}
        sides = (network.positive_conditioning, network.negative_conditioning)
        return io.NodeOutput(*([[side.unsqueeze(0), dict(condition)]] for side in sides))


class SeedVR2Preprocess(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SeedVR2Preprocess",
            display_name="Pre-Process SeedVR2 Input",
            category="image/pre-processors",
            description=(
                "Fills pictures up at the right and below to sides of 16, and a video to 4 n + 1 frames."
            ),
            inputs=[io.Image.Input("resized_images")],
            outputs=[io.Image.Output(display_name="images")],
            search_aliases=["seedvr2", "upscale", "video upscale", "pad", "preprocess"],
        )

    @classmethod
    def execute(cls, resized_images):
        import torch

        videos = resized_images if resized_images.ndim == 5 else resized_images[None]
        videos = videos[..., :3].clamp(0.0, 1.0)
        height, width = videos.shape[2:4]
        if min(height, width) < 2:
            raise ValueError(
                f"SeedVR2Preprocess was given pictures of {width}x{height}. Sides have 2 pixels at least."
            )
        videos = torch.nn.functional.pad(videos, (0, 0, 0, -width % 16, 0, -height % 16))
        missing = 0 if videos.shape[1] == 1 else max(5 - videos.shape[1], -(videos.shape[1] - 1) % 4)
        return io.NodeOutput(torch.cat([videos, videos[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1))


class SeedVR2PostProcessing(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SeedVR2PostProcessing",
            display_name="Post-Process SeedVR2 Output",
            category="image/post-processors",
            description="Cuts the result to the size of the original, and corrects its colours.",
            search_aliases=["seedvr2", "upscale", "color correction", "color match", "postprocess"],
            inputs=[
                io.Image.Input("images"),
                io.Image.Input("original_resized_images"),
                io.Combo.Input(
                    "color_correction_method", options=["lab", "wavelet", "adain", "none"], default="lab"
                ),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, images, original_resized_images, color_correction_method):
        import torch

        from comfy_extras.color_matching import METHODS

        for name, given in (("images", images), ("original_resized_images", original_resized_images)):
            if given.ndim not in (4, 5) or not len(given):
                raise ValueError(f"SeedVR2PostProcessing: {name} are {tuple(given.shape)}, not (T, H, W, C).")
        videos, originals = (v if v.ndim == 5 else v[None] for v in (images, original_resized_images))
        count, length = originals.shape[:2]
        if len(videos) == 1 and videos.shape[1] % count == 0 and videos.shape[1] // count >= length:
            videos = videos.reshape(count, -1, *videos.shape[2:])  # several videos, decoded as one
        size = [min(one, other) for one, other in zip(videos.shape[:4], originals.shape[:4], strict=True)]
        part = tuple(slice(side) for side in size)
        videos = videos[part]
        if color_correction_method != "none":
            match = METHODS[color_correction_method]
            references = originals[part[:2]][..., :3].flatten(0, 1)
            matched = [
                match(frame[None], _in_size(reference[None], size[2:]))
                for frame, reference in zip(videos.flatten(0, 1), references, strict=True)
            ]
            videos = torch.cat(matched).view(*size, 3)
        if originals.shape[-1] == 4:
            videos = torch.cat([videos, originals[part][..., 3:].to(videos)], dim=-1)
        videos = videos[:, :, : size[2] // 2 * 2, : size[3] // 2 * 2]
        return io.NodeOutput(videos if images.ndim == 5 else videos.flatten(0, 1))


class SeedVR2TemporalChunk(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SeedVR2TemporalChunk",
            display_name="Split SeedVR2 Latent",
            category="model/latent/batch",
            description="Cuts a video latent into parts that share frames.",
            inputs=[
                io.Latent.Input("latent"),
                io.Int.Input("temporal_overlap", default=0, min=0, max=MAX_RESOLUTION),
                io.DynamicCombo.Input(
                    "chunking_mode",
                    [
                        io.DynamicCombo.Option("auto", []),
                        io.DynamicCombo.Option(
                            "manual",
                            [io.Int.Input("frames_per_chunk", default=21, min=1, max=MAX_RESOLUTION, step=4)],
                        ),
                    ],
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latents", is_output_list=True),
                io.Int.Output(display_name="temporal_overlap"),
            ],
            search_aliases=["seedvr2", "split", "chunk", "temporal", "video upscale", "rebatch"],
        )

    @classmethod
    def execute(cls, latent, temporal_overlap, chunking_mode):
        samples = latent["samples"]
        _require_latent(samples, "SeedVR2TemporalChunk")
        frames = 4 * (samples.shape[2] - 1) + 1
        if chunking_mode["chunking_mode"] == "manual":
            per_part = chunking_mode["frames_per_chunk"]
            if per_part < 1 or per_part % 4 != 1:
                raise ValueError(
                    f"SeedVR2TemporalChunk: frames_per_chunk is {per_part}. It is one of 1, 5, 9, 13, ..."
                )
        else:
            per_part = 4 * (_latents_that_fit(samples) - 1) + 1
        if frames <= per_part:
            return io.NodeOutput([latent], 0)
        length = (per_part - 1) // 4 + 1
        shared = min(temporal_overlap, length - 1)
        starts = range(0, max(1, samples.shape[2] - shared), length - shared)
        parts = [
            {**latent, "samples": samples[:, :, start : start + length].contiguous()} for start in starts
        ]
        return io.NodeOutput(parts, shared)


class SeedVR2TemporalMerge(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SeedVR2TemporalMerge",
            display_name="Merge SeedVR2 Latents",
            category="model/latent/batch",
            description="Joins such parts; frames that two of them share fade from one to the other.",
            inputs=[
                io.Latent.Input("latents"),
                io.Int.Input("temporal_overlap", default=0, min=0, max=MAX_RESOLUTION, force_input=True),
            ],
            outputs=[io.Latent.Output(display_name="latent")],
            is_input_list=True,
            search_aliases=["seedvr2", "merge", "temporal", "hann", "crossfade"],
        )

    @classmethod
    def execute(cls, latents, temporal_overlap):
        import torch

        parts = [part["samples"] for part in latents]
        _require_like_first(parts)
        out = {name: value for name, value in latents[0].items() if name != "noise_mask"}
        merged = parts[0]
        step = merged.shape[2] - min(temporal_overlap[0], merged.shape[2] - 1)
        for number, part in enumerate(parts[1:], 1):
            shared = min(merged.shape[2] - number * step, part.shape[2])
            if temporal_overlap[0] == 0 or shared <= 0:
                merged = torch.cat([merged, part], dim=2)
                continue
            before, rest = merged[:, :, : number * step], merged[:, :, number * step :][:, :, :shared]
            weight = _fade(shared, part)
            mixed = rest * weight + part[:, :, :shared] * (1 - weight)
            merged = torch.cat([before, mixed, part[:, :, shared:]], dim=2)
        return io.NodeOutput({**out, "samples": merged})


class SeedvrExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            SeedVR2Conditioning,
            SeedVR2Preprocess,
            SeedVR2PostProcessing,
            SeedVR2TemporalChunk,
            SeedVR2TemporalMerge,
        ]


def comfy_entrypoint():
    return SeedvrExtension()
