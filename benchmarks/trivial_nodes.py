"""Nodes that do next to nothing, so that what is measured is the server: a node pack of one file.

Copy it into `custom_nodes` of each server that `benchmarks/prompt_rate.py` measures.
"""

from typing import Any


class TrivialNumber:
    """The start of a graph."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "benchmarks"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"default": 0, "min": 0, "max": 2**31})}}

    def run(self, value: int) -> tuple[int]:
        return (value,)


class TrivialAdd(TrivialNumber):
    """One more."""

    def run(self, value: int) -> tuple[int]:
        return (value + 1,)


class TrivialSum(TrivialNumber):
    """The sum of any number of inputs."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def run(self, **values: int) -> tuple[int]:
        return (sum(values.values()),)


class TrivialShow(TrivialNumber):
    """The end of a graph."""

    RETURN_TYPES = ()  # type: ignore[assignment]
    OUTPUT_NODE = True

    def run(self, value: int) -> Any:
        return {"ui": {"text": [value]}}


NODE_CLASS_MAPPINGS = {
    "TrivialNumber": TrivialNumber,
    "TrivialAdd": TrivialAdd,
    "TrivialSum": TrivialSum,
    "TrivialShow": TrivialShow,
}
