"""The loader of upscale models under the name that packs of earlier days call."""

from comfy import upscalers


def load_state_dict(state_dict):
    """The upscale model (`comfy.upscalers.UpscaleModel`) of weights.

    Raises:
        UnknownArchitecture: they are of no upscale model, or of an architecture that is not known here.
    """
    return upscalers.build_upscale_model(state_dict)
