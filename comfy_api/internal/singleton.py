"""Classes of which there is one object."""

from __future__ import annotations

from typing import Any


class SingletonMetaclass(type):
    """Calling the class gives the same object each time."""

    _instances: dict[type, Any] = {}

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls not in SingletonMetaclass._instances:
            SingletonMetaclass._instances[cls] = super().__call__(*args, **kwargs)
        return SingletonMetaclass._instances[cls]

    def inject_instance(cls, instance: Any) -> None:
        """Set the object, before there is one."""
        if cls in SingletonMetaclass._instances:
            raise RuntimeError(f"There is a {cls.__name__} already. Set another one before its first use.")
        SingletonMetaclass._instances[cls] = instance

    def get_instance(cls, *args: Any, **kwargs: Any) -> Any:
        """The object."""
        return cls(*args, **kwargs)


class ProxiedSingleton(metaclass=SingletonMetaclass):
    """Base of a group of functions of the interface."""
