"""Control models in conditioning: a picture says what goes where, and the UNet adds what they say.

Several are chained by `previous_controlnet`; what they say is added up. Objects are cheap copies around a
network that all share.
"""

from __future__ import annotations

import logging
from enum import Enum

import torch

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
from comfy.errors import UnknownArchitecture
from comfy.families import ldm_controlnet
from comfy.mapped_memory import cast_weights
from comfy_depot import hooks as depot

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

    def set_cond_hint(
        self, cond_hint, strength=1.0, timestep_percent_range=(0.0, 1.0), vae=None, extra_concat=()
    ):
        """The picture (B, 3, H, W) in 0..1, how much it counts, and in which share of the steps."""
        self.cond_hint_original = cond_hint
        self.strength = strength
        self.timestep_percent_range = timestep_percent_range
        self.extra_concat_orig = list(extra_concat)
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
            "concat_mask", "extra_concat_orig", "extra_hooks", "preprocess_image", "vae",
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
        net = cls(load_device=patcher.load_device, manual_cast_dtype=patcher.model.manual_cast_dtype)
        net.control_model, net.control_model_wrapped = patcher.model, patcher
        return net

    def get_control(self, x_noisy, t, cond, batched_number: int, transformer_options) -> Control | None:
        """What the UNet is to add at this step; None where nothing controls it."""
        before = None
        if self.previous_controlnet is not None:
            before = self.previous_controlnet.get_control(
                x_noisy, t, cond, batched_number, transformer_options
            )
        if not self.applies_at(t[0]):
            return before
        dtype = self.manual_cast_dtype or self.control_model.dtype
        self._prepare_hint(x_noisy, batched_number, dtype)
        context = cond.get("crossattn_controlnet", cond["c_crossattn"])
        extra = {name: cond[name].to(dtype) for name in self.extra_conds if cond.get(name) is not None}
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
            hint = comfy.utils.common_upscale(
                self.cond_hint_original, width, height, self.upscale_algorithm, "center"
            )
            self.cond_hint = self.preprocess_image(hint).to(device=x_noisy.device, dtype=dtype)
        if self.cond_hint.shape[0] != x_noisy.shape[0]:
            self.cond_hint = broadcast_image_to(self.cond_hint, x_noisy.shape[0], batched_number)

    def copy(self) -> ControlNet:
        """Another user of the same network."""
        new = ControlNet(load_device=self.load_device, manual_cast_dtype=self.manual_cast_dtype)
        new.control_model, new.control_model_wrapped = self.control_model, self.control_model_wrapped
        self.copy_to(new)
        return new

    def get_models(self) -> list:
        return [*super().get_models(), self.control_model_wrapped]

    def pre_run(self, model, percent_to_timestep_function) -> None:
        super().pre_run(model, percent_to_timestep_function)
        self.model_sampling_current = model.model_sampling

    def cleanup(self) -> None:
        self.model_sampling_current = None
        super().cleanup()


def load_controlnet(ckpt_path, model=None, model_options=None) -> ControlNet:
    """The control model of a file.

    Raises:
        UnreadableModelFile: the file is damaged or no model file.
        UnknownArchitecture: it is no ControlNet, or one of a kind that is not known here.
        ModelFileError: it is a variant with other weights than its architecture has.
    """
    net = ControlNet.around(_load_network(ckpt_path))
    net.global_average_pooling = str(ckpt_path).endswith(POOLED)
    return net


@depot.keeps_resident("ckpt_path")
def _load_network(ckpt_path):
    """The patcher of a file's network; its module knows in which dtype it computes."""
    weights = comfy.utils.load_torch_file(ckpt_path, safe_load=True)
    if not ldm_controlnet.is_controlnet(weights):
        raise _unknown(weights, ckpt_path)
    if "difference" in weights:
        raise UnknownArchitecture(
            f"'{ckpt_path}' holds the difference of a ControlNet to a base model, which cannot be used here. "
            "Choose the whole ControlNet."
        )
    management = comfy.model_management
    device, given = management.get_torch_device(), comfy.utils.weight_dtype(weights)
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights), weight_dtype=given
    )
    cast_dtype = management.unet_manual_cast(dtype, device)
    weights = dict(weights)
    cast_weights(weights, list(weights), dtype)
    network = ldm_controlnet.LDMControlNet.from_weights(weights)
    network.manual_cast_dtype = cast_dtype
    if cast_dtype is not None:
        comfy.ops.cast_on_use(network)
    return comfy.model_patcher.ModelPatcher(
        network, load_device=device, offload_device=management.unet_offload_device()
    )


def _unknown(weights, ckpt_path) -> UnknownArchitecture:
    names = list(weights)
    sample = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return UnknownArchitecture(
        f"'{ckpt_path}' is no ControlNet that is known here (of the UNets of Stable Diffusion, in the layout "
        f"of the original or of diffusers). It holds {len(names)} tensors: {sample or 'none'}."
    )
