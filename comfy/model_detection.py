"""Which family a state dict is of, under the names that packs call. The families themselves decide."""

from __future__ import annotations

from comfy.families import recognise

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
