# ruff: noqa: B006 - defaults like upstream's; they are only read
"""A diffusion model as the samplers see it: `apply_model(x, sigma, ...) -> denoised`.

The network is the zoo's, wrapped by its family so that it takes (x, timesteps, context, ...); the prediction
type is `comfy.model_sampling`'s. What a family needs beyond that, it adds in a subclass.
"""

from __future__ import annotations

import logging
import math
from enum import Enum

import torch

import comfy.attention_bias
import comfy.conds
import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension
import comfy.unclip
import comfy.utils
from comfy import absent_families
from comfy.unclip import CLIPEmbeddingNoiseAugmentation  # noqa: F401 - where packs look for it


class ModelType(Enum):
    """What the network predicts."""

    EPS = 1
    V_PREDICTION = 2
    V_PREDICTION_EDM = 3
    STABLE_CASCADE = 4
    EDM = 5
    FLOW = 6
    V_PREDICTION_CONTINUOUS = 7
    FLUX = 8
    IMG_TO_IMG = 9
    FLOW_COSMOS = 10


# Per type: (what the output means, how time runs), by name, so that a pack may replace either.
_SAMPLING = {
    ModelType.EPS: ("EPS", "ModelSamplingDiscrete"),
    ModelType.V_PREDICTION: ("V_PREDICTION", "ModelSamplingDiscrete"),
    ModelType.V_PREDICTION_EDM: ("V_PREDICTION", "ModelSamplingContinuousEDM"),
    ModelType.STABLE_CASCADE: ("EPS", "StableCascadeSampling"),
    ModelType.EDM: ("EDM", "ModelSamplingContinuousEDM"),
    ModelType.FLOW: ("CONST", "ModelSamplingDiscreteFlow"),
    ModelType.V_PREDICTION_CONTINUOUS: ("V_PREDICTION", "ModelSamplingContinuousV"),
    ModelType.FLUX: ("CONST", "ModelSamplingFlux"),
    ModelType.IMG_TO_IMG: ("IMG_TO_IMG", "ModelSamplingDiscrete"),
    ModelType.FLOW_COSMOS: ("COSMOS_RFLOW", "ModelSamplingCosmosRFlow"),
}


def model_sampling(model_config, model_type: ModelType):
    """The sampling object of a model: one class made of a schedule and a prediction type."""
    prediction, schedule = _SAMPLING[model_type]
    bases = (getattr(comfy.model_sampling, schedule), getattr(comfy.model_sampling, prediction))
    return type("ModelSampling", bases, {})(model_config)


def convert_tensor(extra, dtype, device):
    """Conditioning goes to the model's dtype, but whole numbers stay whole."""
    whole = extra.dtype in (torch.int, torch.long)
    return comfy.model_management.cast_to_device(extra, device, None if whole else dtype)


def _convert(value, dtype, device):
    if hasattr(value, "dtype"):
        return convert_tensor(value, dtype, device)
    return [_convert(item, dtype, device) for item in value] if isinstance(value, list) else value


SIZE_EMBEDDING = 256  # channels per number in the vector conditioning of SDXL


def _vector_conditioning(model: BaseModel, pooled, numbers: list[float]):
    """`y` of SDXL (B, width + 256 * numbers): the pooled prompt (B, width), then each number as sinusoids.

    Raises:
        ValueError: the pooled prompt is missing or of another text encoder.
    """
    from diffusers.models.embeddings import get_timestep_embedding

    width = model.adm_channels - SIZE_EMBEDDING * len(numbers)
    if pooled is None or pooled.shape[-1] != width:
        found = "none" if pooled is None else f"one of {pooled.shape[-1]} numbers"
        raise ValueError(
            f"This model needs prompts with a pooled output of {width} numbers, and this conditioning has "
            f"{found}. Encode the prompt with the text encoder of a checkpoint of the same family."
        )
    values = torch.tensor(numbers, dtype=torch.float32)
    embedded = get_timestep_embedding(values, SIZE_EMBEDDING, flip_sin_to_cos=True, downscale_freq_shift=0)
    sizes = embedded.reshape(1, -1).expand(pooled.shape[0], -1)
    return torch.cat((pooled.to(sizes.device), sizes), dim=1)


class BaseModel(torch.nn.Module):
    """`unet_model(**model_config.unet_config, device=..., operations=None)` builds the network."""

    def __init__(self, model_config, model_type=ModelType.EPS, device=None, unet_model=None):
        super().__init__()
        unet_config = model_config.unet_config
        self.model_config = model_config
        self.model_type = model_type
        self.latent_format = model_config.latent_format
        self.manual_cast_dtype = model_config.manual_cast_dtype
        self.device = device
        self.current_patcher = None
        if unet_model is not None and not unet_config.get("disable_unet_model_creation", False):
            operations = model_config.custom_operations
            self.diffusion_model = unet_model(**unet_config, device=device, operations=operations).eval()
            logging.info(
                "%s: weights %s, computing in %s.", type(model_config).__name__, self.get_dtype(),
                self.manual_cast_dtype or self.get_dtype(),
            )  # fmt: skip
        self.model_sampling = model_sampling(model_config, model_type)
        self.adm_channels = unet_config.get("adm_in_channels") or 0
        self.concat_keys = ()
        self.memory_usage_factor = model_config.memory_usage_factor
        self.memory_usage_factor_conds = ()
        self.memory_usage_shape_process = {}

    def get_dtype(self):
        """The dtype of the weights."""
        return self.diffusion_model.dtype

    def get_dtype_inference(self):
        """The dtype that the network computes in."""
        return self.manual_cast_dtype or self.get_dtype()

    # --- one evaluation ---

    def apply_model(
        self,
        x,
        t,
        c_concat=None,
        c_crossattn=None,
        control=None,
        transformer_options={},
        **kwargs,
    ):
        """Denoise x (B, C, H, W) at sigma t (B,); through the wrappers that packs registered."""
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.APPLY_MODEL, transformer_options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self._apply_model, self, wrappers
        )
        return executor.execute(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    def _apply_model(
        self,
        x,
        t,
        c_concat=None,
        c_crossattn=None,
        control=None,
        transformer_options={},
        **kwargs,
    ):
        sigma = t
        xc = self.model_sampling.calculate_input(sigma, x)
        if c_concat is not None:
            xc = torch.cat([xc, comfy.model_management.cast_to_device(c_concat, xc.device, xc.dtype)], dim=1)
        dtype = self.get_dtype_inference()
        xc = xc.to(dtype)
        context = None
        if c_crossattn is not None:
            context = comfy.model_management.cast_to_device(c_crossattn, xc.device, dtype)
        extra = {name: _convert(value, dtype, xc.device) for name, value in kwargs.items()}
        timestep = self.process_timestep(self.model_sampling.timestep(sigma).float(), x=x, **extra)
        if "latent_shapes" in extra:
            xc = comfy.utils.unpack_latents(xc, extra.pop("latent_shapes"))
        output = self.diffusion_model(
            xc, timestep, context=context, control=control, transformer_options=transformer_options, **extra
        )
        if not torch.is_tensor(output):
            output, _ = comfy.utils.pack_latents(output)
        return self.model_sampling.calculate_denoised(sigma, output.float(), x)

    def process_timestep(self, timestep, **kwargs):
        return timestep

    # --- conditioning ---

    def encode_adm(self, **kwargs):
        """The vector conditioning of families that have one (`y` of the network)."""
        return

    def extra_conds(self, **kwargs) -> dict:
        """From the entries of a CONDITIONING to the arguments of `apply_model`."""
        out = {}
        concat = kwargs.get("noise_concat")
        if concat is None:
            concat = self.concat_cond(**kwargs)
        if concat is not None:
            out["c_concat"] = comfy.conds.CONDNoiseShape(concat)
        adm = self.encode_adm(**kwargs)
        if adm is not None:
            out["y"] = comfy.conds.CONDRegular(adm)
        for source, target in (
            ("cross_attn", "c_crossattn"),
            ("cross_attn_controlnet", "crossattn_controlnet"),
        ):
            if kwargs.get(source) is not None:
                out[target] = comfy.conds.CONDCrossAttn(kwargs[source])
        return out

    def extra_conds_shapes(self, **kwargs) -> dict:
        return {}

    def concat_cond(self, **kwargs):
        """The channels that inpainting models get besides the noise: `self.concat_keys` names them."""
        if not self.concat_keys:
            return None
        noise, device = kwargs["noise"], kwargs["device"]
        image = self._concat_image(kwargs, noise)
        mask = kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        if mask is not None:
            mask = self._concat_mask(mask, noise)
        channels = [self._concat_channel(key, image, mask, noise) for key in self.concat_keys]
        return torch.cat([channel.to(device) for channel in channels], dim=1)

    def _concat_image(self, kwargs, noise):
        image = kwargs.get("concat_latent_image")
        image = kwargs.get("latent_image") if image is None else self.process_latent_in(image)
        if image is None:
            return None
        if image.shape[1:] != noise.shape[1:]:
            image = comfy.utils.common_upscale(image, noise.shape[-1], noise.shape[-2], "bilinear", "center")
            if noise.ndim == 5:
                missing = max(0, noise.shape[-3] - image.shape[-3])
                image = torch.nn.functional.pad(image, (0, 0, 0, 0, 0, missing))[:, :, : noise.shape[-3]]
        return comfy.utils.resize_to_batch_size(image, noise.shape[0])

    def _concat_mask(self, mask, noise):
        if mask.ndim == noise.ndim:
            mask = mask[:, :1]
        mask = mask.reshape((-1, 1) + tuple(mask.shape[-(noise.ndim - 2) :]))
        if mask.shape[-2:] != noise.shape[-2:]:
            mask = comfy.utils.common_upscale(mask, noise.shape[-1], noise.shape[-2], "bilinear", "center")
        return comfy.utils.resize_to_batch_size(mask.round(), noise.shape[0])

    def _concat_channel(self, key: str, image, mask, noise):
        if key == "concat_image":
            return torch.zeros_like(noise) if image is None else image
        if key == "masked_image":
            return self.blank_inpaint_image_like(noise) if mask is None or image is None else image
        if mask is None:
            mask = torch.ones_like(noise)[:, :1]
        return 1.0 - mask if key == "mask_inverted" else mask

    def blank_inpaint_image_like(self, latent_image):
        """A gray picture (0 in pixel space), as SD1's VAE encodes it."""
        gray = torch.tensor(
            [0.8223, -0.6876, 0.6364, 0.1380], device=latent_image.device, dtype=latent_image.dtype
        )
        return gray.reshape(1, 4, *([1] * (latent_image.ndim - 2))).expand_as(latent_image).clone()

    def set_inpaint(self) -> None:
        """This network takes a mask and the masked image besides the noise."""
        self.concat_keys = ("mask", "masked_image")

    def scale_latent_inpaint(self, sigma, noise, latent_image, **kwargs):
        """The latent of the kept region, with the noise of this sigma."""
        sigma = sigma.reshape([sigma.shape[0]] + [1] * (noise.ndim - 1))
        return self.model_sampling.noise_scaling(sigma, noise, latent_image)

    # --- latents, memory, saving ---

    def process_latent_in(self, latent):
        return self.latent_format.process_in(latent)

    def process_latent_out(self, latent):
        return self.latent_format.process_out(latent)

    def memory_required(self, input_shape, cond_shapes={}) -> float:
        """Bytes that one evaluation needs besides the weights, as an estimate."""
        shapes = [input_shape]
        for name in self.memory_usage_factor_conds:
            process = self.memory_usage_shape_process.get(name, lambda shape: shape)
            shapes += [process(shape) for shape in cond_shapes.get(name) or ()]
        area = sum(shape[0] * math.prod(shape[2:]) for shape in shapes)
        if comfy.model_management.pytorch_attention_flash_attention():
            size = comfy.model_management.dtype_size(self.get_dtype_inference())
            return area * size * 0.01 * self.memory_usage_factor * 1024 * 1024
        return area * 0.15 * self.memory_usage_factor * 1024 * 1024

    def load_model_weights(self, sd, unet_prefix="", assign=True):
        """Give the network its weights, taking them out of `sd`; every weight must be there."""
        weights = comfy.utils.state_dict_prefix_replace(sd, {unet_prefix: ""}, filter_keys=True)
        weights = self.model_config.process_unet_state_dict(weights)
        self.diffusion_model.load_weights(weights)
        return self

    def state_dict_for_saving(
        self, clip_state_dict=None, vae_state_dict=None, clip_vision_state_dict=None
    ) -> dict:
        """All weights under the names that a checkpoint file gives them."""
        config = self.model_config
        weights = self.diffusion_model.state_dict()
        if hasattr(self.diffusion_model, "checkpoint_weights"):
            weights = self.diffusion_model.checkpoint_weights(weights)
        out = config.process_unet_state_dict_for_saving(weights)
        if self.model_type is ModelType.V_PREDICTION:
            out["v_pred"] = torch.tensor([])
        for weights, process in (
            (clip_state_dict, config.process_clip_state_dict_for_saving),
            (vae_state_dict, config.process_vae_state_dict_for_saving),
            (clip_vision_state_dict, config.process_clip_vision_state_dict_for_saving),
        ):
            if weights is not None:
                out.update(process(weights))
        return out


def sdxl_pooled(args, noise_augmentor):
    """The vector of a prompt, or that of pictures which take its place; packs call it."""
    pictures = args.get("unclip_conditioning")
    if pictures is None:
        return args["pooled_output"]
    seed, width = args.get("seed") or 0, noise_augmentor.width
    return noise_augmentor.vector_conditioning(pictures, seed, 0.05, args["device"])[:, :width]


def _pooled_or_pictures(model: BaseModel, numbers: int, **kwargs):
    """The pooled prompt; pictures that unCLIPConditioning told of take its place (Revision)."""
    pictures = kwargs.get("unclip_conditioning")
    if pictures is None:
        return kwargs.get("pooled_output")
    width = model.adm_channels - SIZE_EMBEDDING * numbers
    augment = comfy.unclip.NoiseAugmentation(width)
    told = augment.vector_conditioning(pictures, kwargs.get("seed") or 0, 0.0, kwargs.get("device"))
    return told[:, :width]


class SDXL(BaseModel):
    """Knows the size of the original picture, where it was cropped, and the wanted size, in pixels."""

    def encode_adm(self, **kwargs):
        """`y` (B, pooled width + 6 * 256); sizes that were not given are those of the latent."""
        width, height = kwargs.get("width", 768), kwargs.get("height", 768)
        crop = [kwargs.get("crop_h", 0), kwargs.get("crop_w", 0)]
        target = [kwargs.get("target_height", height), kwargs.get("target_width", width)]
        pooled = _pooled_or_pictures(self, 6, **kwargs)
        return _vector_conditioning(self, pooled, [height, width, *crop, *target])


class SDXLRefiner(BaseModel):
    """Knows size and crop of the original picture, and how beautiful the picture should be (0..10)."""

    def encode_adm(self, **kwargs):
        """`y` (B, pooled width + 5 * 256); a score that was not given is 6, in negative prompts 2.5."""
        score = kwargs.get("aesthetic_score", 2.5 if kwargs.get("prompt_type") == "negative" else 6.0)
        size = [kwargs.get("height", 768), kwargs.get("width", 768)]
        crop = [kwargs.get("crop_h", 0), kwargs.get("crop_w", 0)]
        pooled = _pooled_or_pictures(self, 5, **kwargs)
        return _vector_conditioning(self, pooled, [*size, *crop, score])


class SD21UNCLIP(BaseModel):
    """SD2.1 that is told of pictures by their CLIP vectors, and how much noise these have."""

    def __init__(
        self, model_config, noise_aug_config, model_type=ModelType.V_PREDICTION, device=None, unet_model=None
    ):
        super().__init__(model_config, model_type, device=device, unet_model=unet_model)
        self.noise_augmentor = comfy.unclip.NoiseAugmentation(noise_aug_config["timestep_dim"])

    def encode_adm(self, **kwargs):
        """`y` (1, 2 * width of the vectors); zeros without pictures."""
        pictures = kwargs.get("unclip_conditioning")
        if pictures is None:
            return torch.zeros(1, self.adm_channels, device=kwargs.get("device"))
        merge_amount = kwargs.get("unclip_noise_augment_merge", 0.05)
        seed = kwargs.get("seed") or 0
        return self.noise_augmentor.vector_conditioning(pictures, seed, merge_amount, kwargs.get("device"))


def _whole_prompt(model: BaseModel, tokens):
    """The tokens (B, tokens, width) of a prompt; those of unlike lengths are not repeated, but run apart.

    Raises:
        ValueError: they are of another width than the network takes: of another family's text encoder.
    """
    config = model.model_config
    width = config.unet_config[config.context_width]
    if tokens.shape[-1] != width:
        raise ValueError(
            f"{type(config).__name__} needs prompts of {width} numbers per token, and this conditioning has "
            f"{tokens.shape[-1]}. Encode the prompt with {config.text_encoder}."
        )
    return comfy.conds.CONDRegular(tokens)


class Flux(BaseModel):
    """Flux.1: guidance is an input of the network; variants take more channels or reference pictures."""

    def __init__(self, model_config, model_type=ModelType.FLUX, device=None, unet_model=None):
        super().__init__(model_config, model_type, device=device, unet_model=unet_model)
        self.memory_usage_factor_conds = ("ref_latents",)

    def encode_adm(self, **kwargs):
        """CLIP's pooled vector."""
        return kwargs.get("pooled_output")

    def extra_conds(self, **kwargs) -> dict:
        """Besides the tokens: guidance (3.5 where none was set, none where it was disabled), pictures."""
        out = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            out["c_crossattn"] = _whole_prompt(self, kwargs["cross_attn"])
        guidance = kwargs.get("guidance", 3.5)
        if guidance is not None:
            out["guidance"] = comfy.conds.CONDRegular(torch.tensor([float(guidance)]))
        out.update(self._attention_bias(**kwargs))
        references = kwargs.get("reference_latents")
        if references is not None:
            out["ref_latents"] = comfy.conds.CONDList([self.process_latent_in(ref) for ref in references])
            method = kwargs.get("reference_latents_method")
            if method is not None:
                out["ref_latents_method"] = comfy.conds.CONDConstant(method)
        return out

    def _attention_bias(self, noise=None, attention_mask=None, attention_mask_img_shape=None, **_unused):
        """A mask of style models, for as many tokens as the latent has; others are of no use here."""
        if attention_mask is None or attention_mask_img_shape is None:
            return {}
        size = self.diffusion_model.patch_size
        tokens = tuple(-(-side // size) for side in noise.shape[-2:])
        mask = comfy.attention_bias.resized(attention_mask, attention_mask_img_shape, tokens)
        return {"attention_mask": comfy.conds.CONDRegular(mask)}

    def concat_cond(self, **kwargs):
        """What Fill and variants for control get besides the noise: a latent picture, Fill a mask as well."""
        config = self.model_config.unet_config
        channels, own = config["in_channels"], config["out_channels"]
        if channels <= own:
            return None
        noise, image = kwargs["noise"], kwargs.get("concat_latent_image")
        image = torch.zeros_like(noise) if image is None else image.to(kwargs["device"])
        image = comfy.utils.common_upscale(image, noise.shape[-1], noise.shape[-2], "bilinear", "center")
        image = self.process_latent_in(comfy.utils.resize_to_batch_size(image, noise.shape[0]))
        if channels <= 2 * own:
            return image
        return torch.cat([image, self._mask_of_pixels(kwargs, noise).to(image)], dim=1)

    def _mask_of_pixels(self, kwargs, noise):
        """(B, 64, H, W): of each latent pixel its 8x8 pixels, 1 where the picture is to be painted."""
        mask = kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        mask = torch.ones_like(noise)[:, :1] if mask is None else mask
        mask = mask.reshape(-1, *mask.shape[-3:]).mean(dim=1, keepdim=True)
        height, width = (side * 8 for side in noise.shape[-2:])
        mask = comfy.utils.common_upscale(mask, width, height, "bilinear", "center")
        return comfy.utils.resize_to_batch_size(torch.nn.functional.pixel_unshuffle(mask, 8), noise.shape[0])

    def extra_conds_shapes(self, **kwargs) -> dict:
        """Reference pictures need memory as if the latent were larger by them."""
        references = kwargs.get("reference_latents")
        if references is None:
            return {}
        area = sum(math.prod(ref.shape[-2:]) for ref in references)
        return {"ref_latents": [1, self.latent_format.latent_channels, area]}


class PromptModel(BaseModel):
    """Prompts are as long as they are: those of unlike lengths run apart. Their width is the network's."""

    def extra_conds(self, **kwargs) -> dict:
        """As `BaseModel.extra_conds`; a mask (B, tokens) that hides nothing is none.

        Raises:
            ValueError: the prompt was made by the text encoder of another family.
        """
        out = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            out["c_crossattn"] = _whole_prompt(self, kwargs["cross_attn"])
        mask = kwargs.get("attention_mask")
        if mask is not None and not mask.bool().all():
            out["attention_mask"] = comfy.conds.CONDRegular(mask)
        return out


class Lumina2(PromptModel):
    """Lumina 2 and Z-Image."""


def __getattr__(name: str):
    """Classes of families that do not run here, made when a pack first names one; and a layer."""
    if name == "Timestep":
        from comfy.ldm.modules.diffusionmodules.openaimodel import Timestep

        return Timestep
    if name not in absent_families.MODEL_BASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base = absent_families.MODEL_BASES[name]
    parent = globals()[base] if base in globals() else __getattr__(base)
    globals()[name] = found = absent_families.absent_class(__name__, name, parent)
    return found
