"""The wish to stop the running prompt, as a flag that long work asks about. Torch-free, so that anyone may
import it.
"""
from __future__ import annotations

import threading

_interrupt = threading.Event()


class InterruptProcessingException(BaseException):
    """The user stopped the prompt. Not an Exception, so that `except Exception` in a node cannot swallow it.
    """


def interrupt_current_processing(value: bool = True) -> None:
    """Set (or with False: take back) the wish to stop."""
    if value:
        _interrupt.set()
    else:
        _interrupt.clear()


def processing_interrupted() -> bool:
    """Is a stop wished for?"""
    return _interrupt.is_set()


def throw_exception_if_processing_interrupted() -> None:
    """Raise InterruptProcessingException once per wish."""
    if _interrupt.is_set():
        _interrupt.clear()
        raise InterruptProcessingException()
