"""What weaving refuses. Each error says what, where, and what to do now.

    Refused
      PatchFileError    a patch or the series is not written as it must be
      AnchorError       a place is not there exactly as a patch names it
        Missing         nothing has that name
        Changed         it has lost a parameter
        Ambiguous       several things have that name
        Unsuited        it is there, in a form that no line can be put at
      SourceError       a file of the core cannot be read as Python
"""

from __future__ import annotations


class Refused(Exception):
    """Nothing was changed; the message says why and what to do."""


class PatchFileError(Refused):
    """A patch or the series is not written as it must be."""


class SourceError(Refused):
    """A file of the core cannot be read as Python."""


class AnchorError(Refused):
    """A place is not there exactly as a patch names it."""

    state = "refused"


class Missing(AnchorError):
    """Nothing has that name."""

    state = "missing"


class Changed(AnchorError):
    """It has lost a parameter that the hook relies on."""

    state = "signature changed"


class Ambiguous(AnchorError):
    """Several things have that name."""

    state = "ambiguous"


class Unsuited(AnchorError):
    """It is there, in a form that no line can be put at."""

    state = "unsuited"
