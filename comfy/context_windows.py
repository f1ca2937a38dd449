"""Context windows: long latents evaluated in overlapping parts, whose predictions are blended.

    handler = IndexListContextHandler(get_matching_context_schedule(...), get_matching_fuse_method(...), ...)
    model.model_options["context_handler"] = handler        the sampler asks it before each evaluation

A schedule says which frames each window sees, a fuse method how much each frame of a window counts. FreeNoise
(arXiv:2310.15169) repeats the noise of the first window, shuffled, in those that follow.
"""

from __future__ import annotations

import collections
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch

import comfy.interruption
import comfy.patcher_extension

PREPARE_KEY = "ContextWindows_prepare_sampling"
SAMPLE_KEY = "ContextWindows_sampler_sample"
# Of windows that no other one shares a frame with; nothing is divided by zero.
LEAST_WEIGHT = 1e-37

ContextResults = collections.namedtuple(
    "ContextResults", ["window_idx", "sub_conds_out", "sub_conds", "window"]
)


class IndexListCallbacks:
    """Moments that packs register callbacks for, in `handler.callbacks`."""

    EVALUATE_CONTEXT_WINDOWS = "evaluate_context_windows"
    COMBINE_CONTEXT_WINDOW_RESULTS = "combine_context_window_results"
    EXECUTE_START = "execute_start"
    EXECUTE_CLEANUP = "execute_cleanup"
    RESIZE_COND_ITEM = "resize_cond_item"

    def init_callbacks(self) -> dict:
        """None."""
        return {}


# --- windows -------------------------------------------------------------------------------------------


class ContextWindowABC(ABC):
    """A part of a latent."""

    @abstractmethod
    def get_tensor(self, full: torch.Tensor) -> torch.Tensor:
        """This part of a tensor."""

    @abstractmethod
    def add_window(self, full: torch.Tensor, to_add: torch.Tensor) -> torch.Tensor:
        """Add to this part of a tensor, in place."""


class IndexListContextWindow(ContextWindowABC):
    """The frames `index_list`, of `total_frames` along `dim`. With a `causal_anchor_index` that frame comes
    first, for networks that look back; who set it cuts it off again.
    """

    def __init__(
        self, index_list: list[int], dim: int = 0, total_frames: int = 0,
        modality_windows: dict | None = None, context_overlap: int = 0,
    ):  # fmt: skip
        self.index_list = index_list
        self.context_length = len(index_list)
        self.context_overlap = context_overlap
        self.dim = dim
        self.total_frames = total_frames
        self.center_ratio = (min(index_list) + max(index_list)) / (2 * total_frames) if total_frames else 0.0
        self.modality_windows = modality_windows
        self.causal_anchor_index: int | None = None

    def get_tensor(self, full, device=None, dim=None, retain_index_list=()):
        """The frames of this window; at the places `retain_index_list` those of the whole."""
        dim = self.dim if dim is None else dim
        if dim == 0 and full.shape[0] == 1:  # one for all frames
            return full
        anchor = [] if self.causal_anchor_index is None else [self.causal_anchor_index]
        frames = anchor + list(self.index_list)
        for place in retain_index_list:
            if place < len(frames):
                frames[place] = place
        return full.index_select(dim, torch.tensor(frames, device=full.device)).to(device or full.device)

    def add_window(self, full, to_add, dim=None):
        """See ContextWindowABC."""
        dim = self.dim if dim is None else dim
        return full.index_add_(dim, torch.tensor(self.index_list, device=full.device), to_add)

    def get_region_index(self, num_regions: int) -> int:
        """In which of so many equal regions its middle is."""
        return max(0, min(num_regions - 1, int(self.center_ratio * num_regions)))

    def get_window_for_modality(self, modality_idx: int) -> IndexListContextWindow:
        """The window of the video, number 0, or of what runs beside it."""
        return self if modality_idx == 0 else self.modality_windows[modality_idx]


# --- which frames each window sees ---------------------------------------------------------------------


@dataclass
class ContextSchedule:
    """`func(frames, handler, model_options)` gives a list of lists of frames."""

    name: str
    func: Callable


class ContextSchedules:
    """Their names."""

    UNIFORM_LOOPED = "looped_uniform"
    UNIFORM_STANDARD = "standard_uniform"
    STATIC_STANDARD = "standard_static"
    BATCHED = "batched"


def ordered_halving(val: int) -> float:
    """The binary digits of a step, mirrored behind the point: 0, 1/2, 1/4, 3/4, 1/8, ..."""
    return int(f"{val:064b}"[::-1], 2) / (1 << 64)


def _advance(handler) -> int:
    """By how many frames windows follow each other."""
    advance = handler.context_length - handler.context_overlap
    if advance <= 0:
        raise ValueError(
            f"context_overlap is {handler.context_overlap}, context_length {handler.context_length}. "
            "Choose an overlap that is smaller than the length."
        )
    return advance


def _uniform(num_frames: int, handler) -> list[list[int]]:
    """Windows with several strides whose begin moves from step to step, not yet cut to the frames."""
    length, step = handler.context_length, handler._step
    strides = min(handler.context_stride, math.ceil(math.log2(max(1.0, num_frames / length))) + 1)
    moved = round(num_frames * ordered_halving(step))
    end = num_frames + moved - (0 if handler.closed_loop else handler.context_overlap)
    windows = []
    for stride in (1 << power for power in range(strides)):
        begin = int(ordered_halving(step) * stride) + moved
        advance = length * stride - handler.context_overlap
        windows += [list(range(j, j + length * stride, stride)) for j in range(begin, end, advance)]
    return windows


def create_windows_uniform_looped(num_frames: int, handler, model_options: dict) -> list[list[int]]:
    """Windows that go round from the last frame to the first."""
    _advance(handler)
    if num_frames < handler.context_length:
        return [list(range(num_frames))]
    return [[frame % num_frames for frame in window] for window in _uniform(num_frames, handler)]


def create_windows_uniform_standard(num_frames: int, handler, model_options: dict) -> list[list[int]]:
    """The same windows; those that would go round end at the last frame, and the first frames have one."""
    length = handler.context_length
    if num_frames <= length:
        return [list(range(num_frames))]
    windows = create_windows_uniform_looped(num_frames, handler, model_options)
    number = 0
    while number < len(windows):
        goes_round, place = does_window_roll_over(windows[number], num_frames)
        if goes_round:
            first = windows[number][place]
            windows[number] = _ending_at_last(windows[number], num_frames)
            following = windows[(number + 1) % len(windows)]
            if first not in following and first + length <= num_frames:
                windows.insert(number + 1, list(range(first, first + length)))
        number += 1
    once = [window for number, window in enumerate(windows) if window not in windows[:number]]
    missing = get_missing_indexes(once, num_frames)
    while missing:  # a frame without a window would have no prediction
        begin = min(missing[0], num_frames - length)
        once.append(list(range(begin, begin + length)))
        missing = get_missing_indexes(once, num_frames)
    return once


def _ending_at_last(window: list[int], num_frames: int) -> list[int]:
    stride = (window[1] - window[0]) % num_frames
    first = num_frames - 1 - stride * (len(window) - 1)
    if first < 0:  # it goes round more than once
        return list(range(num_frames - len(window), num_frames))
    return list(range(first, num_frames, stride))


def create_windows_static_standard(num_frames: int, handler, model_options: dict) -> list[list[int]]:
    """The same windows at each step; the last one ends at the last frame."""
    length = handler.context_length
    if num_frames <= length:
        return [list(range(num_frames))]
    begins = list(range(0, num_frames - length, _advance(handler))) + [num_frames - length]
    return [list(range(begin, begin + length)) for begin in begins]


def create_windows_batched(num_frames: int, handler, model_options: dict) -> list[list[int]]:
    """Windows side by side; the last one may be shorter."""
    length = handler.context_length
    return [list(range(begin, min(begin + length, num_frames))) for begin in range(0, num_frames, length)]


def create_windows_default(num_frames: int, handler) -> list[list[int]]:
    """One window."""
    return [list(range(num_frames))]


CONTEXT_MAPPING = {
    ContextSchedules.UNIFORM_LOOPED: create_windows_uniform_looped,
    ContextSchedules.UNIFORM_STANDARD: create_windows_uniform_standard,
    ContextSchedules.STATIC_STANDARD: create_windows_static_standard,
    ContextSchedules.BATCHED: create_windows_batched,
}


def _known(table: dict, name: str, what: str):
    if name not in table:
        raise ValueError(f"There is no {what} '{name}'. Known are: {', '.join(table)}.")
    return table[name]


def get_matching_context_schedule(context_schedule: str) -> ContextSchedule:
    """The schedule of a name."""
    return ContextSchedule(context_schedule, _known(CONTEXT_MAPPING, context_schedule, "context_schedule"))


def get_missing_indexes(windows: list[list[int]], num_frames: int) -> list[int]:
    """The frames that no window has."""
    seen = {frame for window in windows for frame in window}
    return [frame for frame in range(num_frames) if frame not in seen]


def does_window_roll_over(window: list[int], num_frames: int) -> tuple[bool, int]:
    """(does it go round, the place of the first frame after that or -1)."""
    for place in range(1, len(window)):
        if window[place] < window[place - 1]:
            return True, place
    return False, -1


def shift_window_to_start(window: list[int], num_frames: int) -> None:
    """Move a window, in place, so that it begins at frame 0."""
    first = window[0]
    window[:] = [(frame - first) % num_frames for frame in window]


def shift_window_to_end(window: list[int], num_frames: int) -> None:
    """Move a window, in place, so that it ends at the last frame."""
    shift_window_to_start(window, num_frames)
    left = num_frames - window[-1] - 1
    window[:] = [frame + left for frame in window]


# --- how much each frame of a window counts ------------------------------------------------------------


@dataclass
class ContextFuseMethod:
    """`func(length=, full_length=, idxs=, handler=, sigma=, context_overlap=)` gives a weight per frame."""

    name: str
    func: Callable


class ContextFuseMethods:
    """Their names."""

    FLAT = "flat"
    PYRAMID = "pyramid"
    RELATIVE = "relative"
    OVERLAP_LINEAR = "overlap-linear"

    LIST = [PYRAMID, FLAT, OVERLAP_LINEAR]
    LIST_STATIC = [PYRAMID, RELATIVE, FLAT, OVERLAP_LINEAR]


def create_weights_flat(length: int, **_known) -> list[float]:
    """All count alike."""
    return [1.0] * length


def create_weights_pyramid(length: int, **_known) -> list[float]:
    """1, 2, 3, ... up to the middle and down again."""
    return [float(min(place + 1, length - place)) for place in range(length)]


def create_weights_relative(length: int, idxs: list[int], **_known) -> list[float]:
    """1 in the middle of the window, down to 0.01 at its ends."""
    middle, half = (idxs[0] + idxs[-1]) / 2, (idxs[-1] - idxs[0] + 1e-2) / 2
    return [max(1e-2, 1 - abs(frame - middle) / half) for frame in idxs]


def create_weights_overlap_linear(
    length: int, full_length: int, idxs: list[int], context_overlap: int, **_known
) -> list[float]:
    """A ramp over the overlap, where the window does not touch the first or the last frame."""
    weights = torch.ones(length)
    overlap = min(context_overlap, length)
    ramp = torch.linspace(LEAST_WEIGHT, 1, overlap)
    if min(idxs) > 0:
        weights[:overlap] = ramp
    if max(idxs) < full_length - 1:
        weights[length - overlap :] = ramp.flip(0)
    return weights.tolist()


FUSE_MAPPING = {
    ContextFuseMethods.FLAT: create_weights_flat,
    ContextFuseMethods.PYRAMID: create_weights_pyramid,
    ContextFuseMethods.RELATIVE: create_weights_relative,
    ContextFuseMethods.OVERLAP_LINEAR: create_weights_overlap_linear,
}


def get_matching_fuse_method(fuse_method: str) -> ContextFuseMethod:
    """The fuse method of a name."""
    return ContextFuseMethod(fuse_method, _known(FUSE_MAPPING, fuse_method, "fuse_method"))


def get_context_weights(
    length: int, full_length: int, idxs: list[int], handler, sigma=None, context_overlap: int | None = None
) -> list[float]:
    """The weights of one window."""
    overlap = handler.context_overlap if context_overlap is None else context_overlap
    return handler.fuse_method.func(
        length=length, full_length=full_length, idxs=idxs, handler=handler, sigma=sigma,
        context_overlap=overlap,
    )  # fmt: skip


def get_shape_for_dim(x_in: torch.Tensor, dim: int) -> list[int]:
    """A shape that broadcasts along `dim`."""
    return [size if axis == dim else 1 for axis, size in enumerate(x_in.shape)]


def match_weights_to_dim(weights: list[float], x_in: torch.Tensor, dim: int, device=None) -> torch.Tensor:
    """Weights of frames in a shape that broadcasts along `dim`."""
    shape = [1] * x_in.ndim
    shape[dim] = -1
    return torch.tensor(weights, device=device).reshape(shape)


# --- the handler ---------------------------------------------------------------------------------------


class ContextHandlerABC(ABC):
    """What the sampler asks, in `model_options["context_handler"]`."""

    @abstractmethod
    def should_use_context(self, model, conds, x_in, timestep, model_options) -> bool:
        """Is this latent to be evaluated in windows?"""

    @abstractmethod
    def get_resized_cond(self, cond_in, x_in, window, device=None) -> list:
        """The conditioning of a side for one window."""

    @abstractmethod
    def execute(self, calc_cond_batch: Callable, model, conds, x_in, timestep, model_options):
        """The predictions for each side, through `calc_cond_batch` for each window."""


def _numbers(text) -> list[int]:
    """Places, from a text with commas or a list."""
    try:
        parts = text.split(",") if isinstance(text, str) else list(text)
        return [int(part) for part in parts if not isinstance(part, str) or part.strip()]
    except ValueError:
        raise ValueError(f"'{text}' is no list of frames. Write numbers with commas between: 0, 1.") from None


class IndexListContextHandler(ContextHandlerABC):
    """Evaluates latents that are longer than `context_length` along `dim` in windows."""

    def __init__(
        self, context_schedule: ContextSchedule, fuse_method: ContextFuseMethod, context_length: int = 1,
        context_overlap: int = 0, context_stride: int = 1, closed_loop: bool = False, dim: int = 0,
        freenoise: bool = False, cond_retain_index_list=(), split_conds_to_windows: bool = False,
        latent_retain_index_list=(), causal_window_fix: bool = True,
    ):  # fmt: skip
        self.context_schedule = context_schedule
        self.fuse_method = fuse_method
        self.context_length = context_length
        self.context_overlap = context_overlap
        self.context_stride = context_stride
        self.closed_loop = closed_loop
        self.dim = dim
        self._step = 0
        self.freenoise = freenoise
        self.cond_retain_index_list = _numbers(cond_retain_index_list)
        self.split_conds_to_windows = split_conds_to_windows
        self.latent_retain_index_list = _numbers(latent_retain_index_list)
        self.causal_window_fix = causal_window_fix
        self.callbacks: dict = {}

    def should_use_context(self, model, conds, x_in, timestep, model_options) -> bool:
        """See ContextHandlerABC.

        Raises:
            ValueError: the latent has no axis `dim`.
        """
        if self.dim >= x_in.ndim:
            raise ValueError(
                f"dim is {self.dim}, and these latents have the axes 0 to {x_in.ndim - 1}. "
                "Choose 0 for batches of pictures, 2 for the frames of a video model."
            )
        return x_in.size(self.dim) > self.context_length

    def set_step(self, timestep, model_options) -> None:
        """Which step of the run this is; evaluations between two levels stay with the last one."""
        sigmas = model_options["transformer_options"]["sample_sigmas"]
        found = torch.isclose(sigmas, timestep[0].to(sigmas), rtol=1e-4).nonzero()
        if found.numel():
            self._step = int(found[0])

    def get_context_windows(self, model, x_in, model_options) -> list[IndexListContextWindow]:
        """The windows of this step."""
        frames = x_in.size(self.dim)
        return [
            IndexListContextWindow(window, self.dim, frames, context_overlap=self.context_overlap)
            for window in self.context_schedule.func(frames, self, model_options)
        ]

    # --- conditioning of a window ---

    def prepare_control_objects(self, control, device=None):
        """A ControlNet in a window; packs that cut hints to windows override this."""
        return control

    def get_resized_cond(self, cond_in, x_in, window, device=None, model=None):
        """See ContextHandlerABC: what has as many rows along `dim` as the latent is cut to the window."""
        if cond_in is None:
            return None
        if self.split_conds_to_windows and len(cond_in) > 1:
            cond_in = [cond_in[window.get_region_index(len(cond_in))]]
        return [
            {key: self._resized_entry(key, value, x_in, window, device, model) for key, value in cond.items()}
            for cond in cond_in
        ]

    def _resized_entry(self, key, value, x_in, window, device, model):
        if key == "control":
            return self.prepare_control_objects(value, device)
        if isinstance(value, torch.Tensor):
            has_frames = self.dim < value.ndim and value.size(self.dim) == x_in.size(self.dim)
            return window.get_tensor(value, device) if has_frames else value
        if not isinstance(value, dict):
            return value
        resized = dict(value)
        for name, one in value.items():
            resized[name] = self._resized_value(name, one, x_in, window, device, resized, model)
        return resized

    def _resized_value(self, name, value, x_in, window, device, values, model):
        kind = IndexListCallbacks.RESIZE_COND_ITEM
        for callback in comfy.patcher_extension.get_all_callbacks(kind, self.callbacks):
            found = callback(name, value, window, x_in, device, values)
            if found is not None:
                return found
        of_model = getattr(model, "resize_cond_for_context_window", None)
        if of_model is not None:
            retained = self.cond_retain_index_list
            found = of_model(name, value, window, x_in, device, retain_index_list=retained)
            if found is not None:
                return found
        if name == "num_video_frames":
            return value._copy_with(window.context_length)
        tensor = value if isinstance(value, torch.Tensor) else getattr(value, "cond", None)
        if not isinstance(tensor, torch.Tensor):
            return value
        # Values without an axis `dim` have their frames along the first one.
        axis = self.dim if self.dim < tensor.ndim else 0
        if tensor.ndim == self.dim or tensor.size(axis) != x_in.size(self.dim):
            return value
        if tensor is value:
            return window.get_tensor(tensor, device)
        cut = window.get_tensor(tensor, device, retain_index_list=self.cond_retain_index_list, dim=axis)
        return value._copy_with(cut)

    # --- evaluation ---

    def execute(self, calc_cond_batch, model, conds, x_in, timestep, model_options):
        """See ContextHandlerABC."""
        self.set_step(timestep, model_options)
        windows = self.get_context_windows(model, x_in, model_options)
        totals = [torch.zeros_like(x_in) for _ in conds]
        counts = [x_in.new_zeros(get_shape_for_dim(x_in, self.dim)) for _ in conds]
        biases = [[0.0] * x_in.shape[self.dim] for _ in conds]
        around = (self, model, x_in, conds, timestep, model_options)
        self._call(IndexListCallbacks.EXECUTE_START, *around)
        try:
            for result in self.evaluate_context_windows(
                calc_cond_batch, model, x_in, conds, timestep, list(enumerate(windows)), model_options
            ):
                self.combine_context_window_results(
                    x_in, result.sub_conds_out, result.sub_conds, result.window, result.window_idx,
                    len(windows), timestep, totals, counts, biases,
                )  # fmt: skip
            return [total / count for total, count in zip(totals, counts)]
        finally:
            self._call(IndexListCallbacks.EXECUTE_CLEANUP, *around)

    def _call(self, kind, *args) -> None:
        for callback in comfy.patcher_extension.get_all_callbacks(kind, self.callbacks):
            callback(*args)

    def evaluate_context_windows(
        self, calc_cond_batch, model, x_in, conds, timestep, enumerated_context_windows, model_options,
        window_state=None, total_windows=None, device=None, first_device=None,
    ):  # fmt: skip
        """The ContextResults of the windows, one after the other."""
        for number, window in enumerated_context_windows:
            comfy.interruption.throw_exception_if_processing_interrupted()
            before = window.index_list[0] - 1
            if self.causal_window_fix and before >= 0:
                window.causal_anchor_index = before
            sub_x = window.get_tensor(x_in, device, retain_index_list=self.latent_retain_index_list)
            self._call(
                IndexListCallbacks.EVALUATE_CONTEXT_WINDOWS, self, model, x_in, conds, timestep,
                model_options, number, window, model_options, device, first_device,
            )  # fmt: skip
            model_options["transformer_options"]["context_window"] = window
            sub_conds = [self.get_resized_cond(cond, x_in, window, device, model) for cond in conds]
            levels = window.get_tensor(timestep, device, dim=0)
            out = calc_cond_batch(model, sub_conds, sub_x, levels, model_options)
            if window.causal_anchor_index is not None:
                out = [one.narrow(self.dim, 1, one.shape[self.dim] - 1) for one in out]
            yield ContextResults(number, out, sub_conds, window)

    def combine_context_window_results(
        self, x_in, sub_conds_out, sub_conds, window, window_idx, total_windows, timestep, conds_final,
        counts_final, biases_final,
    ):  # fmt: skip
        """Add a window's predictions, and how much they count."""
        weights = get_context_weights(
            window.context_length, x_in.shape[self.dim], window.index_list, self, sigma=timestep
        )
        along = match_weights_to_dim(weights, x_in, self.dim, device=x_in.device)
        for total, count, out in zip(conds_final, counts_final, sub_conds_out):
            window.add_window(total, out * along)
            window.add_window(count, along)
        self._call(
            IndexListCallbacks.COMBINE_CONTEXT_WINDOW_RESULTS, self, x_in, sub_conds_out, sub_conds, window,
            window_idx, total_windows, timestep, conds_final, counts_final, biases_final,
        )  # fmt: skip


# --- around sampling -----------------------------------------------------------------------------------


def _prepare_sampling_wrapper(executor, model, noise_shape, conds, *args, **kwargs):
    handler = model.model_options.get("context_handler")
    if handler is None:
        return executor(model, noise_shape, conds, *args, **kwargs)
    shape = list(noise_shape)
    if handler.dim < len(shape):  # memory is needed for one window at a time
        shape[handler.dim] = min(shape[handler.dim], handler.context_length)
    return executor(model, shape, conds, *args, **kwargs)


def create_prepare_sampling_wrapper(model) -> None:
    """Let memory be estimated for a window, not for the whole latent."""
    kind = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING
    model.add_wrapper_with_key(kind, PREPARE_KEY, _prepare_sampling_wrapper)


def _sampler_sample_wrapper(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    handler = extra_args["model_options"].get("context_handler")
    if handler is not None and handler.freenoise:
        seed = extra_args["seed"]
        noise = apply_freenoise(
            noise.clone(), handler.dim, handler.context_length, handler.context_overlap, seed
        )
        logging.info("FreeNoise: the noise of the first window is repeated, shuffled.")
    return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)


def create_sampler_sample_wrapper(model) -> None:
    """Let the noise of the first window be repeated, if the handler wants FreeNoise."""
    kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
    model.add_wrapper_with_key(kind, SAMPLE_KEY, _sampler_sample_wrapper)


def apply_freenoise(noise, dim: int, context_length: int, context_overlap: int, seed: int):
    """Replace, in place, what follows the first window by the frames of a window before, shuffled."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    frames, advance = noise.shape[dim], context_length - context_overlap
    if advance <= 0:
        return noise
    for begin in range(0, frames - context_length, advance):
        place = begin + context_length
        count = min(advance, frames - place)
        order = begin + torch.randperm(count, generator=generator)
        noise.narrow(dim, place, count).copy_(noise.index_select(dim, order.to(noise.device)))
    return noise
