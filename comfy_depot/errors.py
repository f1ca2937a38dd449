"""What can go wrong in the depot, as one tree.

    DepotError
    ├── UnsafeName                          a name that could leave its folder or cannot be a file everywhere
    ├── TransferCancelled                   somebody stopped the transfer; the partial stays
    └── ModelUnavailable (FileNotFoundError)  the file is not here and cannot be brought
        └── DownloadFailed                  it was tried, and no source gave it
            ├── SourceRefused               401, 403, or an address that the depot must not talk to
            ├── WrongContent                size, sha256, header or kind of the file is not what was promised
            │   └── SentTooMuch             more came than was said; it is thrown away
            └── DiskFull                    there is no room for it

Every message says what happened, where, and what to do now. No message holds a query string, a header or
a token.
"""

from __future__ import annotations


class DepotError(Exception):
    """Root of all errors that the depot raises on purpose."""


class UnsafeName(DepotError):
    """A model name that could leave its folder, hide itself, or cannot exist on every file system."""


class TransferCancelled(DepotError):
    """The transfer was stopped on request; its partial stays and the next fetch goes on from it."""


class ModelUnavailable(DepotError, FileNotFoundError):
    """A model is not on the disk and cannot be brought there (also a FileNotFoundError for node packs)."""


class DownloadFailed(ModelUnavailable):
    """Every source of a model was tried and none gave it."""


class SourceRefused(DownloadFailed):
    """A source wants other credentials, or lies at an address that the depot must not talk to."""


class WrongContent(DownloadFailed):
    """What arrived is not what was promised; it never becomes visible under the model's name."""


class SentTooMuch(WrongContent):
    """A source sends more than it said; none of it is kept."""


class DiskFull(DownloadFailed):
    """The file system of the destination has no room for the file."""

    fits_never = False
    """Whether it is too large even for all that the depot may use."""
