"""Samplers that are nodes alone: latent consistency with growing latents, and another CFG++."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_extras.core_inputs import float_input, int_input


class SamplerLCMUpscale:
    DESCRIPTION = "Latent consistency sampling whose latents grow in the first steps."
    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "get_sampler"
    CATEGORY = "sampling/custom_sampling/samplers"

    METHODS = ["bislerp", "nearest-exact", "bilinear", "area", "bicubic"]

    @classmethod
    def INPUT_TYPES(cls):
        steps = "In how many steps it grows; -1: in half of them."
        return {
            "required": {
                "scale_ratio": float_input(1.0, 0.1, 20.0),
                "scale_steps": int_input(-1, -1, 1000, 1, steps),
                "upscale_method": (cls.METHODS,),
            }
        }

    def get_sampler(self, scale_ratio, scale_steps, upscale_method):
        import comfy.samplers
        from comfy.k_diffusion.growing import sample_lcm_upscale

        options = {
            "total_upscale": scale_ratio,
            "upscale_steps": None if scale_steps < 0 else scale_steps,
            "upscale_method": upscale_method,
        }
        return (comfy.samplers.KSAMPLER(sample_lcm_upscale, extra_options=options),)


class SamplerEulerCFGpp:
    DESCRIPTION = "Euler steps with CFG++, as published or in another form."
    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "get_sampler"
    CATEGORY = "_for_testing"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"version": (["regular", "alternative"],)}}

    def get_sampler(self, version):
        import comfy.samplers
        from comfy.k_diffusion.growing import sample_euler_pp

        if version == "alternative":
            return (comfy.samplers.KSAMPLER(sample_euler_pp),)
        return (comfy.samplers.ksampler("euler_cfg_pp"),)


class SamplerLCM(io.ComfyNode):
    """The noise between steps may change its strength over the run, and be clipped."""

    @classmethod
    def define_schema(cls):
        def number(name, default, high, tooltip):
            return io.Float.Input(name, default=default, min=0.0, max=high, step=0.01, tooltip=tooltip)

        return io.Schema(
            node_id="SamplerLCM",
            category="model/sampling/samplers",
            description="Latent consistency sampling: denoise fully, then noise again to the next level.",
            inputs=[
                number("s_noise", 1.0, 64.0, "How strong the noise is at the first step."),
                number("s_noise_end", 1.0, 64.0, "How strong it is at the last one."),
                number("noise_clip_std", 0.0, 10.0, "Clip noise at so many deviations; 0 leaves it."),
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, **options):
        import comfy.samplers

        return io.NodeOutput(comfy.samplers.ksampler("lcm", options))

    get_sampler = execute


_NODES = (SamplerLCMUpscale, SamplerEulerCFGpp, SamplerLCM)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
NODE_DISPLAY_NAME_MAPPINGS = {"SamplerEulerCFGpp": "SamplerEulerCFG++"}
