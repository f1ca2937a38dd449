"""Sharing the work of one evaluation among devices: the numbers. Models here run on one device each."""

from __future__ import annotations

from collections import namedtuple

LoadBalance = namedtuple("LoadBalance", ["work_per_device", "idle_time"])


class GPUOptions:
    """How fast a device is, next to the others."""

    def __init__(self, device_index: int, relative_speed: float):
        self.device_index = device_index
        self.relative_speed = relative_speed

    def clone(self):
        return GPUOptions(self.device_index, self.relative_speed)

    def create_dict(self) -> dict:
        return {"relative_speed": self.relative_speed}


class GPUOptionsGroup:
    """Options of several devices, by their index; the last of an index stays."""

    def __init__(self):
        self.options: dict[int, GPUOptions] = {}

    def add(self, info: GPUOptions) -> None:
        self.options[info.device_index] = info

    def clone(self):
        group = GPUOptionsGroup()
        for info in self.options.values():
            group.add(info)
        return group


def round_preserved(values: list[float]) -> list[int]:
    """Whole numbers of the same sum: the largest fractions are rounded up."""
    whole = [int(value) for value in values]
    missing = round(sum(values)) - sum(whole)
    order = sorted(range(len(values)), key=lambda index: whole[index] - values[index])
    for index in order[:missing]:
        whole[index] += 1
    return whole


def load_balance_devices(
    model_options: dict, total_work: int, return_idle_time=False, work_normalized: int | None = None
) -> LoadBalance:
    """Pieces of work per device by its speed, and how long the fastest waits, in units of one's work.

    `model_options` has "multigpu_options" {device: {"relative_speed": ...}}, "multigpu_clones" {device: ...}.
    """
    speeds = {
        device: option["relative_speed"] for device, option in model_options["multigpu_options"].items()
    }
    devices = list(model_options["multigpu_clones"])
    total = sum(speeds.values())
    work = round_preserved([total_work * speeds[device] / total for device in devices])
    shares = dict(zip(devices, work))
    if not return_idle_time:
        return LoadBalance(shares, None)
    times = [share / speeds[device] for device, share in shares.items()]
    idle = max(times) - min(times)
    return LoadBalance(shares, idle * work_normalized / total_work if work_normalized else idle)


def create_multigpu_deepclones(model, max_gpus: int, gpu_options=None, reuse_loaded=False):
    """The model itself where one device is asked for.

    Raises:
        NotImplementedError: more are asked for, which one evaluation cannot use here.
    """
    if max_gpus > 1:
        raise NotImplementedError(
            f"One evaluation of a model runs on one device in this program, not on {max_gpus}. To use more "
            "devices, run a worker on each."
        )
    return model
