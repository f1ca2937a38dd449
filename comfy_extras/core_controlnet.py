"""Core nodes that let a picture control what goes where."""

from __future__ import annotations

import folder_paths
from comfy_extras.core_inputs import float_input


class ControlNetLoader:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"control_net_name": (folder_paths.get_filename_list("controlnet"),)}}

    RETURN_TYPES = ("CONTROL_NET",)
    FUNCTION = "load_controlnet"
    CATEGORY = "loaders"
    DESCRIPTION = "Loads a ControlNet: a picture then says what goes where."

    def load_controlnet(self, control_net_name):
        path = folder_paths.get_full_path_or_raise("controlnet", control_net_name)
        import comfy.controlnet

        return (comfy.controlnet.load_controlnet(path),)


class DiffControlNetLoader:
    @classmethod
    def INPUT_TYPES(cls):
        names = folder_paths.get_filename_list("controlnet")
        return {"required": {"model": ("MODEL",), "control_net_name": (names,)}}

    RETURN_TYPES = ("CONTROL_NET",)
    FUNCTION = "load_controlnet"
    CATEGORY = "loaders"
    DESCRIPTION = "Loads a ControlNet of which the file holds the difference to a model."

    def load_controlnet(self, model, control_net_name):
        path = folder_paths.get_full_path_or_raise("controlnet", control_net_name)
        import comfy.controlnet

        return (comfy.controlnet.load_controlnet(path, model),)


def _controlled(conditioning, made: dict, make, *, applies_to_uncond: bool):
    """The conditioning with a control model on each entry; `made` keeps one per control model before it, so
    that both sides of the guidance have the same object and run in one batch.
    """
    out = []
    for tokens, extras in conditioning:
        before = extras.get("control")
        if before not in made:
            made[before] = make().set_previous_controlnet(before)
        control = {"control": made[before], "control_apply_to_uncond": applies_to_uncond}
        out.append([tokens, {**extras, **control}])
    return out


class ControlNetApply:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "control_net": ("CONTROL_NET",),
                "image": ("IMAGE",),
                "strength": float_input(1.0, 0.0, 10.0),
            }
        }

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "apply_controlnet"
    CATEGORY = "conditioning/controlnet"
    DEPRECATED = True
    DESCRIPTION = "Lets a picture control a conditioning, and the negative side with it."

    def apply_controlnet(self, conditioning, control_net, image, strength):
        if strength == 0:
            return (conditioning,)
        hint = image.movedim(-1, 1)

        def make():
            return control_net.copy().set_cond_hint(hint, strength)

        return (_controlled(conditioning, {}, make, applies_to_uncond=True),)


class ControlNetApplyAdvanced:
    @classmethod
    def INPUT_TYPES(cls):
        sides = {"positive": ("CONDITIONING",), "negative": ("CONDITIONING",)}
        start, end = (float_input(default, 0.0, 1.0, 0.001) for default in (0.0, 1.0))
        return {
            "required": {
                **sides,
                "control_net": ("CONTROL_NET",),
                "image": ("IMAGE",),
                "strength": float_input(1.0, 0.0, 10.0),
                "start_percent": start,
                "end_percent": end,
            },
            "optional": {"vae": ("VAE",)},
        }

    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("positive", "negative")
    FUNCTION = "apply_controlnet"
    CATEGORY = "conditioning/controlnet"
    DESCRIPTION = "Lets a picture control both sides, in a share of the steps."

    def apply_controlnet(
        self, positive, negative, control_net, image, strength, start_percent, end_percent, vae=None,
        extra_concat=(),
    ):  # fmt: skip
        if strength == 0:
            return (positive, negative)
        hint, made = image.movedim(-1, 1), {}

        def make():
            return control_net.copy().set_cond_hint(
                hint, strength, (start_percent, end_percent), vae=vae, extra_concat=extra_concat
            )

        return tuple(_controlled(side, made, make, applies_to_uncond=False) for side in (positive, negative))
