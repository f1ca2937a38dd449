"""Attributes that are imported when first asked for: node classes name tensors, servers start without."""

from __future__ import annotations

import importlib
from typing import Any


class lazy_attribute:
    """A class attribute that stands for an attribute of a module."""

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __get__(self, obj: Any, owner: Any) -> Any:
        return getattr(importlib.import_module(self.module), self.name)
