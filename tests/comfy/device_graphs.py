"""Workflows for every part of the library, small enough for a CPU: {name: function that fills a Graph}."""

from tests.fakes.graphs import Graph

GRAPHS = {}
# Those in which the device draws random numbers, which are its own.
DRAWN_ON_THE_DEVICE = {"patch_TomePatchModel", "growing_latents"}
# Those that round to 8 bits what a model has computed; a difference of 1e-6 may become one of 1/255.
ROUNDED = {"pictures", "vision"}


def graph(function):
    GRAPHS[function.__name__] = function
    return function


def prompts(g: Graph, clip, texts=("a red cat", "rain")):
    return [g.CLIPTextEncode(text=text, clip=clip) for text in texts]


def sampled(g: Graph, model, positive, negative, latent=None, **options):
    if latent is None:
        latent = g.EmptyLatentImage(width=48, height=32, batch_size=2)
    given = {"seed": 3, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", **options}
    return g.KSampler(model=model, positive=positive, negative=negative, latent_image=latent, **given)


def sd1(g: Graph, name="sd1"):
    """(MODEL, CLIP, VAE, positive, negative) of a checkpoint."""
    model, clip, vae = g.CheckpointLoaderSimple(ckpt_name=f"{name}.safetensors")
    return model, clip, vae, *prompts(g, clip)


def picture(g: Graph, name="sd1"):
    """(LATENT, IMAGE) of the checkpoint's plain workflow."""
    model, _, vae, positive, negative = sd1(g, name)
    latent = sampled(g, model, positive, negative)
    return latent, g.VAEDecode(samples=latent, vae=vae)


def loaded_picture(g: Graph):
    return g.LoadImage(image="picture.png")


# --- families -----------------------------------------------------------------------------------------


def whole(g: Graph, name: str) -> None:
    model, _, vae, positive, negative = sd1(g, name)
    latent = sampled(g, model, positive, negative)
    image = g.VAEDecode(samples=latent, vae=vae)
    g.keep(positive, latent, image, g.VAEEncode(pixels=image, vae=vae))


@graph
def family_sd1(g):
    whole(g, "sd1")


@graph
def family_sd2(g):
    whole(g, "sd2")


@graph
def family_v_prediction(g):
    whole(g, "v")


@graph
def family_sdxl(g):
    model, clip, vae = g.CheckpointLoaderSimple(ckpt_name="sdxl.safetensors")
    positive = g.CLIPTextEncodeSDXL(clip=clip, width=320, height=200, text_g="a cat", text_l="red")
    negative = g.CLIPTextEncode(text="rain", clip=clip)
    latent = sampled(g, model, positive, negative)
    g.keep(positive, negative, latent, g.VAEDecode(samples=latent, vae=vae))


@graph
def family_refiner(g):
    model, clip, _ = g.CheckpointLoaderSimple(ckpt_name="refiner.safetensors")
    positive, negative = (g.CLIPTextEncodeSDXLRefiner(clip=clip, ascore=n, text="a cat") for n in (6, 2))
    g.keep(positive, sampled(g, model, positive, negative))


@graph
def family_inpaint(g):
    model, _, vae, positive, negative = sd1(g, "inpaint")
    image, mask = loaded_picture(g)
    positive, negative, latent = g.InpaintModelConditioning(
        positive=positive, negative=negative, vae=vae, pixels=image, mask=mask
    )
    g.keep(positive, latent, sampled(g, model, positive, negative, latent))
    plain = sd1(g, "inpaint")[3:]
    g.keep(sampled(g, model, *plain))
    masked = g.SetLatentNoiseMask(samples=g.VAEEncode(pixels=image, vae=vae), mask=mask)
    g.keep(sampled(g, model, *plain, masked, denoise=0.8))


@graph
def family_unclip(g):
    model, clip, vae, vision = g.unCLIPCheckpointLoader(ckpt_name="unclip.safetensors")
    positive, negative = prompts(g, clip)
    for strength, noise in ((1.0, 0.0), (0.5, 0.3)):
        seen = g.CLIPVisionEncode(clip_vision=vision, image=loaded_picture(g)[0])
        positive = g.unCLIPConditioning(
            conditioning=positive, clip_vision_output=seen, strength=strength, noise_augmentation=noise
        )
    g.keep(seen, sampled(g, model, positive, negative))


def flux(g: Graph):
    """(MODEL, VAE, CONDITIONING) of Flux."""
    clip = g.DualCLIPLoader(clip_name1="clip_l.safetensors", clip_name2="t5.safetensors", type="flux")
    model = g.UNETLoader(unet_name="flux.safetensors")
    vae = g.VAELoader(vae_name="flux.safetensors")
    text = g.CLIPTextEncodeFlux(clip=clip, clip_l="a red cat", t5xxl="a red cat in the rain", guidance=2.0)
    return model, vae, text


def flux_latent(g: Graph, model, positive, **options):
    latent = g.EmptySD3LatentImage(width=48, height=32, batch_size=1)
    return sampled(g, model, positive, positive, latent, **{"cfg": 1.0, "scheduler": "simple", **options})


@graph
def family_flux(g):
    model, vae, text = flux(g)
    latent = flux_latent(g, g.ModelSamplingFlux(model=model, width=48, height=32), text)
    g.keep(text, latent, g.VAEDecode(samples=latent, vae=vae))


@graph
def flux_references(g):
    model, vae, text = flux(g)
    image = g.FluxKontextImageScale(image=g.EmptyImage(width=64, height=48, color=0x336699))
    small = g.ImageScale(image=image, width=64, height=48)
    text = g.ReferenceLatent(conditioning=text, latent=g.VAEEncode(pixels=small, vae=vae))
    text = g.FluxKontextMultiReferenceLatentMethod(conditioning=text, reference_latents_method="index")
    g.keep(flux_latent(g, model, text))


@graph
def flux_style(g):
    model, _, text = flux(g)
    seen = g.CLIPVisionEncode(
        clip_vision=g.CLIPVisionLoader(clip_name="siglip.safetensors"), image=loaded_picture(g)[0]
    )
    redux = g.StyleModelLoader(style_model_name="redux.safetensors")
    for kind in ("multiply", "attn_bias"):
        text = g.StyleModelApply(
            conditioning=text, style_model=redux, clip_vision_output=seen, strength=0.6, strength_type=kind
        )
    g.keep(seen, text, flux_latent(g, model, text))


@graph
def flux_control(g):
    model, vae, text = flux(g)
    for name in ("flux", "xlabs", "mist"):
        net = g.ControlNetLoader(control_net_name=f"{name}.safetensors")
        controlled, _ = g.ControlNetApplyAdvanced(
            positive=text, negative=text, control_net=net, image=loaded_picture(g)[0], strength=0.7, vae=vae
        )
        g.keep(flux_latent(g, model, controlled))


@graph
def flux_fill(g):
    _, vae, text = flux(g)
    model = g.UNETLoader(unet_name="fill.safetensors")
    image, mask = loaded_picture(g)
    text, other, latent = g.InpaintModelConditioning(
        positive=text, negative=text, vae=vae, pixels=image, mask=mask
    )
    g.keep(sampled(g, model, text, other, latent, cfg=1.0, scheduler="simple"))
    g.keep(flux_latent(g, model, flux(g)[2]))


@graph
def flux_control_of_a_hole(g):
    model, vae, text = flux(g)
    net = g.ControlNetLoader(control_net_name="hole.safetensors")
    image = g.VAEDecode(samples=flux_latent(g, model, text), vae=vae)
    text, _ = g.ControlNetInpaintingAliMamaApply(
        positive=text, negative=text, control_net=net, vae=vae, image=image, mask=loaded_picture(g)[1]
    )
    g.keep(flux_latent(g, model, text))


@graph
def flux_in_fp8(g):
    text = g.T5TokenizerOptions(
        clip=g.DualCLIPLoader(clip_name1="clip_l.safetensors", clip_name2="t5.safetensors", type="flux",
                              device="cpu"), min_padding=3, min_length=12,
    )  # fmt: skip
    text = g.FluxDisableGuidance(conditioning=g.CLIPTextEncode(text="a red cat", clip=text))
    for name, dtype in (("flux", "fp8_e4m3fn"), ("scaled", "default")):
        model = g.UNETLoader(unet_name=f"{name}.safetensors", weight_dtype=dtype)
        g.keep(flux_latent(g, model, text))


@graph
def flux_layers(g):
    model, _, text = flux(g)
    model = g.ScaleROPE(model=model, scale_x=1.2, shift_y=1.0)
    model = g.SkipLayerGuidanceDiT(model=model, double_layers="0", single_layers="1", start_percent=0.0,
                                   end_percent=1.0, rescaling_scale=0.3)  # fmt: skip
    g.keep(flux_latent(g, model, text, cfg=2.0))


@graph
def family_z_image(g):
    clip = g.CLIPLoader(clip_name="qwen.safetensors", type="lumina2")
    positive, _ = prompts(g, clip)
    negative = g.ConditioningZeroOut(conditioning=positive)
    model = g.ModelSamplingAuraFlow(model=g.UNETLoader(unet_name="z.safetensors"), shift=3.0)
    latent = flux_latent(g, g.RenormCFG(model=model), positive, cfg=3.0)
    g.keep(positive, negative, latent, sampled(g, model, positive, negative, latent, denoise=0.5))


# --- pictures and latents -----------------------------------------------------------------------------


@graph
def tiles(g):
    latent, image = picture(g)
    vae = sd1(g)[2]
    g.keep(g.VAEDecodeTiled(samples=latent, vae=vae, tile_size=64, overlap=16))
    large = g.ImageScale(image=image, width=160, height=144)
    g.keep(g.VAEEncodeTiled(pixels=large, vae=vae, tile_size=128, overlap=64))


@graph
def picture_to_picture(g):
    model, _, vae, positive, negative = sd1(g)
    image, mask = loaded_picture(g)
    latent = g.VAEEncode(pixels=image, vae=vae)
    g.keep(latent, sampled(g, model, positive, negative, latent, denoise=0.6))
    masked = g.SetLatentNoiseMask(samples=latent, mask=mask)
    soft = g.DifferentialDiffusion(model=model, strength=0.8)
    g.keep(sampled(g, model, positive, negative, masked, denoise=0.7))
    g.keep(sampled(g, soft, positive, negative, masked, denoise=0.7, sampler_name="dpmpp_2m"))
    filled = g.VAEEncodeForInpaint(pixels=image, vae=vae, mask=mask)
    g.keep(filled, sampled(g, model, positive, negative, filled))


@graph
def made_picture_with_loaded_mask(g):
    image, mask = g.ImageScale(image=picture(g)[1], width=48, height=32), loaded_picture(g)[1]
    model, _, vae, positive, negative = sd1(g, "inpaint")
    filled = g.VAEEncodeForInpaint(pixels=image, vae=vae, mask=mask)
    positive, negative, latent = g.InpaintModelConditioning(
        positive=positive, negative=negative, vae=vae, pixels=image, mask=mask
    )
    g.keep(filled, positive, sampled(g, model, positive, negative, latent))
    net = g.ControlNetLoader(control_net_name="net.safetensors")
    model, _, vae, positive, negative = sd1(g)
    positive, negative = g.ControlNetInpaintingAliMamaApply(
        positive=positive, negative=negative, control_net=net, vae=vae, image=image, mask=mask
    )
    g.keep(sampled(g, model, positive, negative))


@graph
def outpainting(g):
    _, image = picture(g)
    padded, mask = g.ImagePadForOutpaint(image=image, left=16, top=8, feathering=8)
    model, _, vae, positive, negative = sd1(g)
    filled = g.VAEEncodeForInpaint(pixels=padded, vae=vae, mask=mask)
    g.keep(padded, mask, sampled(g, model, positive, negative, filled))


@graph
def files(g):
    latent, image = picture(g)
    g.SaveImage(images=image, filename_prefix="made")
    g.PreviewImage(images=image)
    g.SaveLatent(samples=latent, filename_prefix="made")
    g.keep(g.LoadImageMask(image="picture.png", channel="red"))


@graph
def pictures(g):
    _, image = picture(g)
    loaded, mask = loaded_picture(g)
    g.keep(*(g.ImageScale(image=image, width=40, height=24, upscale_method=method, crop="center")
             for method in ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")))  # fmt: skip
    g.keep(g.ImageScaleBy(image=image, scale_by=1.5), g.ImageInvert(image=image))
    g.keep(g.ImageBatch(image1=image, image2=loaded), g.ImageBatch(image1=loaded, image2=image))
    g.keep(g.RebatchImages(images=g.ImageBatch(image1=image, image2=image), batch_size=1))


TWO_LATENTS = ("LatentBlend", "LatentAdd", "LatentSubtract", "LatentBatch", "LatentInterpolate")


@graph
def latents(g):
    latent, _ = picture(g)
    other = g.VAEEncode(pixels=loaded_picture(g)[0], vae=sd1(g)[2])
    empty = g.EmptyLatentImage(width=48, height=32, batch_size=2)
    two = {"samples1": latent, "samples2": other}
    g.keep(*(g.LatentUpscale(samples=latent, width=80, height=64, upscale_method=method)
             for method in ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")))  # fmt: skip
    g.keep(g.LatentUpscaleBy(samples=latent), g.LatentFromBatch(samples=latent, batch_index=1))
    g.keep(g.LatentRotate(samples=latent, rotation="90 degrees"))
    g.keep(g.RepeatLatentBatch(samples=latent, amount=3), g.LatentFlip(samples=latent))
    g.keep(g.LatentCrop(samples=latent, width=24, height=16, x=8, y=8))
    g.keep(g.LatentComposite(samples_to=latent, samples_from=other, x=8, y=8, feather=16))
    g.keep(g.LatentComposite(samples_to=empty, samples_from=latent, x=8))
    g.keep(*(g.add(name, **two) for name in TWO_LATENTS), g.LatentMultiply(samples=latent, multiplier=0.5))
    g.keep(g.LatentConcat(samples1=latent, samples2=empty, dim="x"), g.LatentCut(samples=latent, dim="y"))
    g.keep(g.LatentCutToBatch(samples=latent, dim="x", slice_size=2))
    loaded = g.LoadLatent(latent="saved.latent")
    for pair in ({"samples1": latent, "samples2": loaded}, {"samples1": loaded, "samples2": latent}):
        g.keep(*(g.add(name, **pair) for name in TWO_LATENTS))
        g.keep(g.LatentConcat(**pair, dim="x"))
        g.keep(g.LatentComposite(samples_to=pair["samples1"], samples_from=pair["samples2"], y=8, feather=8))
    fixed = g.LatentBatchSeedBehavior(samples=latent)
    model, _, _, positive, negative = sd1(g)
    g.keep(sampled(g, model, positive, negative, fixed, denoise=0.5))
    for operation in (g.LatentOperationTonemapReinhard(), g.LatentOperationSharpen(sharpen_radius=2)):
        g.keep(g.LatentApplyOperation(samples=latent, operation=operation))
        changed = g.LatentApplyOperationCFG(model=model, operation=operation)
        g.keep(sampled(g, changed, positive, negative))


@graph
def upscaled(g):
    model = g.UpscaleModelLoader(model_name="esrgan.safetensors")
    g.keep(g.ImageUpscaleWithModel(upscale_model=model, image=picture(g)[1]))
    g.keep(g.ImageUpscaleWithModel(upscale_model=model, image=loaded_picture(g)[0]))


@graph
def tiny_autoencoder(g):
    latent, image = picture(g)
    vae = g.VAELoader(vae_name="taesd")
    g.keep(g.VAEDecode(samples=latent, vae=vae), g.VAEEncode(pixels=image, vae=vae))


# --- conditioning -------------------------------------------------------------------------------------


@graph
def conditionings(g):
    model, clip, _, positive, negative = sd1(g)
    other = g.CLIPTextEncode(text="a (blue:1.3) [dog] in the snow, " * 12, clip=clip)
    skipped = g.CLIPTextEncode(text="sun", clip=g.CLIPSetLastLayer(clip=clip, stop_at_clip_layer=-2))
    louder = g.CLIPAttentionMultiply(clip=clip, q=1.2, v=0.9)
    embedded = g.CLIPTextEncode(text="a (embedding:style:1.2) cat", clip=clip)
    named = g.CLIPTextEncodeControlnet(clip=clip, conditioning=positive, text="a drawing")
    sides = [
        other, skipped, embedded, named, prompts(g, louder)[0], g.ConditioningZeroOut(conditioning=positive),
        g.ConditioningCombine(conditioning_1=positive, conditioning_2=other),
        g.ConditioningConcat(conditioning_to=positive, conditioning_from=other),
        *(g.ConditioningAverage(conditioning_to=to, conditioning_from=of, conditioning_to_strength=0.6)
          for to, of in ((positive, other), (other, positive))),
        g.ConditioningSetTimestepRange(conditioning=positive, start=0.2, end=0.9),
    ]  # fmt: skip
    g.keep(*sides)
    for side in sides:
        g.keep(sampled(g, model, side, negative))


@graph
def regions(g):
    model, _, _, positive, negative = sd1(g)
    mask = loaded_picture(g)[1]
    for region in (
        g.ConditioningSetArea(conditioning=positive, width=24, height=24, x=8, y=8, strength=0.7),
        g.ConditioningSetAreaPercentage(conditioning=positive, width=0.5, height=0.7, x=0.3, strength=0.8),
        g.ConditioningSetMask(conditioning=positive, mask=mask, strength=0.9),
        g.ConditioningSetMask(conditioning=positive, mask=mask, set_cond_area="mask bounds"),
    ):
        both = g.ConditioningCombine(conditioning_1=negative, conditioning_2=region)
        g.keep(sampled(g, model, both, negative))


@graph
def vision(g):
    image = picture(g)[1]
    for name in ("clip", "siglip"):
        model = g.CLIPVisionLoader(clip_name=f"{name}.safetensors")
        g.keep(g.CLIPVisionEncode(clip_vision=model, image=image, crop="none"))
        g.keep(g.CLIPVisionEncode(clip_vision=model, image=loaded_picture(g)[0]))


@graph
def style_adapter(g):
    model, _, _, positive, negative = sd1(g)
    seen = g.CLIPVisionEncode(
        clip_vision=g.CLIPVisionLoader(clip_name="clip.safetensors"), image=loaded_picture(g)[0]
    )
    adapter = g.StyleModelLoader(style_model_name="adapter.safetensors")
    text = g.StyleModelApply(conditioning=positive, style_model=adapter, clip_vision_output=seen)
    g.keep(text, sampled(g, model, text, negative))
