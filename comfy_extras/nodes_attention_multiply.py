"""Attention made stronger or weaker: the matrices of queries, keys, values and results times a factor."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


def _factors(*names: str) -> dict:
    return {name: float_input(1.0, 0.0, 10.0) for name in names}


def _multiply(patcher, layers: dict[str, float]) -> None:
    """Multiply weight and bias of every layer whose name ends so."""
    for key in patcher.model_state_dict():
        layer, _, kind = key.rpartition(".")
        factor = next((value for end, value in layers.items() if layer.endswith(end)), None)
        if factor is not None and kind in ("weight", "bias"):
            patcher.add_patches({key: (None,)}, 0.0, factor)


class _Multiply:
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "_for_testing/attention_experiments"
    EXPERIMENTAL = True


class UNetSelfAttentionMultiply(_Multiply):
    DESCRIPTION = "Multiplies the matrices of a UNet's self-attention."
    attention = "attn1"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), **_factors("q", "k", "v", "out")}}

    def patch(self, model, q, k, v, out):
        layers = {"to_q": q, "to_k": k, "to_v": v, "to_out.0": out}
        clone = model.clone()
        _multiply(clone, {f"{self.attention}.{name}": factor for name, factor in layers.items()})
        return (clone,)


class UNetCrossAttentionMultiply(UNetSelfAttentionMultiply):
    DESCRIPTION = "Multiplies the matrices of a UNet's attention to the prompt."
    attention = "attn2"


class CLIPAttentionMultiply(_Multiply):
    DESCRIPTION = "Multiplies the matrices of a CLIP text encoder's attention."
    RETURN_TYPES = ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"clip": ("CLIP",), **_factors("q", "k", "v", "out")}}

    def patch(self, clip, q, k, v, out):
        layers = {"q_proj": q, "k_proj": k, "v_proj": v, "out_proj": out}
        clone = clip.clone()
        _multiply(clone.patcher, {f"self_attn.{name}": factor for name, factor in layers.items()})
        return (clone,)


class UNetTemporalAttentionMultiply(_Multiply):
    DESCRIPTION = "Multiplies the results of attention inside of pictures and, in video models, between them."

    @classmethod
    def INPUT_TYPES(cls):
        names = ("self_structural", "self_temporal", "cross_structural", "cross_temporal")
        return {"required": {"model": ("MODEL",), **_factors(*names)}}

    def patch(self, model, self_structural, self_temporal, cross_structural, cross_temporal):
        clone = model.clone()
        factors = {"attn1": (self_structural, self_temporal), "attn2": (cross_structural, cross_temporal)}
        for key in clone.model_state_dict():
            layer, _, kind = key.rpartition(".")
            for name, (structural, temporal) in factors.items():
                if layer.endswith(f"{name}.to_out.0") and kind in ("weight", "bias"):
                    factor = temporal if ".time_stack." in key else structural
                    clone.add_patches({key: (None,)}, 0.0, factor)
        return (clone,)


_NODES = (
    UNetSelfAttentionMultiply, UNetCrossAttentionMultiply, CLIPAttentionMultiply,
    UNetTemporalAttentionMultiply,
)  # fmt: skip
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
