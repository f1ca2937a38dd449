"""Normalized attention guidance (arXiv:2505.21179): negative prompts for models that are sampled without."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class NAGuidance(io.ComfyNode):
    """Guides what self-attention gives, in place of the prediction."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NAGuidance",
            display_name="Normalized Attention Guidance",
            category="advanced/guidance",
            description="Leads self-attention away from the negative prompt, also where the scale is 1.",
            is_experimental=True,
            inputs=[
                io.Model.Input("model"),
                io.Float.Input(
                    "nag_scale", default=5.0, min=0.0, max=50.0, step=0.1, tooltip="How far to go away."
                ),
                io.Float.Input(
                    "nag_alpha", default=0.5, min=0.0, max=1.0, step=0.01,
                    tooltip="How much of the guided output is taken; 0 takes none.",
                ),
                io.Float.Input(
                    "nag_tau", default=1.5, min=1.0, max=10.0, step=0.01,
                    tooltip="How many times as long it may become.",
                ),
            ],
            outputs=[io.Model.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, nag_scale, nag_alpha, nag_tau):
        import torch

        import comfy.guidance
        from comfy.families.ldm_unet import LDMUNet

        if not isinstance(model.model.diffusion_model, LDMUNet):
            raise ValueError(
                f"{type(model.model).__name__} has no place for patches of self-attention here, only UNets "
                "(SD1, SD2, SDXL) have. Leave Normalized Attention Guidance out."
            )

        def guide(out, extra):
            sides = extra.get("cond_or_uncond") or []
            if not {0, 1} <= set(sides):
                return out
            parts = list(out.chunk(len(sides)))
            positive, negative = sides.index(0), sides.index(1)
            parts[positive] = comfy.guidance.normalised_attention(
                parts[positive], parts[negative], nag_scale, nag_tau, nag_alpha
            )
            return torch.cat(parts)

        model = model.clone()
        model.set_model_attn1_output_patch(guide)
        model.model_options["disable_cfg1_optimization"] = True  # both sides are needed at scale 1
        return io.NodeOutput(model)


class NAGExtension(ComfyExtension):
    async def get_node_list(self):
        return [NAGuidance]


async def comfy_entrypoint():
    return NAGExtension()
