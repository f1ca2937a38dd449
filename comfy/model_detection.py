"""Which family a state dict is of, under the names that packs call. The families themselves decide."""

from __future__ import annotations

from comfy.families import recognise
from comfy.families.base import count_indices

# Prefixes under which a diffusion model may stand in a file, for files of unknown families.
UNET_PREFIXES = ("model.diffusion_model.", "model.model.", "net.", "diffusion_model.", "model.")


def unet_prefix_from_state_dict(state_dict) -> str:
    """The prefix of the diffusion model: of the known family, else the one that most keys have."""
    found = recognise(state_dict)
    if found is not None:
        return found[1]
    counts = {prefix: sum(key.startswith(prefix) for key in state_dict) for prefix in UNET_PREFIXES}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] > 5 else "model."


def model_config_from_unet(state_dict, unet_key_prefix, use_base_if_no_match=False, metadata=None):
    """The config object (`comfy.supported_models`) of these weights; None for an unknown family."""
    found = recognise(state_dict)
    if found is None or found[1] != unet_key_prefix:
        return None
    return found[0].config(state_dict, unet_key_prefix)


def detect_unet_config(state_dict, key_prefix, metadata=None) -> dict | None:
    """The hyper-parameters of these weights as a dictionary; None for an unknown family."""
    model_config = model_config_from_unet(state_dict, key_prefix, metadata=metadata)
    return None if model_config is None else model_config.unet_config


def count_blocks(state_dict_keys, prefix_string) -> int:
    """How many of `prefix_string.format(0)`, `.format(1)`, ... in a row begin some key."""
    return count_indices(list(state_dict_keys), prefix_string)


def convert_config(unet_config: dict) -> dict:
    """The numbers of an LDM configuration file as `unet_config` has them: a depth per residual block.

    There transformers stand where the picture is smaller by one of `attention_resolutions`.
    """
    config = dict(unet_config)
    levels = len(config.get("channel_mult") or ())
    counts = config.get("num_res_blocks")
    counts = [counts] * levels if isinstance(counts, int) else counts
    if "attention_resolutions" in config:
        attended = config.pop("attention_resolutions")
        depths = config.get("transformer_depth")
        depths = [depths] * levels if isinstance(depths, int) else depths
        if config.get("transformer_depth_middle") is None:
            config["transformer_depth_middle"] = depths[-1]
        used = [depth if 2**level in attended else 0 for level, depth in enumerate(depths)]
        for name, more in (("transformer_depth", 0), ("transformer_depth_output", 1)):
            config[name] = [depth for depth, count in zip(used, counts) for _ in range(count + more)]
    config["num_res_blocks"] = counts
    return config


def unet_config_from_diffusers_unet(state_dict, dtype=None) -> dict | None:
    """The hyper-parameters of a UNet in diffusers' layout; None where these weights are no known one."""
    found = detect_unet_config(state_dict, "")
    return None if found is None else {**found, "dtype": dtype}
