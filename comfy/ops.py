"""Layers that cast their weights when they are used: weights in one dtype, arithmetic in another.

`manual_cast.Linear` and the others can be built like torch's; `cast_on_use` turns the layers of a finished
module into them, which is how a model of the zoo gets fp16 weights and fp32 arithmetic.
"""

import torch


def cast_to(weight, dtype=None, device=None, non_blocking=False, copy=False, stream=None):
    """`weight` in a dtype and on a device; the same tensor where nothing changes, unless `copy`."""
    return weight.to(device=device, dtype=dtype, non_blocking=non_blocking, copy=copy)


def cast_to_input(weight, input, non_blocking=False, copy=True):  # noqa: A002 (upstream's parameter name)
    return cast_to(weight, input.dtype, input.device, non_blocking, copy)


def cast_bias_weight(s, input=None, dtype=None, device=None, bias_dtype=None):  # noqa: A002
    """Weight and bias of layer `s` as they must be to compute with `input`."""
    dtype = dtype or (input.dtype if input is not None else s.weight.dtype)
    device = device or (input.device if input is not None else s.weight.device)
    weight = cast_to(s.weight, dtype, device)
    bias = None if s.bias is None else cast_to(s.bias, bias_dtype or dtype, device)
    scale = s._parameters.get("scale_weight")  # for every layer of every step: a miss must cost nothing
    if scale is not None:
        weight = weight * cast_to(scale, dtype, device)
    for function in getattr(s, "weight_function", ()):
        weight = function(weight)
    for function in getattr(s, "bias_function", ()):
        bias = function(bias)
    return weight, bias


def uncast_bias_weight(s, weight, bias, offload_stream=None):
    """After `cast_bias_weight`: nothing to give back, since nothing is kept for a layer here."""


def repeat_kv_for_gqa(k, v, heads, head_dim):
    """Keys and values of fewer heads repeated along the side `head_dim` until there are `heads`."""
    return tuple(t.repeat_interleave(heads // t.shape[head_dim], dim=head_dim) for t in (k, v))


class CastWeightBiasOp:
    """Mixed into a layer: casts when `comfy_cast_weights` is set."""

    comfy_cast_weights = False
    weight_function = ()
    bias_function = ()

    def _must_cast(self, x) -> bool:
        return self.comfy_cast_weights or bool(self.weight_function) or bool(self.bias_function)


class disable_weight_init:  # noqa: N801 (the name that packs import)
    """torch's layers without the time that initialising the weights takes."""

    class Linear(CastWeightBiasOp, torch.nn.Linear):
        def reset_parameters(self):
            return None

        def forward(self, x):
            if not self._must_cast(x):
                return super().forward(x)
            weight, bias = cast_bias_weight(self, x)
            return torch.nn.functional.linear(x, weight, bias)

    class _Conv(CastWeightBiasOp):
        def reset_parameters(self):
            return None

        def forward(self, x):
            if not self._must_cast(x):
                return super().forward(x)
            weight, bias = cast_bias_weight(self, x)
            return self._conv_forward(x, weight, bias)

    class Conv1d(_Conv, torch.nn.Conv1d):
        pass

    class Conv2d(_Conv, torch.nn.Conv2d):
        pass

    class Conv3d(_Conv, torch.nn.Conv3d):
        pass

    @classmethod
    def conv_nd(cls, dims, *args, **kwargs):
        """A convolution over 1, 2 or 3 sides.

        Raises:
            ValueError: another number of sides.
        """
        kinds = {1: cls.Conv1d, 2: cls.Conv2d, 3: cls.Conv3d}
        if dims not in kinds:
            raise ValueError(f"A convolution is over 1, 2 or 3 sides, not {dims}.")
        return kinds[dims](*args, **kwargs)

    class GroupNorm(CastWeightBiasOp, torch.nn.GroupNorm):
        def reset_parameters(self):
            return None

        def forward(self, x):
            if not self._must_cast(x):
                return super().forward(x)
            weight, bias = cast_bias_weight(self, x)
            return torch.nn.functional.group_norm(x, self.num_groups, weight, bias, self.eps)

    class LayerNorm(CastWeightBiasOp, torch.nn.LayerNorm):
        def reset_parameters(self):
            return None

        def forward(self, x):
            if not self._must_cast(x) or self.weight is None:
                return super().forward(x)
            weight, bias = cast_bias_weight(self, x)
            return torch.nn.functional.layer_norm(x, self.normalized_shape, weight, bias, self.eps)

    class RMSNorm(CastWeightBiasOp, torch.nn.RMSNorm):
        bias = None

        def reset_parameters(self):
            return None

        def forward(self, x):
            if not self._must_cast(x) or self.weight is None:
                return super().forward(x)
            weight, _ = cast_bias_weight(self, x)
            return torch.nn.functional.rms_norm(x, self.normalized_shape, weight, self.eps)

    class Embedding(CastWeightBiasOp, torch.nn.Embedding):
        bias = None

        def reset_parameters(self):
            return None

        def forward(self, x, out_dtype=None):
            found = super().forward(x)
            return found if out_dtype is None else found.to(out_dtype)


class manual_cast(disable_weight_init):  # noqa: N801 (the name that packs import)
    """The same layers, casting always."""

    class Linear(disable_weight_init.Linear):
        comfy_cast_weights = True

    class Conv1d(disable_weight_init.Conv1d):
        comfy_cast_weights = True

    class Conv2d(disable_weight_init.Conv2d):
        comfy_cast_weights = True

    class Conv3d(disable_weight_init.Conv3d):
        comfy_cast_weights = True

    class GroupNorm(disable_weight_init.GroupNorm):
        comfy_cast_weights = True

    class LayerNorm(disable_weight_init.LayerNorm):
        comfy_cast_weights = True

    class RMSNorm(disable_weight_init.RMSNorm):
        comfy_cast_weights = True

    class Embedding(disable_weight_init.Embedding):
        comfy_cast_weights = True


class ScaledLinear(manual_cast.Linear):
    """A layer whose weight is kept as fp8 with a scale; patches see, and give back, the product."""

    def convert_weight(self, weight, inplace=False, **_unused):
        """The weight's real value."""
        return weight * self.scale_weight.to(device=weight.device, dtype=weight.dtype)

    def set_weight(self, weight, inplace_update=False, seed=None, return_weight=False, **_unused):
        """Keep a real value: divided by the scale, in fp8."""
        scaled = weight / self.scale_weight.to(device=weight.device, dtype=weight.dtype)
        limit = torch.finfo(self.weight.dtype).max
        stored = scaled.clamp(-limit, limit).to(self.weight.dtype)
        if return_weight:
            return stored
        if inplace_update:
            self.weight.data.copy_(stored)
        else:
            self.weight = torch.nn.Parameter(stored, requires_grad=False)
        return None


_CASTING = {
    getattr(torch.nn, name): getattr(manual_cast, name)
    for name in ("Linear", "Conv1d", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm", "RMSNorm", "Embedding")
}


def cast_on_use(module: torch.nn.Module) -> torch.nn.Module:
    """Make every plain torch layer inside `module` cast its weights to its input."""
    for layer in module.modules():
        layer.__class__ = _CASTING.get(type(layer), type(layer))
    return module


def pick_operations(weight_dtype, compute_dtype, load_device=None, disable_fast_fp8=False,
fp8_optimizations=False,
                    model_config=None):  # fmt: skip
    """The set of layers for weights of one dtype computing in another; None means the same dtype."""
    return disable_weight_init if compute_dtype is None or weight_dtype == compute_dtype else manual_cast
