"""Steps that are not computed: what the network added in the step before is added again (Zhou et al. 2025).

How much the output will change is guessed from how much the input changed, and how both changed together when
they were last computed. The guesses of the steps in a row that are left out may add up to `threshold`.
"""

from __future__ import annotations

import logging

import torch

import comfy.patcher_extension

KEY = "easycache"
EVERY = 8  # of rows and columns, so many-th are looked at


def _mean_change(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().mean().item()


def _thinned(x: torch.Tensor) -> torch.Tensor:
    return x[..., ::EVERY, ::EVERY].clone()


class Reuse:
    """Settings of a node; `started` gives the state of one run.

    Attributes:
        skipped: how many steps were left out.
        rate: how much the output changes for a change of the input; None until it was seen.
    """

    name = "LazyCache"

    def __init__(
        self, threshold: float, start_percent: float, end_percent: float, channels: int, verbose=False
    ):
        self.threshold, self.start_percent, self.end_percent = threshold, start_percent, end_percent
        self.channels, self.verbose = channels, verbose  # `channels` of the input are what the output is like
        self.start_sigma = self.end_sigma = 0.0
        self.skipped = 0
        self.forget()

    def started(self, model_sampling) -> Reuse:
        """A state for one run, with nothing seen yet."""
        run = type(self)(self.threshold, self.start_percent, self.end_percent, self.channels, self.verbose)
        run.start_sigma = model_sampling.percent_to_sigma(self.start_percent)
        run.end_sigma = model_sampling.percent_to_sigma(self.end_percent)
        return run

    def forget(self) -> None:
        """Nothing was seen yet."""
        self.rate: float | None = None
        self.total = 0.0
        self.last_input: torch.Tensor | None = None
        self.last_output: torch.Tensor | None = None
        self.last_size = 0.0  # mean absolute value of the output
        self.kind: tuple | None = None  # of the input: device, dtype, shape

    def is_over(self, sigma) -> bool:
        return sigma[0].item() <= self.end_sigma

    def is_on(self, sigma) -> bool:
        return sigma[0].item() <= self.start_sigma

    def check_kind(self, *kind) -> None:
        """Begin anew where the input is of another size."""
        if self.kind not in (None, kind):
            logging.warning("%s: the latent has changed its size, so what was seen is forgotten.", self.name)
            self.forget()
        self.kind = kind

    def change_of(self, seen: torch.Tensor) -> float | None:
        """How much the thinned input differs from the last one that was computed."""
        return None if self.last_input is None else _mean_change(seen, self.last_input)

    def may_reuse(self, change: float | None) -> bool:
        """Whether the guessed changes still add up to less than the threshold."""
        if change is None or self.rate is None or self.last_output is None:
            return False
        self.total += self.rate * change / max(self.last_size, 1e-12)
        decision = self.total < self.threshold
        if self.verbose:
            logging.info(
                "%s: changes add up to %.4f, %s.", self.name, self.total, "reused" if decision else "new"
            )
        if decision:
            self.skipped += 1
        else:
            self.total = 0.0
        return decision

    def learn(self, seen: torch.Tensor, made: torch.Tensor, size: float, change: float | None) -> None:
        """From a computed step: thinned input and output, the output's size, and how the input changed."""
        if self.last_output is not None and change:
            self.rate = _mean_change(made, self.last_output) / change
        self.last_input, self.last_output, self.last_size = seen, made, size


class LazyReuse(Reuse):
    """Of whole steps: works with every model."""

    def forget(self) -> None:
        super().forget()
        self.difference: torch.Tensor | None = None

    def predict(self, executor, x, timestep, *args, **kwargs):
        """Around the guided prediction (B, C, ...) at a noise level (B,)."""
        if self.is_over(timestep):
            return executor(x, timestep, *args, **kwargs)
        latent, change = x[:, : self.channels], None
        seen = _thinned(latent)
        if self.is_on(timestep):
            self.check_kind(x.device, x.dtype, latent.shape)
            change = self.change_of(seen)
            if self.difference is not None and self.may_reuse(change):
                return latent + self.difference
        out = executor(x, timestep, *args, **kwargs)
        self.learn(seen, _thinned(out), out.abs().mean().item(), change)
        self.difference = out - latent
        return out


class EasyReuse(Reuse):
    """Of calls of the network: the first conditioning decides for all of the step."""

    name = "EasyCache"

    def forget(self) -> None:
        super().forget()
        self.first = None  # the identity of the conditioning that decides
        self.is_skipping = False
        self.differences: dict = {}

    def _reused(self, x, identities):
        parts = x.chunk(len(identities))
        return torch.cat([part + self.differences[name] for part, name in zip(parts, identities)])

    def _part_of_first(self, x, identities):
        return _thinned(x.chunk(len(identities))[identities.index(self.first)])

    def forward(self, executor, *args, **kwargs):
        """Around the network: `args` begin with the latent and hold the transformer's options."""
        places = (*reversed(args), *kwargs.values())
        options = next(value for value in places if isinstance(value, dict) and "uuids" in value)
        sigmas, identities, x = options["sigmas"], list(options["uuids"]), args[0][:, : self.channels]
        if sigmas is None or self.is_over(sigmas):
            return executor(*args, **kwargs)
        change = None
        if self.is_on(sigmas):
            self.check_kind(x.device, x.dtype, x.shape[1:])
            are_known = all(name in self.differences for name in identities)
            if self.is_skipping and are_known:
                return self._reused(x, identities)
            self.first = identities[0] if self.first is None else self.first
            if self.first in identities:
                change = self.change_of(self._part_of_first(x, identities))
                if are_known and self.may_reuse(change):
                    self.is_skipping = True
                    return self._reused(x, identities)
        latent = x.clone()  # the network may change its input
        out = executor(*args, **kwargs)
        if self.first in identities:
            seen, made = (self._part_of_first(t, identities) for t in (latent, out))
            self.learn(seen, made, out.abs().mean().item(), change)
        self.differences |= dict(zip(identities, (out - latent).chunk(len(identities))))
        return out


def _run(executor, *args, **kwargs):
    """Around a whole run: it gets a state of its own."""
    guider = executor.class_obj
    options = dict(guider.model_options["transformer_options"])
    state = options[KEY].started(guider.model_patcher.get_model_object("model_sampling"))
    before, guider.model_options = guider.model_options, {
        **guider.model_options, "transformer_options": {**options, KEY: state}
    }  # fmt: skip
    try:
        return executor(*args, **kwargs)
    finally:
        guider.model_options = before
        steps = len(args[3]) - 1
        logging.info("%s: %s of %s steps were reused.", state.name, state.skipped, steps)
        state.forget()


def _begin_step(executor, *args, **kwargs):
    """Around the evaluation of all conditionings at one level."""
    args[-1]["transformer_options"][KEY].is_skipping = False
    return executor(*args, **kwargs)


def _forward(executor, *args, **kwargs):
    places = (*reversed(args), *kwargs.values())
    options = next(value for value in places if isinstance(value, dict) and KEY in value)
    return options[KEY].forward(executor, *args, **kwargs)


def _predict(executor, x, timestep, model_options, *args, **kwargs):
    state = model_options["transformer_options"][KEY]
    return state.predict(executor, x, timestep, model_options, *args, **kwargs)


def add_to(model, settings: Reuse) -> None:
    """Let MODEL reuse steps as `settings` say."""
    model.model_options["transformer_options"][KEY] = settings
    kinds = comfy.patcher_extension.WrappersMP
    model.add_wrapper_with_key(kinds.OUTER_SAMPLE, KEY, _run)
    if isinstance(settings, EasyReuse):
        model.add_wrapper_with_key(kinds.CALC_COND_BATCH, KEY, _begin_step)
        model.add_wrapper_with_key(kinds.DIFFUSION_MODEL, KEY, _forward)
    else:
        model.add_wrapper_with_key(kinds.PREDICT_NOISE, KEY, _predict)
