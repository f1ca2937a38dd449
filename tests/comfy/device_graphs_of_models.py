"""The workflows of `device_graphs` for control models, changed models, guidance and custom sampling."""

from tests.comfy.device_graphs import GRAPHS, graph, loaded_picture, picture, prompts, sampled, sd1, whole
from tests.fakes.graphs import Graph

# --- control ------------------------------------------------------------------------------------------


def _controlled(g: Graph, net, image, name="sd1", **latent):
    model, _, vae, positive, negative = sd1(g, name)
    positive, negative = g.ControlNetApplyAdvanced(
        positive=positive, negative=negative, control_net=net, image=image, strength=0.8, vae=vae
    )
    g.keep(sampled(g, model, positive, negative, **latent))


@graph
def control_net(g):
    net = g.ControlNetLoader(control_net_name="net.safetensors")
    _controlled(g, net, picture(g)[1])
    _controlled(g, net, loaded_picture(g)[0])
    model, _, _, positive, negative = sd1(g)
    twice = positive
    for image in (loaded_picture(g)[0], picture(g)[1]):
        twice = g.ControlNetApply(conditioning=twice, control_net=net, image=image, strength=0.4)
    g.keep(sampled(g, model, twice, negative))
    _controlled(g, g.DiffControlNetLoader(model=model, control_net_name="net.safetensors"), picture(g)[1])


@graph
def control_union(g):
    net = g.ControlNetLoader(control_net_name="union.safetensors")
    _controlled(g, g.SetUnionControlNetType(control_net=net, type="depth"), picture(g)[1])
    _controlled(g, net, loaded_picture(g)[0])


@graph
def control_inpainting(g):
    image, mask = loaded_picture(g)
    model, _, vae, positive, negative = sd1(g)
    net = g.ControlNetLoader(control_net_name="net.safetensors")
    positive, negative = g.ControlNetInpaintingAliMamaApply(
        positive=positive, negative=negative, control_net=net, vae=vae, image=image, mask=mask
    )
    g.keep(sampled(g, model, positive, negative))


@graph
def control_lora(g):
    _controlled(g, g.ControlNetLoader(control_net_name="lora.safetensors"), loaded_picture(g)[0])


@graph
def control_adapter(g):
    net = g.ControlNetLoader(control_net_name="t2i.safetensors")
    large = {"latent": g.EmptyLatentImage(width=64, height=64)}
    _controlled(g, net, loaded_picture(g)[0], "levels", **large)


# --- changed models -----------------------------------------------------------------------------------


@graph
def lora(g):
    model, clip, _, _, negative = sd1(g)
    model, clip = g.LoraLoader(
        model=model, clip=clip, lora_name="style.safetensors", strength_model=0.7, strength_clip=0.5
    )
    positive = prompts(g, clip)[0]
    g.keep(positive, sampled(g, model, positive, negative))
    stronger = g.LoraLoaderModelOnly(model=model, lora_name="style.safetensors", strength_model=0.4)
    g.keep(sampled(g, stronger, positive, negative))
    whole(g, "sd1")  # the plain model is itself again


@graph
def merged(g):
    one, clip1, _, positive, negative = sd1(g)
    two, clip2, _, _, _ = sd1(g, "other")
    for model in (
        g.ModelMergeSimple(model1=one, model2=two, ratio=0.3),
        g.ModelMergeBlocks(model1=one, model2=two, input=0.2, middle=0.5, out=0.9),
        g.ModelMergeAdd(model1=one, model2=g.ModelMergeSubtract(model1=two, model2=one, multiplier=0.5)),
    ):
        g.keep(sampled(g, model, positive, negative))
    added = g.CLIPMergeAdd(clip1=clip1, clip2=g.CLIPMergeSubtract(clip1=clip2, clip2=clip1, multiplier=0.5))
    for clip in (g.CLIPMergeSimple(clip1=clip1, clip2=clip2, ratio=0.4), added):
        g.keep(prompts(g, clip)[0])


@graph
def saved_models(g):
    model, clip, vae, _, _ = sd1(g)
    style = g.LoraLoader(model=model, clip=clip, lora_name="style.safetensors")
    g.CheckpointSave(model=style[0], clip=style[1], vae=vae, filename_prefix="whole")
    g.ModelSave(model=model, filename_prefix="model")
    g.CLIPSave(clip=style[1], filename_prefix="text")
    g.VAESave(vae=vae, filename_prefix="vae")


# --- guidance and patches of the network --------------------------------------------------------------

PATCHES = {
    "PerturbedAttentionGuidance": {}, "SelfAttentionGuidance": {"blur_sigma": 1.0}, "FreeU": {},
    "FreeU_V2": {}, "HyperTile": {"tile_size": 32}, "TomePatchModel": {}, "RescaleCFG": {},
    "EasyCache": {"start_percent": 0.0, "reuse_threshold": 3.0},
    "LazyCache": {"start_percent": 0.0, "reuse_threshold": 3.0}, "FreSca": {"freq_cutoff": 2}, "TCFG": {},
    "Mahiro": {}, "APG": {"momentum": 0.5}, "CFGZeroStar": {}, "CFGNorm": {}, "Epsilon Scaling": {},
    "TemporalScoreRescaling": {}, "PatchModelAddDownscale": {"block_number": 1, "end_percent": 1.0},
    "UNetSelfAttentionMultiply": {"q": 1.2}, "UNetCrossAttentionMultiply": {"v": 0.8},
    "ModelSamplingDiscrete": {"sampling": "v_prediction", "zsnr": True}, "ModelComputeDtype": {},
    "ModelSamplingContinuousEDM": {"sampling": "eps"}, "ModelSamplingContinuousV": {},
    "ModelSamplingSD3": {}, "ModelSamplingStableCascade": {},
}  # fmt: skip


def _patch(class_type, options):
    def fill(g):
        model, _, _, positive, negative = sd1(g)
        patched = g.add(class_type, model=model, **options)
        g.keep(sampled(g, patched, positive, negative, steps=3))

    return fill


GRAPHS.update({f"patch_{name}": _patch(name, options) for name, options in PATCHES.items()})


@graph
def perpendicular_negative(g):
    model, clip, _, positive, negative = sd1(g)
    nothing = g.CLIPTextEncode(text="", clip=clip)
    g.keep(sampled(g, g.PerpNeg(model=model, empty_conditioning=nothing), positive, negative))
    guider = g.PerpNegGuider(model=model, positive=positive, negative=negative, empty_conditioning=nothing)
    _custom(g, guider)


# --- custom sampling ----------------------------------------------------------------------------------


def _custom(g: Graph, guider, sampler=None, sigmas=None, latent=None, noise=None):
    out, denoised = g.SamplerCustomAdvanced(
        noise=noise or g.RandomNoise(noise_seed=5), guider=guider,
        sampler=sampler or g.KSamplerSelect(sampler_name="euler"),
        sigmas=sigmas or g.KarrasScheduler(steps=2),
        latent_image=latent or g.EmptyLatentImage(width=48, height=32),
    )  # fmt: skip
    g.keep(out, denoised)
    return out


@graph
def guiders(g):
    model, clip, _, positive, negative = sd1(g)
    other = g.CLIPTextEncode(text="sun", clip=clip)
    two = {"model": model, "cond1": positive, "cond2": other, "negative": negative}
    _custom(g, g.BasicGuider(model=model, conditioning=positive))
    _custom(g, g.CFGGuider(model=model, positive=positive, negative=negative))
    for style in ("regular", "nested"):
        _custom(g, g.DualCFGGuider(**two, style=style))


@graph
def custom_sampling(g):
    model, _, _, positive, negative = sd1(g)
    guider = g.CFGGuider(model=model, positive=positive, negative=negative)
    latent = g.VAEEncode(pixels=loaded_picture(g)[0], vae=sd1(g)[2])
    high, low = g.SplitSigmas(sigmas=g.KarrasScheduler(steps=4), step=2)
    first = _custom(g, guider, sigmas=high, latent=latent)
    _custom(g, guider, sigmas=low, latent=first, noise=g.DisableNoise())
    noisy = g.AddNoise(model=model, noise=g.RandomNoise(noise_seed=2), sigmas=low, latent_image=latent)
    g.keep(noisy)
    masked = g.SetLatentNoiseMask(samples=latent, mask=loaded_picture(g)[1])
    _custom(g, guider, latent=masked)
    g.keep(*g.SamplerCustom(
        model=model, positive=positive, negative=negative, latent_image=latent,
        sampler=g.SamplerEulerCFGpp(), sigmas=g.BasicScheduler(model=model, steps=2, denoise=0.7),
    ))  # fmt: skip
    late = {"start_at_step": 1, "return_with_leftover_noise": "enable", "end_at_step": 3, "steps": 4}
    g.keep(g.KSamplerAdvanced(
        model=model, positive=positive, negative=negative, latent_image=latent, scheduler="normal",
        sampler_name="dpmpp_2m", **late,
    ))  # fmt: skip


@graph
def growing_latents(g):
    model, _, _, positive, _ = sd1(g)
    sampler = g.SamplerLCMUpscale(scale_ratio=1.5)
    guider = g.BasicGuider(model=model, conditioning=positive)
    _custom(g, guider, sampler, g.ManualSigmas(sigmas="8, 2, 1, 0"))


@graph
def schedules(g):
    model = sd1(g)[0]
    g.keep(*(g.BasicScheduler(model=model, scheduler=name, steps=4) for name in _schedulers()))
    g.keep(g.BetaSamplingScheduler(model=model, steps=4), g.SDTurboScheduler(model=model, steps=2))
    g.keep(g.AlignYourStepsScheduler(steps=4), g.SamplingPercentToSigma(model=model, sampling_percent=0.4))
    sigmas = g.BasicScheduler(model=model, steps=4)
    g.keep(g.ExtendIntermediateSigmas(sigmas=sigmas), g.SetFirstSigma(sigmas=sigmas))
    g.keep(g.FlipSigmas(sigmas=sigmas), *g.SplitSigmasDenoise(sigmas=sigmas, denoise=0.5))


def _schedulers():
    from comfy import sampler_names

    return sampler_names.schedulers()
