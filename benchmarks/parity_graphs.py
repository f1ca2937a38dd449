"""The graphs that both servers run in parity_upstream.py: one function per graph, named as it is reported.

A graph is ComfyUI's prompt: {node id: {"class_type", "inputs"}}. Every function gets a `Graph` with the
usual first nodes in it, adds its own, and returns the images to save.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

PICTURE = "parity.png"  # (width, height) of it:
PICTURE_SIZE = (200, 136)
SAVE = "save"  # the id of the node whose pictures are compared
WEIGHTED = "a (red:1.3) circle, ((big)), [blue], \\(not\\) (((deep)) nested:0.7)"

GRAPHS: dict[str, Callable[[Graph], list]] = {}
GRAPHS_OF: dict[str, dict[str, Callable[[Graph], list]]] = {}  # of one family alone


def graph(function):
    """Put the graph into the table."""
    GRAPHS[function.__name__.replace("_", " ")] = function
    return function


def write_picture(path: Path) -> None:
    """A picture with gradients, edges and noise, whose alpha channel fades from the left to the right."""
    import numpy as np
    from PIL import Image

    width, height = PICTURE_SIZE
    y, x = np.mgrid[0:height, 0:width] / (height, width)[0]
    red = np.where((x - 0.7) ** 2 + (y - 0.5) ** 2 < 0.1, 230, 40)
    pixels = np.stack([red, 255 * y, 127 + 100 * np.sin(x * 30), np.clip(300 * x - 60, 0, 255)], axis=-1)
    pixels[..., :3] += np.random.default_rng(0).normal(0, 12, (height, width, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


class Graph:
    """A prompt that grows. Methods return links ([node id, output]) to what the node makes."""

    def __init__(self, checkpoint: str, *, size: int, steps: int):
        self.prompt: dict[str, dict] = {}
        self.checkpoint, self.size, self.steps = checkpoint, size, steps
        self.model = self.add("CheckpointLoaderSimple", ckpt_name=checkpoint)
        self.clip, self.vae = [self.model[0], 1], [self.model[0], 2]
        self.positive = self.text(WEIGHTED)
        self.negative = self.text("blurry")

    def add(self, kind: str, **inputs) -> list:
        name = str(len(self.prompt) + 1)
        self.prompt[name] = {"class_type": kind, "inputs": inputs}
        return [name, 0]

    def text(self, text: str, clip=None) -> list:
        return self.add("CLIPTextEncode", text=text, clip=clip or self.clip)

    def empty(self, batch_size: int = 1) -> list:
        return self.add("EmptyLatentImage", width=self.size, height=self.size, batch_size=batch_size)

    def picture(self) -> list:
        return self.add("LoadImage", image=PICTURE)

    def mask(self) -> list:
        return [self.picture()[0], 1]

    def encoded(self) -> list:
        return self.add("VAEEncode", pixels=self.picture(), vae=self.vae)

    def sample(self, latent=None, **changed) -> list:
        inputs = {
            "model": self.model, "seed": 42, "steps": self.steps, "cfg": 5.0, "sampler_name": "euler",
            "scheduler": "normal", "positive": self.positive, "negative": self.negative,
            "latent_image": latent or self.empty(), "denoise": 1.0,
        }  # fmt: skip
        return self.add("KSampler", **{**inputs, **changed})

    def sample_steps(self, latent, start: int, end: int, *, noise: bool, leftover: bool) -> list:
        return self.add(
            "KSamplerAdvanced", model=self.model, add_noise=_switch(noise), noise_seed=42, steps=self.steps,
            cfg=5.0, sampler_name="euler", scheduler="karras", positive=self.positive, negative=self.negative,
            latent_image=latent, start_at_step=start, end_at_step=end,
            return_with_leftover_noise=_switch(leftover),
        )  # fmt: skip

    def decoded(self, samples) -> list:
        return self.add("VAEDecode", samples=samples, vae=self.vae)


def _switch(on: bool) -> str:
    return "enable" if on else "disable"


def prompts(checkpoint: str, *, size: int, steps: int, family: str) -> dict[str, dict]:
    """Name -> prompt, whose node `SAVE` saves the pictures to compare."""
    out = {}
    for name, make in (GRAPHS | GRAPHS_OF.get(family, {})).items():
        started = Graph(checkpoint, size=size, steps=steps)
        images = make(started)
        saving = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "parity"}}
        out[name] = {**started.prompt, SAVE: saving}
    return out


# --- text to picture ---


@graph
def text_to_picture(g: Graph) -> list:
    return g.decoded(g.sample(sampler_name="dpmpp_2m", scheduler="karras"))


@graph
def clip_skip(g: Graph) -> list:
    skipping = g.add("CLIPSetLastLayer", clip=g.clip, stop_at_clip_layer=-2)
    return g.decoded(g.sample(positive=g.text(WEIGHTED, skipping), negative=g.text("", skipping)))


@graph
def batch_of_two(g: Graph) -> list:
    return g.decoded(g.sample(g.empty(2), sampler_name="euler_ancestral"))


@graph
def second_of_a_batch(g: Graph) -> list:
    chosen = g.add("LatentFromBatch", samples=g.empty(3), batch_index=1, length=1)
    return g.decoded(g.sample(chosen))


@graph
def repeated_batch(g: Graph) -> list:
    chosen = g.add("LatentFromBatch", samples=g.empty(3), batch_index=1, length=1)
    return g.decoded(g.sample(g.add("RepeatLatentBatch", samples=chosen, amount=2)))


@graph
def side_no_multiple_of_64(g: Graph) -> list:
    latent = g.add("EmptyLatentImage", width=g.size + 24, height=g.size - 8, batch_size=1)
    return g.decoded(g.sample(latent))


@graph
def decoded_in_tiles(g: Graph) -> list:
    tiles = {"tile_size": 64, "overlap": 32, "temporal_size": 64, "temporal_overlap": 8}
    return g.add("VAEDecodeTiled", samples=g.sample(), vae=g.vae, **tiles)


@graph
def steps_in_two_parts(g: Graph) -> list:
    first = g.sample_steps(g.empty(), 0, 2, noise=True, leftover=True)
    return g.decoded(g.sample_steps(first, 2, 10000, noise=False, leftover=False))


@graph
def first_steps_denoised(g: Graph) -> list:
    return g.decoded(g.sample_steps(g.empty(), 0, 2, noise=True, leftover=False))


@graph
def last_steps_of_a_picture(g: Graph) -> list:
    return g.decoded(g.sample_steps(g.encoded(), 2, 10000, noise=True, leftover=False))


@graph
def custom_sampler(g: Graph) -> list:
    sampler = g.add("KSamplerSelect", sampler_name="dpmpp_2m_sde")
    levels = g.add("BasicScheduler", model=g.model, scheduler="sgm_uniform", steps=g.steps, denoise=1.0)
    return g.decoded(
        g.add(
            "SamplerCustom", model=g.model, add_noise=True, noise_seed=7, cfg=4.0, positive=g.positive,
            negative=g.negative, sampler=sampler, sigmas=levels, latent_image=g.empty(),
        )
    )  # fmt: skip


# --- conditioning ---


def _with_positive(g: Graph, positive) -> list:
    return g.decoded(g.sample(positive=positive))


@graph
def conditioning_area(g: Graph) -> list:
    place = {"width": 64, "height": 64, "x": 32, "y": 24, "strength": 1.5}
    area = g.add("ConditioningSetArea", conditioning=g.text("a house"), **place)
    both = g.add("ConditioningCombine", conditioning_1=g.positive, conditioning_2=area)
    return _with_positive(g, both)


@graph
def conditioning_area_in_percent(g: Graph) -> list:
    place = {"width": 0.4, "height": 0.9, "x": 0.3, "y": 0.1, "strength": 0.7}
    area = g.add("ConditioningSetAreaPercentage", conditioning=g.text("a house"), **place)
    both = g.add("ConditioningCombine", conditioning_1=area, conditioning_2=g.positive)
    return _with_positive(g, both)


def _masked(g: Graph, bounds: str) -> list:
    where = {"mask": g.mask(), "set_cond_area": bounds, "strength": 0.8}
    masked = g.add("ConditioningSetMask", conditioning=g.text("a house"), **where)
    return g.add("ConditioningCombine", conditioning_1=g.positive, conditioning_2=masked)


@graph
def conditioning_mask(g: Graph) -> list:
    return _with_positive(g, _masked(g, "default"))


@graph
def conditioning_mask_bounds(g: Graph) -> list:
    return _with_positive(g, _masked(g, "mask bounds"))


@graph
def conditioning_timestep_ranges(g: Graph) -> list:
    early = g.add("ConditioningSetTimestepRange", conditioning=g.positive, start=0.0, end=0.4)
    late = g.add("ConditioningSetTimestepRange", conditioning=g.text("a house"), start=0.4, end=1.0)
    return _with_positive(g, g.add("ConditioningCombine", conditioning_1=early, conditioning_2=late))


@graph
def conditioning_concat(g: Graph) -> list:
    house = g.text("a house")
    return _with_positive(g, g.add("ConditioningConcat", conditioning_to=g.positive, conditioning_from=house))


@graph
def conditioning_average(g: Graph) -> list:
    longer = g.text(", ".join(f"word number {i}" for i in range(30)))
    sides = {"conditioning_to": longer, "conditioning_from": g.positive}
    return _with_positive(g, g.add("ConditioningAverage", **sides, conditioning_to_strength=0.3))


@graph
def conditioning_zeroed(g: Graph) -> list:
    return g.decoded(g.sample(negative=g.add("ConditioningZeroOut", conditioning=g.positive), cfg=1.5))


# --- picture to picture ---


@graph
def picture_to_picture(g: Graph) -> list:
    return g.decoded(g.sample(g.encoded(), denoise=0.6))


@graph
def encoded_in_tiles(g: Graph) -> list:
    tiles = {"tile_size": 128, "overlap": 32, "temporal_size": 64, "temporal_overlap": 8}
    return g.decoded(g.add("VAEEncodeTiled", pixels=g.picture(), vae=g.vae, **tiles))


@graph
def noise_mask(g: Graph) -> list:
    masked = g.add("SetLatentNoiseMask", samples=g.encoded(), mask=g.mask())
    return g.decoded(g.sample(masked, denoise=0.8))


@graph
def noise_mask_with_ddim_on_a_batch(g: Graph) -> list:
    twice = g.add("RepeatLatentBatch", samples=g.encoded(), amount=2)
    masked = g.add("SetLatentNoiseMask", samples=twice, mask=g.mask())
    return g.decoded(g.sample(masked, sampler_name="ddim", scheduler="simple"))


@graph
def encoded_for_inpainting(g: Graph) -> list:
    picture = g.picture()
    inputs = {"pixels": picture, "vae": g.vae, "mask": [picture[0], 1], "grow_mask_by": 5}
    return g.decoded(g.sample(g.add("VAEEncodeForInpaint", **inputs)))


@graph
def outpainting(g: Graph) -> list:
    border = {"left": 24, "top": 0, "right": 16, "bottom": 40, "feathering": 20}
    padded = g.add("ImagePadForOutpaint", image=g.picture(), **border)
    inputs = {"pixels": padded, "vae": g.vae, "mask": [padded[0], 1], "noise_mask": True}
    made = g.add("InpaintModelConditioning", positive=g.positive, negative=g.negative, **inputs)
    sides = {"positive": made, "negative": [made[0], 1]}
    return g.decoded(g.sample([made[0], 2], **sides))


@graph
def upscaled_latent(g: Graph) -> list:
    how = {"upscale_method": "bislerp", "width": g.size + 40, "height": g.size + 8, "crop": "center"}
    return g.decoded(g.sample(g.add("LatentUpscale", samples=g.sample(), **how), denoise=0.5))


@graph
def changed_latents(g: Graph) -> list:
    latent = g.encoded()
    for kind, inputs in (
        ("LatentUpscaleBy", {"upscale_method": "bicubic", "scale_by": 1.3}),
        ("LatentRotate", {"rotation": "90 degrees"}),
        ("LatentFlip", {"flip_method": "y-axis: horizontally"}),
        ("LatentCrop", {"width": 128, "height": 192, "x": 24, "y": 40}),
    ):
        latent = g.add(kind, samples=latent, **inputs)
    latent = g.add("LatentComposite", samples_to=latent, samples_from=g.encoded(), x=40, y=64, feather=32)
    return g.decoded(g.add("LatentBlend", samples1=latent, samples2=g.encoded(), blend_factor=0.7))


# --- models that nodes have changed ---


def _patched(kind: str, scheduler: str = "normal", sampler: str = "euler", **inputs):
    def make(g: Graph) -> list:
        g.model = g.add(kind, model=g.model, **inputs)
        return g.decoded(g.sample(scheduler=scheduler, sampler_name=sampler))

    return make


GRAPHS |= {
    "FreeU": _patched("FreeU", b1=1.1, b2=1.2, s1=0.9, s2=0.2),
    "FreeU, second version": _patched("FreeU_V2", b1=1.3, b2=1.4, s1=0.9, s2=0.2),
    "perturbed attention": _patched("PerturbedAttentionGuidance", scale=3.0),
    "rescaled guidance": _patched("RescaleCFG", multiplier=0.7),
    "velocity, zero terminal SNR": _patched("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True),
    "latent consistency": _patched("ModelSamplingDiscrete", "sgm_uniform", "lcm", sampling="lcm", zsnr=False),
    "EDM": _patched("ModelSamplingContinuousEDM", "karras", sampling="edm", sigma_max=80.0, sigma_min=0.01),
    "velocity, continuous": _patched(
        "ModelSamplingContinuousV", "karras", sampling="v_prediction", sigma_max=80.0, sigma_min=0.01
    ),
    "rectified flow, shifted": _patched("ModelSamplingSD3", "simple", shift=3.0),
    "rectified flow, shifted as Flux": _patched(
        "ModelSamplingFlux", "simple", max_shift=1.15, base_shift=0.5, width=768, height=1024
    ),
}
GRAPHS |= {
    "self-attention guidance": _patched("SelfAttentionGuidance", scale=0.5, blur_sigma=2.0),
    "HyperTile": _patched("HyperTile", tile_size=32, swap_size=2, max_depth=0, scale_depth=False),
    "merged tokens": _patched("TomePatchModel", ratio=0.5),
    "deep shrink": _patched(
        "PatchModelAddDownscale", block_number=1, downscale_factor=2.0, start_percent=0.0, end_percent=0.6,
        downscale_after_skip=True, downscale_method="bicubic", upscale_method="bislerp",
    ),
    "guidance, projected": _patched("APG", eta=0.3, norm_threshold=5.0, momentum=-0.4),
    "guidance, zero star": _patched("CFGZeroStar"),
    "guidance, norm": _patched("CFGNorm", strength=0.9),
    "guidance, tangents damped": _patched("TCFG"),
    "guidance, Mahiro": _patched("Mahiro"),
    "guidance, renormalised": _patched("RenormCFG", cfg_trunc=100.0, renorm_cfg=0.8),
    "guidance by frequency": _patched("FreSca", scale_low=0.8, scale_high=1.3, freq_cutoff=2),
    "noise scaled": _patched("Epsilon Scaling", scaling_factor=1.02),
    "score rescaled": _patched("TemporalScoreRescaling", tsr_k=0.9, tsr_sigma=1.0),
    "self-attention multiplied": _patched("UNetSelfAttentionMultiply", q=1.2, k=0.9, v=1.1, out=0.8),
    "cross-attention multiplied": _patched("UNetCrossAttentionMultiply", q=1.2, k=0.9, v=1.1, out=0.8),
}  # fmt: skip


@graph
def text_encoder_multiplied(g: Graph) -> list:
    factors = {"q": 1.2, "k": 0.9, "v": 1.1, "out": 0.8}
    clip = g.add("CLIPAttentionMultiply", clip=g.clip, **factors)
    return g.decoded(g.sample(positive=g.text(WEIGHTED, clip), negative=g.text("", clip)))


def _sampler(kind: str, **inputs):
    def make(g: Graph) -> list:
        sigmas = g.add("BasicScheduler", model=g.model, scheduler="normal", steps=g.steps, denoise=1.0)
        made = g.add(
            "SamplerCustom", model=g.model, add_noise=True, noise_seed=7, cfg=5.0, positive=g.positive,
            negative=g.negative, sampler=g.add(kind, **inputs), sigmas=sigmas, latent_image=g.empty(),
        )  # fmt: skip
        return g.decoded(made)

    return make


def _reusing(kind: str):
    def make(g: Graph) -> list:
        inputs = {"reuse_threshold": 0.5, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
        g.model = g.add(kind, model=g.model, **inputs)
        return g.decoded(g.sample(steps=8, scheduler="karras"))

    return make


GRAPHS |= {
    "steps reused, EasyCache": _reusing("EasyCache"),
    "steps reused, LazyCache": _reusing("LazyCache"),
    "growing latents": _sampler(
        "SamplerLCMUpscale", scale_ratio=1.5, scale_steps=-1, upscale_method="bilinear"
    ),
    "CFG++": _sampler("SamplerEulerCFGpp", version="regular"),
    "CFG++, alternative": _sampler("SamplerEulerCFGpp", version="alternative"),
}


@graph
def perp_neg(g: Graph) -> list:
    sides = {"positive": g.positive, "negative": g.negative, "empty_conditioning": g.text("")}
    guider = g.add("PerpNegGuider", model=g.model, **sides, cfg=5.0, neg_scale=0.7)
    sampler, noise = g.add("KSamplerSelect", sampler_name="euler"), g.add("RandomNoise", noise_seed=7)
    sigmas = g.add("BasicScheduler", model=g.model, scheduler="normal", steps=g.steps, denoise=1.0)
    return g.decoded(
        g.add(
            "SamplerCustomAdvanced", guider=guider, sampler=sampler, noise=noise, sigmas=sigmas,
            latent_image=g.empty(),
        )
    )  # fmt: skip


def _told_of_pictures(*pictures: tuple[str, float, float]):
    """unCLIP with the same picture, each time (crop, strength, noise)."""

    def make(g: Graph) -> list:
        vision = [g.add("unCLIPCheckpointLoader", ckpt_name=g.checkpoint)[0], 3]
        for crop, strength, noise in pictures:
            seen = g.add("CLIPVisionEncode", clip_vision=vision, image=g.picture(), crop=crop)
            g.positive = g.add(
                "unCLIPConditioning", conditioning=g.positive, clip_vision_output=seen, strength=strength,
                noise_augmentation=noise,
            )  # fmt: skip
        return g.decoded(g.sample())

    return make


GRAPHS_OF["sd21-unclip"] = {
    "unCLIP, a picture": _told_of_pictures(("center", 1.0, 0.0)),
    "unCLIP, a picture with noise": _told_of_pictures(("none", 0.7, 0.3)),
    "unCLIP, two pictures": _told_of_pictures(("center", 1.0, 0.1), ("none", 0.5, 0.0)),
}


@graph
def differential_diffusion(g: Graph) -> list:
    g.model = g.add("DifferentialDiffusion", model=g.model, strength=1.0)
    mask = g.add("LoadImageMask", image=PICTURE, channel="green")
    return g.decoded(g.sample(g.add("SetLatentNoiseMask", samples=g.encoded(), mask=mask)))


# --- pictures alone ---


def _scaling(method: str, crop: str, width: int, height: int):
    def make(g: Graph) -> list:
        size = {"width": width, "height": height, "crop": crop}
        return g.add("ImageScale", image=g.picture(), upscale_method=method, **size)

    return make


for _method in ("nearest-exact", "bilinear", "area", "bicubic", "lanczos"):
    GRAPHS[f"picture scaled up, {_method}"] = _scaling(_method, "disabled", 333, 150)
    GRAPHS[f"picture scaled down and cut, {_method}"] = _scaling(_method, "center", 50, 77)
    GRAPHS[f"picture scaled to a width, {_method}"] = _scaling(_method, "disabled", 111, 0)


@graph
def batch_of_unlike_pictures(g: Graph) -> list:
    gray = g.add("EmptyImage", width=90, height=120, batch_size=1, color=0x3366CC)
    scaled = g.add("ImageScaleBy", image=g.picture(), upscale_method="bicubic", scale_by=0.77)
    batch = g.add("ImageBatch", image1=g.add("ImageInvert", image=scaled), image2=g.picture())
    return g.add("ImageBatch", image1=batch, image2=gray)
