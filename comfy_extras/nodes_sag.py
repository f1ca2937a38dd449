"""Self-attention guidance."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input

SMALLEST_SIDE = 5  # latent pixels: the blur's edge is mirrored


def gaussian_blur_2d(img, kernel_size, sigma):
    """Pictures (B, C, H, W) blurred by a Gaussian of `sigma` pixels, cut off at a square of `kernel_size`."""
    import torch

    places = torch.arange(kernel_size, device=img.device, dtype=img.dtype) - (kernel_size - 1) / 2
    row = torch.exp(-0.5 * (places / sigma) ** 2)
    row = row / row.sum()
    channels, half = img.shape[1], kernel_size // 2
    kernel = (row[:, None] * row).expand(channels, 1, kernel_size, kernel_size)
    padded = torch.nn.functional.pad(img, [half] * 4, mode="reflect")
    return torch.nn.functional.conv2d(padded, kernel, groups=channels)


def create_blur_map(x0, attn, sigma=3.0, threshold=1.0):
    """Clean latents `x0` (B, C, H, W), blurred where attention weights (B, heads, tokens, tokens) look most.
    Packs replace this function.
    """
    import comfy.guidance

    return comfy.guidance.blurred_where_attended(x0, attn, sigma, threshold)


class SelfAttentionGuidance:
    DESCRIPTION = "Away from a picture that is blurred where the model looks most (Hong et al. 2023)."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "_for_testing"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        scale, blur = float_input(0.5, -2.0, 5.0), float_input(2.0, 0.0, 10.0, 0.1)
        return {"required": {"model": ("MODEL",), "scale": scale, "blur_sigma": blur}}

    def patch(self, model, scale, blur_sigma):
        import comfy.guidance
        import comfy.samplers

        seen = {}

        def attend(q, k, v, extra_options, mask=None):
            """Attention whose weights, of the negative side, are kept."""
            heads, sides = extra_options["n_heads"], extra_options["cond_or_uncond"]
            out, weights = comfy.guidance.attention_with_weights(q, k, v, heads)
            if 1 in sides:
                seen["weights"] = weights.chunk(len(sides))[sides.index(1)]
            return out

        def after_guidance(args):
            clean, x = args["uncond_denoised"], args["input"]
            if min(clean.shape[2:]) < SMALLEST_SIDE or not args["uncond"]:
                return args["denoised"]
            blurred = create_blur_map(clean, seen["weights"], blur_sigma)
            (found,) = comfy.samplers.calc_cond_batch(
                args["model"], [args["uncond"]], blurred + x - clean, args["sigma"], args["model_options"]
            )
            return args["denoised"] + (blurred - found) * scale

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(after_guidance, disable_cfg1_optimization=True)
        clone.set_model_attn1_replace(attend, "middle", 0, 0)
        return (clone,)


NODE_CLASS_MAPPINGS = {"SelfAttentionGuidance": SelfAttentionGuidance}
NODE_DISPLAY_NAME_MAPPINGS = {"SelfAttentionGuidance": "Self-Attention Guidance"}
