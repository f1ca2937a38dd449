"""Control models in conditioning: a picture says what goes where, and the UNet adds what they say.

Several are chained by `previous_controlnet`; what they say is added up. Objects are cheap copies around a
network that all share.
"""

from __future__ import annotations

import logging
import os
from enum import Enum

import torch

import comfy.control_files
import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy.absent_families import absent_class
from comfy.control_fit import require_fit
from comfy.families import control_lora, t2i_adapter
from comfy.lora_file import LoraFile

Control = dict[str, list[torch.Tensor | None]]
# Files of which the name alone says that their results are means over the picture.
POOLED = ("_shuffle.pth", "_shuffle.safetensors", "_shuffle_fp16.safetensors")


class StrengthType(Enum):
    """How the strength falls off from the deepest result on."""

    CONSTANT = 1
    LINEAR_UP = 2


def broadcast_image_to(tensor, target_batch_size: int, batched_number: int):
    """The pictures (B, ...) for a batch of `batched_number` sides, each of the same latents.

    Fewer pictures than latents are repeated, more are left out; a single one serves all.
    """
    if tensor.shape[0] == 1:
        return tensor
    per_side = target_batch_size // batched_number
    one_side = comfy.utils.repeat_to_batch_size(tensor, per_side)
    return torch.cat([one_side] * batched_number)


class ControlBase:
    """What every control model has: the picture, its strength, when it applies, and who else controls."""

    def __init__(self):
        self.cond_hint_original = None
        self.cond_hint = None
        self.strength = 1.0
        self.timestep_percent_range = (0.0, 1.0)
        self.timestep_range = None
        self.latent_format = None
        self.vae = None
        self.global_average_pooling = False
        self.compression_ratio = 8
        self.upscale_algorithm = "nearest-exact"
        self.extra_args = {}
        self.previous_controlnet = None
        self.extra_conds = []
        self.strength_type = StrengthType.CONSTANT
        self.concat_mask = False
        self.extra_concat_orig = []
        self.extra_concat = None
        self.extra_hooks = None
        self.preprocess_image = lambda image: image
        self.file = None  # its name, for errors

    def set_cond_hint(
        self, cond_hint, strength=1.0, timestep_percent_range=(0.0, 1.0), vae=None, extra_concat=()
    ):
        """The picture (B, 3, H, W) in 0..1, how much it counts, and in which share of the steps."""
        self.cond_hint_original = cond_hint
        self.strength = strength
        self.timestep_percent_range = timestep_percent_range
        self.extra_concat_orig = list(extra_concat)
        if self.concat_mask and not self.extra_concat_orig:
            self.extra_concat_orig.append(torch.ones(1, 1, 1, 1))  # all of the picture is to be kept
        if self.latent_format is not None:
            if vae is None:
                logging.warning("This control model needs a VAE: connect one to the node that applies it.")
            self.vae = vae
        return self

    def set_previous_controlnet(self, controlnet):
        """What else controls the same conditioning."""
        self.previous_controlnet = controlnet
        return self

    def set_extra_arg(self, argument: str, value=None) -> None:
        """An argument for the network, by name."""
        self.extra_args[argument] = value

    def pre_run(self, model, percent_to_timestep_function) -> None:
        """A run begins: between which noise levels this applies."""
        start, end = self.timestep_percent_range
        self.timestep_range = (percent_to_timestep_function(start), percent_to_timestep_function(end))
        if self.previous_controlnet is not None:
            self.previous_controlnet.pre_run(model, percent_to_timestep_function)

    def cleanup(self) -> None:
        """The run has ended: let go of what was kept for it."""
        if self.previous_controlnet is not None:
            self.previous_controlnet.cleanup()
        self.cond_hint = self.extra_concat = self.timestep_range = None

    def get_models(self) -> list:
        """The patchers that must be loaded."""
        return [] if self.previous_controlnet is None else self.previous_controlnet.get_models()

    def get_extra_hooks(self) -> list:
        """Hooks that come with the control models."""
        own = [] if self.extra_hooks is None else [self.extra_hooks]
        return own + ([] if self.previous_controlnet is None else self.previous_controlnet.get_extra_hooks())

    def inference_memory_requirements(self, dtype) -> int:
        """Bytes that a call needs besides the weights."""
        before = self.previous_controlnet
        return 0 if before is None else before.inference_memory_requirements(dtype)

    def copy_to(self, other) -> None:
        """Give another object all but the network and what belongs to a run."""
        names = (
            "cond_hint_original", "strength", "timestep_percent_range", "global_average_pooling",
            "compression_ratio", "upscale_algorithm", "latent_format", "extra_conds", "strength_type",
            "concat_mask", "extra_concat_orig", "extra_hooks", "preprocess_image", "vae", "file",
        )  # fmt: skip
        for name in names:
            setattr(other, name, getattr(self, name))
        other.extra_args = self.extra_args.copy()

    def applies_at(self, sigma) -> bool:
        """Whether this noise level lies between those of the run's start and end percent."""
        if self.timestep_range is None:
            return True
        start, end = self.timestep_range
        return bool(end <= float(sigma) <= start)

    def control_before(self, x_noisy, t, cond, batched_number: int, transformer_options) -> Control | None:
        """What the models before this one say at this step."""
        before = self.previous_controlnet
        if before is None:
            return None
        return before.get_control(x_noisy, t, cond, batched_number, transformer_options)

    def control_merge(self, control: Control, control_prev: Control | None, output_dtype) -> Control:
        """This model's results times its strength, plus those of the models before it."""
        out: Control = {"input": [], "middle": [], "output": []}
        for name, results in control.items():
            for index, result in enumerate(results):
                if result is not None:
                    result = self._weighted(result, len(results) - index)
                    result = result if output_dtype is None else result.to(output_dtype)
                out[name].append(result)
        return out if control_prev is None else _added(out, control_prev)

    def _weighted(self, result, distance: int):
        if self.global_average_pooling:
            result = result.mean(dim=(2, 3), keepdim=True).expand_as(result)
        linear = self.strength_type == StrengthType.LINEAR_UP
        return result * (self.strength**distance if linear else self.strength)


def _added(control: Control, before: Control) -> Control:
    """Two controls, result by result; either may lack some."""
    for name, results in before.items():
        own = control.setdefault(name, [])
        for index, result in enumerate(results):
            if index >= len(own):
                own.append(result)
            elif own[index] is None:
                own[index] = result
            elif result is not None:
                own[index] = own[index] + result
    return control


class ControlNet(ControlBase):
    """A network that is asked with the UNet's own input and with the picture."""

    def __init__(
        self, control_model=None, global_average_pooling=False, compression_ratio=8, latent_format=None,
        load_device=None, manual_cast_dtype=None, extra_conds=("y",), strength_type=StrengthType.CONSTANT,
        concat_mask=False, preprocess_image=lambda image: image,
    ):  # fmt: skip
        super().__init__()
        self.control_model = control_model
        self.load_device = load_device
        self.control_model_wrapped = None
        if control_model is not None:
            self.control_model_wrapped = comfy.model_patcher.ModelPatcher(
                control_model, load_device=load_device,
                offload_device=comfy.model_management.unet_offload_device(),
            )  # fmt: skip
        self.global_average_pooling = global_average_pooling
        self.compression_ratio = compression_ratio
        self.latent_format = latent_format
        self.manual_cast_dtype = manual_cast_dtype
        self.model_sampling_current = None
        self.extra_conds = list(extra_conds)
        self.strength_type = strength_type
        self.concat_mask = concat_mask
        self.preprocess_image = preprocess_image

    @classmethod
    def around(cls, patcher) -> ControlNet:
        """Of a patcher whose network is loaded already."""
        settings = getattr(patcher.model, "control_settings", dict)()
        net = cls(
            load_device=patcher.load_device, manual_cast_dtype=patcher.model.manual_cast_dtype, **settings
        )
        net.control_model, net.control_model_wrapped = patcher.model, patcher
        return net

    def get_control(self, x_noisy, t, cond, batched_number: int, transformer_options) -> Control | None:
        """What the UNet is to add at this step; None where nothing controls it."""
        before = self.control_before(x_noisy, t, cond, batched_number, transformer_options)
        if not self.applies_at(t[0]):
            return before
        dtype = self.manual_cast_dtype or self.control_model.dtype
        self._prepare_hint(x_noisy, batched_number, dtype)
        context = cond.get("crossattn_controlnet", cond["c_crossattn"])
        extra = {
            name: comfy.model_management.cast_to_device(cond[name], x_noisy.device, dtype)
            for name in self.extra_conds if cond.get(name) is not None
        }  # fmt: skip
        timestep = self.model_sampling_current.timestep(t)
        x = self.model_sampling_current.calculate_input(t, x_noisy)
        control = self.control_model(
            x=x.to(dtype), hint=self.cond_hint, timesteps=timestep.to(dtype),
            context=comfy.model_management.cast_to_device(context, x.device, dtype),
            **extra, **self.extra_args,
        )  # fmt: skip
        return self.control_merge(control, before, output_dtype=None)

    def _prepare_hint(self, x_noisy, batched_number: int, dtype) -> None:
        """Bring the picture to the size and the batch of the latents, once for a run."""
        height, width = (side * self.compression_ratio for side in x_noisy.shape[-2:])
        if self.cond_hint is None or self.cond_hint.shape[-2:] != (height, width):
            hint = self._latent_of(width, height) if self.latent_format else self._scaled(width, height)
            self.cond_hint = self._with_masks(hint).to(device=x_noisy.device, dtype=dtype)
        if self.cond_hint.shape[0] != x_noisy.shape[0]:
            self.cond_hint = broadcast_image_to(self.cond_hint, x_noisy.shape[0], batched_number)

    def _scaled(self, width: int, height: int):
        """The picture in this size, as the network wants to see it."""
        hint = comfy.utils.common_upscale(
            self.cond_hint_original, width, height, self.upscale_algorithm, "center"
        )
        return self.preprocess_image(hint)

    def _latent_of(self, width: int, height: int):
        """The picture's latent of this size, as the model scales latents."""
        if self.vae is None:
            raise ValueError(
                f"This control model{self._of_file()} looks at the picture through a VAE, and none is "
                "connected. Connect the model's VAE to 'vae' of the node that applies it (Apply ControlNet)."
            )
        pixels = self.vae.spacial_compression_encode()
        in_use = comfy.model_management.loaded_models(only_currently_used=True)
        latent = self.vae.encode(self._scaled(width * pixels, height * pixels).movedim(1, -1))
        comfy.model_management.load_models_gpu(in_use)  # what the VAE may have taken the place of
        wanted = self.latent_format.latent_channels
        if latent.shape[1] != wanted:
            raise ValueError(
                f"This control model{self._of_file()} needs latents of {wanted} channels, and the connected "
                f"VAE makes {latent.shape[1]}. Connect the VAE of the model that is sampled."
            )
        return self.latent_format.process_in(latent)

    def _with_masks(self, hint):
        """Channels that stand behind those of the picture, in its size."""
        height, width = hint.shape[-2:]
        more = [
            comfy.utils.common_upscale(mask.to(hint), width, height, self.upscale_algorithm, "center")
            for mask in self.extra_concat_orig
        ]
        return torch.cat([hint, *(comfy.utils.repeat_to_batch_size(m, hint.shape[0]) for m in more)], dim=1)

    def _of_file(self) -> str:
        return f" ('{self.file}')" if self.file else ""

    def copy(self) -> ControlNet:
        """Another user of the same network."""
        new = ControlNet(load_device=self.load_device, manual_cast_dtype=self.manual_cast_dtype)
        new.control_model, new.control_model_wrapped = self.control_model, self.control_model_wrapped
        self.copy_to(new)
        return new

    def get_models(self) -> list:
        return [*super().get_models(), self.control_model_wrapped]

    def pre_run(self, model, percent_to_timestep_function) -> None:
        if hasattr(self.control_model, "fit"):
            require_fit(self.control_model.fit(), model, file=self.file)
        super().pre_run(model, percent_to_timestep_function)
        self.model_sampling_current = model.model_sampling

    def cleanup(self) -> None:
        self.model_sampling_current = None
        super().cleanup()


class ControlLora(ControlNet):
    """A ControlNet that is made at the begin of each run, of the UNet's weights and those of a file."""

    def __init__(self, control_weights, global_average_pooling=False, model_options=None):
        super().__init__(global_average_pooling=global_average_pooling)
        self.control_weights = control_weights

    def pre_run(self, model, percent_to_timestep_function) -> None:
        dtype = model.get_dtype_inference()
        if "channel_mult" not in model.model_config.unet_config:
            raise control_lora.no_unet(type(model.model_config).__name__, self.file)
        self.manual_cast_dtype = dtype
        self.control_model = control_lora.network(
            self.control_weights, model.diffusion_model, model.model_config.unet_config,
            dtype=dtype, device=comfy.model_management.get_torch_device(),
        )  # fmt: skip
        super().pre_run(model, percent_to_timestep_function)

    def copy(self) -> ControlLora:
        new = ControlLora(self.control_weights)
        self.copy_to(new)
        return new

    def cleanup(self) -> None:
        self.control_model = None
        super().cleanup()

    def get_models(self) -> list:
        return ControlBase.get_models(self)

    def inference_memory_requirements(self, dtype) -> int:
        size = comfy.utils.calculate_parameters(self.control_weights) * dtype.itemsize
        return size + super().inference_memory_requirements(dtype)


class T2IAdapter(ControlBase):
    """A network that looks at the picture alone, once for a run."""

    def __init__(
        self, t2i_model, channels_in, compression_ratio, upscale_algorithm, device=None, patcher=None
    ):  # fmt: skip
        super().__init__()
        management = comfy.model_management
        self.t2i_model = t2i_model
        self.channels_in = channels_in
        self.control_input = None
        self.compression_ratio = compression_ratio
        self.upscale_algorithm = upscale_algorithm
        self.device = management.get_torch_device() if device is None else device
        self.patcher = patcher or comfy.model_patcher.ModelPatcher(
            t2i_model, load_device=self.device, offload_device=management.unet_offload_device()
        )

    @classmethod
    def around(cls, patcher) -> T2IAdapter:
        """Of a patcher whose network is loaded already."""
        net, device = patcher.model, patcher.load_device
        return cls(net, net.input_channels, 8, "nearest-exact", device, patcher)

    def scale_image_to(self, width: int, height: int) -> tuple[int, int]:
        """The next size that the network can take, in pixels."""
        unit = self.t2i_model.unshuffle_amount
        return -(-width // unit) * unit, -(-height // unit) * unit

    def get_control(self, x_noisy, t, cond, batched_number: int, transformer_options) -> Control | None:
        """What the UNet is to add at this step; None where nothing controls it."""
        before = self.control_before(x_noisy, t, cond, batched_number, transformer_options)
        if not self.applies_at(t[0]):
            return before
        height, width = (side * self.compression_ratio for side in x_noisy.shape[-2:])
        width, height = self.scale_image_to(width, height)
        if self.cond_hint is None or self.cond_hint.shape[-2:] != (height, width):
            self.cond_hint = self._picture(width, height)
            self.control_input = None
        if self.cond_hint.shape[0] != x_noisy.shape[0]:
            self.cond_hint = broadcast_image_to(self.cond_hint, x_noisy.shape[0], batched_number)
            self.control_input = None
        if self.control_input is None:
            self.control_input = self.t2i_model(self.cond_hint.to(x_noisy))
        return self.control_merge(self.control_input, before, x_noisy.dtype)

    def _picture(self, width: int, height: int):
        picture = comfy.utils.common_upscale(
            self.cond_hint_original, width, height, self.upscale_algorithm, "center"
        ).float()
        if self.channels_in == 1 and picture.shape[1] > 1:
            picture = picture.mean(dim=1, keepdim=True)
        return picture.to(self.device)

    def copy(self) -> T2IAdapter:
        """Another user of the same network."""
        new = T2IAdapter.around(self.patcher)
        self.copy_to(new)
        return new

    def get_models(self) -> list:
        return [*super().get_models(), self.patcher]

    def pre_run(self, model, percent_to_timestep_function) -> None:
        if hasattr(self.t2i_model, "fit"):
            require_fit(self.t2i_model.fit(), model, file=self.file)
        super().pre_run(model, percent_to_timestep_function)

    def cleanup(self) -> None:
        self.control_input = None
        super().cleanup()


def load_controlnet(ckpt_path, model=None, model_options=None):
    """The control model of a file, a ControlNet, ControlLora or T2IAdapter; `model` for files of differences.

    Raises:
        UnreadableModelFile: the file is damaged or no model file.
        UnknownArchitecture: it is no control model, or one of a kind that is not known here.
        ModelFileError: it is a variant with other weights than its architecture has.
    """
    loaded = _of_differences(ckpt_path, model) or comfy.control_files.load_network(ckpt_path)
    options = model_options or {}
    control = _around(loaded)
    control.global_average_pooling = options.get("global_average_pooling", str(ckpt_path).endswith(POOLED))
    control.file = os.path.basename(ckpt_path)
    return control


def load_controlnet_state_dict(state_dict, model=None, model_options=None):
    """`load_controlnet` for tensors that are read already."""
    files = comfy.control_files
    whole = model is None or files.DIFFERENCE not in state_dict
    loaded = files.from_weights(state_dict) if whole else files.with_base(state_dict, model, "these weights")
    control = _around(loaded)
    control.global_average_pooling = (model_options or {}).get("global_average_pooling", False)
    return control


def load_t2i_adapter(t2i_data, model_options=None) -> T2IAdapter | None:
    """The adapter of a file's tensors; None where they are none of an adapter."""
    known = t2i_adapter.is_t2i_adapter(t2i_data)
    return T2IAdapter.around(comfy.control_files.from_weights(t2i_data)) if known else None


def _of_differences(ckpt_path, model):
    """The patcher of a file of differences on this model's weights; None for other files."""
    if model is None:
        return None
    weights = comfy.utils.load_torch_file(ckpt_path, safe_load=True)
    if comfy.control_files.DIFFERENCE not in weights:
        return None
    return comfy.control_files.with_base(weights, model, ckpt_path)


def _around(loaded):
    """The object of a workflow around what `comfy.control_files` gives."""
    if isinstance(loaded, LoraFile):
        return ControlLora(loaded.tensors)
    kind = T2IAdapter if isinstance(loaded.model, t2i_adapter.LDMT2IAdapter) else ControlNet
    return kind.around(loaded)


ControlNetSD35 = absent_class(__name__, "ControlNetSD35", ControlNet)
