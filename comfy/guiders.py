"""Guiders besides the one with a positive and a negative side: one side, three in two ways, and two
models."""

import math

import comfy.guidance
import comfy.sampler_helpers
import comfy.samplers


class Guider_Basic(comfy.samplers.CFGGuider):  # noqa: N801 - the name that node packs know
    """One side, no guidance: for models that are guided by an input of their own."""

    def set_conds(self, positive):
        """The only side."""
        self.inner_set_conds({"positive": positive})


class Guider_DualCFG(comfy.samplers.CFGGuider):  # noqa: N801
    """Two scales: from the middle side to the positive one, and from the negative side to the middle one."""

    def set_cfg(self, cfg1, cfg2, nested=False):
        """`nested`: the first scale is applied inside the second."""
        self.cfg1 = cfg1
        self.cfg2 = cfg2
        self.nested = nested

    def set_conds(self, positive, middle, negative):
        """The three sides. The middle one counts as negative where models treat the kinds differently."""
        middle = [[tokens, {**extras, "prompt_type": "negative"}] for tokens, extras in middle]
        self.inner_set_conds({"positive": positive, "middle": middle, "negative": negative})

    def predict_noise(self, x, timestep, model_options=comfy.samplers.NO_OPTIONS, seed=None):
        """See CFGGuider."""
        sides = [self.conds.get(name) for name in ("negative", "middle", "positive")]
        if not self.nested and not model_options.get("disable_cfg1_optimization", False):
            # Sides without weight are not evaluated.
            if math.isclose(self.cfg2, 1.0):
                sides[0] = None
                if math.isclose(self.cfg1, 1.0):
                    sides[1] = None
        predictions = comfy.samplers.calc_cond_batch(self.inner_model, sides, x, timestep, model_options)
        negative, middle, positive = predictions

        def guided(towards, away, scale, cond, uncond):
            return comfy.samplers.cfg_function(
                self.inner_model, towards, away, scale, x, timestep, model_options, cond=cond, uncond=uncond
            )

        if self.nested:
            text = guided(positive, middle, self.cfg1, sides[2], sides[1])
            return negative + self.cfg2 * (text - negative)
        return guided(middle, negative, self.cfg2, sides[1], sides[0]) + (positive - middle) * self.cfg1


class Guider_PerpNeg(comfy.samplers.CFGGuider):  # noqa: N801
    """Away from what the negative side does not share with the positive one; "empty" is said by no words."""

    def set_conds(self, positive, negative, empty_negative_prompt):
        """The three sides. The empty one counts as negative where models treat the kinds differently."""
        empty = [[tokens, {**extras, "prompt_type": "negative"}] for tokens, extras in empty_negative_prompt]
        sides = {"positive": positive, "empty_negative_prompt": empty, "negative": negative}
        self.inner_set_conds(sides)

    def set_cfg(self, cfg, neg_scale):
        """The scale of the whole, and of the negative side in it."""
        self.cfg = cfg
        self.neg_scale = neg_scale

    def predict_noise(self, x, timestep, model_options=comfy.samplers.NO_OPTIONS, seed=None):
        """See CFGGuider."""
        sides = [self.conds.get(name) for name in ("positive", "negative", "empty_negative_prompt")]
        out = comfy.samplers.calc_cond_batch(self.inner_model, sides, x, timestep, model_options)
        args = {
            "conds": sides,
            "input": x,
            "sigma": timestep,
            "model": self.inner_model,
            "model_options": model_options,
            "cond_scale": self.cfg,
            "timestep": timestep,
        }
        for function in model_options.get("sampler_pre_cfg_function", []):
            out = function(args | {"conds_out": out})
        positive, negative, empty = out

        def guide(_args):
            return x - comfy.guidance.perp_neg(positive, negative, empty, self.neg_scale, self.cfg)

        return comfy.samplers.cfg_function(
            self.inner_model,
            positive,
            negative,
            self.cfg,
            x,
            timestep,
            {**model_options, "sampler_cfg_function": guide},
            cond=sides[0],
            uncond=sides[1],
        )


class Guider_DualModel(comfy.samplers.CFGGuider):  # noqa: N801
    """The positive side from one model, the negative one from another, for models with a network for each."""

    def __init__(self, model_patcher, uncond_model_patcher):
        super().__init__(model_patcher)
        self.uncond_model_patcher = uncond_model_patcher
        self.uncond_inner = None
        self._uncond_sides: dict = {}

    def outer_sample(self, noise, latent_image, *args, **kwargs):
        """See CFGGuider; at scale 1 the second model is not loaded."""
        if math.isclose(self.cfg, 1.0):
            return super().outer_sample(noise, latent_image, *args, **kwargs)
        other = self.uncond_model_patcher
        sides = {"negative": [dict(cond) for cond in self.conds["negative"]]}
        self.uncond_inner, self._uncond_sides, loaded = comfy.sampler_helpers.prepare_sampling(
            other, noise.shape, sides, other.model_options
        )
        try:
            other.pre_run()
            return super().outer_sample(noise, latent_image, *args, **kwargs)
        finally:
            other.cleanup()
            comfy.sampler_helpers.cleanup_models(self._uncond_sides, loaded)
            self.uncond_inner = None

    def inner_sample(
        self, noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed,
        latent_shapes=None,
    ):  # fmt: skip
        """See CFGGuider; the negative side is resolved for the second model too."""
        if self.uncond_inner is not None:
            latent = latent_image
            if latent is not None and latent.any():
                latent = self.uncond_inner.process_latent_in(latent)
            self._uncond_sides = comfy.samplers.process_conds(
                self.uncond_inner, noise, self._uncond_sides, device, latent, denoise_mask, seed,
                latent_shapes=latent_shapes,
            )  # fmt: skip
        return super().inner_sample(
            noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed,
            latent_shapes=latent_shapes,
        )  # fmt: skip

    def predict_noise(self, x, timestep, model_options=comfy.samplers.NO_OPTIONS, seed=None):
        """See CFGGuider."""
        positive, negative = self.conds["positive"], self._uncond_sides.get("negative")
        (cond,) = comfy.samplers.calc_cond_batch(self.inner_model, [positive], x, timestep, model_options)
        needs_both = not math.isclose(self.cfg, 1.0) or model_options.get("disable_cfg1_optimization", False)
        if self.uncond_inner is None or not needs_both:
            return cond
        (uncond,) = comfy.samplers.calc_cond_batch(self.uncond_inner, [negative], x, timestep, model_options)
        return comfy.samplers.cfg_function(
            self.inner_model, cond, uncond, self.cfg, x, timestep, model_options, cond=positive,
            uncond=negative,
        )  # fmt: skip
