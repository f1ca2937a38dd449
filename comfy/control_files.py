"""Which kind of control model a file holds, and its network.

Every network has `forward(x, hint, timesteps, context, ...)` (of T2I-Adapter: `forward(hint)`), `fit()` and
`manual_cast_dtype`; `comfy.controlnet` puts the object of the workflow around it.
"""

from __future__ import annotations

import comfy.families
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
from comfy.errors import ModelFileError, UnknownArchitecture
from comfy.families import (
    control_lora,
    flux_controlnet,
    ldm_controlnet,
    t2i_adapter,
    union_controlnet,
)
from comfy.lora_file import LoraFile
from comfy.mapped_memory import cast_weights
from comfy_depot import hooks as depot

DIFFERENCE = "difference"
# Control models that cannot be used here, by the beginning of a name.
_UNSUPPORTED = {
    "pos_embed_input.proj.": "a ControlNet of SD3, which is not supported yet",
    "after_proj_list.": "a ControlNet of HunyuanDiT, which is not supported yet",
    "transformer_blocks.0.img_mlp.": "a ControlNet of Qwen-Image, which is not supported yet",
    "backbone.": "a ControlNet of Stable Cascade, which is not supported yet",
    "lllite_": "a ControlNet-LLLite, which needs the nodes of a node pack",
}


@depot.keeps_resident("ckpt_path")
def load_network(ckpt_path):
    """The patcher of a file's network; of a Control-LoRA the file's tensors, which need a UNet.

    Raises:
        UnreadableModelFile: the file is damaged or no model file.
        UnknownArchitecture: it is of no kind that is known here.
        ModelFileError: it is a variant with other weights than its architecture has.
    """
    weights = comfy.utils.load_torch_file(ckpt_path, safe_load=True)
    if DIFFERENCE in weights:
        raise UnknownArchitecture(
            f"'{ckpt_path}' holds the difference of a ControlNet to a base model. Load it with "
            "DiffControlNetLoader, which takes the base model; or choose the whole ControlNet."
        )
    return from_weights(weights, ckpt_path)


def from_weights(weights, source="these weights"):
    """What `load_network` gives, for weights that were read; `source` names them in errors."""
    if control_lora.is_control_lora(weights):
        return LoraFile(dict(weights), None)
    build = _builder(weights)
    if build is None:
        raise _unknown(weights, source)
    try:
        return _built(build, weights)
    except KeyError as missing:  # of the weights that tell the sizes
        raise ModelFileError(
            f"'{source}' lacks the weight {missing}. The file is damaged or of an unsupported variant."
        ) from missing


def _built(build, weights):
    """The patcher of the network that `build` makes of these weights."""
    if build == t2i_adapter.LDMT2IAdapter.from_weights:
        return _patcher(build(weights), None)
    management = comfy.model_management
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    cast_dtype = management.unet_manual_cast(dtype, management.get_torch_device())
    weights = dict(weights)
    cast_weights(weights, list(weights), dtype)
    network = build(weights)
    if cast_dtype is not None:
        comfy.ops.cast_on_use(network)
    return _patcher(network, cast_dtype)


def _builder(weights):
    if ldm_controlnet.is_controlnet(weights):
        union = union_controlnet.is_union(weights)
        kind = union_controlnet.UnionControlNet if union else ldm_controlnet.LDMControlNet
        return kind.from_weights
    if flux_controlnet.is_flux_controlnet(weights):
        return flux_controlnet.FluxControlNet.from_weights
    if t2i_adapter.is_t2i_adapter(weights):
        return t2i_adapter.LDMT2IAdapter.from_weights
    return None


def _patcher(network, cast_dtype):
    network.manual_cast_dtype = cast_dtype
    management = comfy.model_management
    return comfy.model_patcher.ModelPatcher(
        network, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )


def with_base(weights, model, source):
    """The patcher for a file of differences, on the weights that a MODEL's UNet has with its patches."""
    weights = {key: tensor for key, tensor in weights.items() if key != DIFFERENCE}
    if not ldm_controlnet.is_controlnet(weights):
        raise _unknown(weights, source)
    comfy.model_management.load_models_gpu([model])
    base = model.model.diffusion_model.state_dict()
    whole = ldm_controlnet.zoo_weights(weights)
    unlike = [key for key, tensor in whole.items() if key in base and base[key].shape != tensor.shape]
    if unlike or not any(key in base for key in whole):
        raise UnknownArchitecture(
            f"'{source}' holds the difference to a base model of other sizes than this one "
            f"({', '.join(unlike[:2]) or 'no weight in common'}). Connect a checkpoint of the family that "
            "the ControlNet was made for."
        )
    for key, tensor in whole.items():
        if key in base:
            whole[key] = tensor + base[key].to(tensor)
    return from_weights(whole, source)


def _unknown(weights, source) -> UnknownArchitecture:
    names = [str(name) for name in weights]
    sample = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
    known = (what for begin, what in _UNSUPPORTED.items() if any(name.startswith(begin) for name in names))
    unsupported = next(known, None)
    told = comfy.families.kind_of_file(weights) or "Choose another file."
    return UnknownArchitecture(
        f"'{source}' is no control model that is known here (ControlNet of Stable Diffusion or Flux.1, "
        f"T2I-Adapter, Control-LoRA). It holds {len(names)} tensors: {sample or 'none'}. "
        f"{f'It looks like {unsupported}.' if unsupported else told}"
    )
