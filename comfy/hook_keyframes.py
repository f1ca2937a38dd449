"""The strength of a hook over a run: keyframes, each a factor from a share of the schedule on."""

from __future__ import annotations

import math


class HookKeyframe:
    """The factor `strength` from `start_percent` of the schedule on, for `guarantee_steps` steps at least."""

    def __init__(self, strength: float, start_percent=0.0, guarantee_steps=1):
        self.strength = strength
        self.start_percent = float(start_percent)
        self.start_t = math.inf  # a noise level, once the model is known
        self.guarantee_steps = guarantee_steps

    def get_effective_guarantee_steps(self, max_sigma) -> int:
        """How many steps it is sure of: none if the run begins below its noise level."""
        return 0 if self.start_t > max_sigma else self.guarantee_steps

    def clone(self) -> HookKeyframe:
        """The same keyframe, not yet placed."""
        return HookKeyframe(self.strength, self.start_percent, self.guarantee_steps)


class HookKeyframeGroup:
    """Keyframes in the order of their start, and where a run is in them. Without any the factor is 1."""

    def __init__(self):
        self.keyframes: list[HookKeyframe] = []
        self.reset()

    @property
    def strength(self) -> float:
        """The factor at this moment."""
        return 1.0 if self._current_keyframe is None else self._current_keyframe.strength

    def reset(self) -> None:
        """Back to the first keyframe."""
        self._current_index = 0
        self._current_used_steps = 0
        self._curr_t: float | None = None
        self._current_keyframe = self.keyframes[0] if self.keyframes else None

    def add(self, keyframe: HookKeyframe) -> None:
        """Take in a keyframe, after those that start with it or before."""
        self.keyframes.append(keyframe)
        self.keyframes.sort(key=lambda one: one.start_percent)
        self._current_keyframe = self.keyframes[0]

    def has_guarantee_steps(self) -> bool:
        """Is any keyframe sure of a step?"""
        return any(keyframe.guarantee_steps > 0 for keyframe in self.keyframes)

    def has_index(self, index: int) -> bool:
        """Is there a keyframe of this number?"""
        return 0 <= index < len(self.keyframes)

    def is_empty(self) -> bool:
        """Are there no keyframes?"""
        return not self.keyframes

    def clone(self) -> HookKeyframeGroup:
        """The same keyframes, from the beginning."""
        new = HookKeyframeGroup()
        for keyframe in self.keyframes:
            new.add(keyframe.clone())
        return new

    def initialize_timesteps(self, model) -> None:
        """Place the keyframes on the noise levels of a model (a BaseModel)."""
        for keyframe in self.keyframes:
            keyframe.start_t = float(model.model_sampling.percent_to_sigma(keyframe.start_percent))

    def prepare_current_keyframe(self, curr_t: float, transformer_options: dict) -> bool:
        """Go on to the keyframe of the noise level `curr_t`; did the strength change?

        A level that is asked for again, by another conditioning, is no new step.
        """
        if not self.keyframes or curr_t == self._curr_t:
            return False
        self._curr_t = curr_t
        before = self.strength
        max_sigma = float(transformer_options["sample_sigmas"].max())
        sure_of = self._current_keyframe.get_effective_guarantee_steps(max_sigma)
        if self._current_used_steps >= sure_of:
            self._go_on(curr_t, max_sigma)
        self._current_used_steps += 1
        return self.strength != before

    def _go_on(self, curr_t: float, max_sigma: float) -> None:
        """To the last keyframe that has started, or the next one that is sure of steps."""
        while self.has_index(self._current_index + 1):
            following = self.keyframes[self._current_index + 1]
            if following.start_t < curr_t:
                return
            self._current_index += 1
            self._current_keyframe = following
            self._current_used_steps = 0
            if following.get_effective_guarantee_steps(max_sigma) > 0:
                return


class InterpolationMethod:
    """How strengths go from one number to another."""

    LINEAR = "linear"
    EASE_IN = "ease_in"
    EASE_OUT = "ease_out"
    EASE_IN_OUT = "ease_in_out"
    _LIST = [LINEAR, EASE_IN, EASE_OUT, EASE_IN_OUT]

    @classmethod
    def get_weights(cls, num_from: float, num_to: float, length: int, method: str, reverse=False):
        """`length` numbers from `num_from` to `num_to`, as an array; the other way round with `reverse`.

        Raises:
            ValueError: an unknown method.
        """
        import numpy

        curves = {
            cls.LINEAR: lambda x: x,
            cls.EASE_IN: lambda x: x**2,
            cls.EASE_OUT: lambda x: 1 - (1 - x) ** 2,
            cls.EASE_IN_OUT: lambda x: (1 - numpy.cos(numpy.pi * x)) / 2,
        }
        if method not in curves:
            raise ValueError(f"There is no interpolation '{method}'. Known are: {', '.join(curves)}.")
        weights = num_from + (num_to - num_from) * curves[method](numpy.linspace(0, 1, length))
        return weights[::-1] if reverse else weights


def get_sorted_list_via_attr(objects: list, attr: str) -> list:
    """The objects by an attribute; equal ones keep their order."""
    return sorted(objects, key=lambda one: getattr(one, attr))
