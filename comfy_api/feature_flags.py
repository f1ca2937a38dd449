"""What this server can do, told to clients by `GET /features` and in reply to a websocket's first message.

`SERVER_FEATURE_FLAGS` is a module-level mutable dictionary because node packs add entries to it at import
time.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

MEGABYTE = 1024 * 1024

# Flags that --feature-flag converts to a type; any other key keeps its text.
CLI_FEATURE_FLAG_REGISTRY: dict[str, dict[str, Any]] = {
    "show_signin_button": {
        "type": "bool",
        "default": False,
        "description": "show the sign-in button of the web page",
    },
    "enable_telemetry": {
        "type": "bool",
        "default": False,
        "description": "tell the web page that telemetry is wished for",
    },
}

SERVER_FEATURE_FLAGS: dict[str, Any] = {
    "supports_preview_metadata": True,
    "supports_model_type_tags": True,
    "max_upload_size": 100 * MEGABYTE,
    "extension": {"manager": {"supports_v4": True}},
    "node_replacements": True,
    "assets": False,
}
CORE_FLAGS = frozenset(SERVER_FEATURE_FLAGS)


def _convert(key: str, text: str) -> Any:
    """The typed value of a flag given as text; ValueError when it does not fit the key's type."""
    kind = CLI_FEATURE_FLAG_REGISTRY.get(key, {}).get("type")
    if kind == "bool":
        try:
            return {"true": True, "false": False}[text.lower()]
        except KeyError:
            raise ValueError("it must be true or false") from None
    return {"int": int, "float": float}.get(kind, str)(text)


def parse_flags(items: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as a dictionary; a bare key means true, a bad value is dropped with a warning."""
    flags: dict[str, Any] = {}
    for item in items:
        key, separator, text = item.partition("=")
        key = key.strip()
        if not key:
            continue
        try:
            flags[key] = _convert(key, text.strip() if separator else "true")
        except ValueError as error:
            logging.warning("--feature-flag %s is left out: %s.", item, error)
    return flags


def apply_arguments(args: Any) -> None:
    """Bring the flags in line with the command line. Core flags cannot be overridden by --feature-flag."""
    SERVER_FEATURE_FLAGS["max_upload_size"] = round(args.max_upload_size * MEGABYTE)
    given = parse_flags(args.feature_flag)
    for key in CORE_FLAGS & given.keys():
        logging.warning("--feature-flag %s is left out: the server sets it itself.", key)
    SERVER_FEATURE_FLAGS.update({key: value for key, value in given.items() if key not in CORE_FLAGS})


def get_connection_feature(
    sockets_metadata: Mapping[str, Mapping[str, Any]],
    sid: str | None,
    feature_name: str,
    default: Any = False,
) -> Any:
    """What the client on connection `sid` announced for a flag, else `default`."""
    if sid not in sockets_metadata:
        return default
    return sockets_metadata[sid].get("feature_flags", {}).get(feature_name, default)


def supports_feature(
    sockets_metadata: Mapping[str, Mapping[str, Any]], sid: str | None, feature_name: str
) -> bool:
    """Did the client on connection `sid` announce the flag as true?"""
    return get_connection_feature(sockets_metadata, sid, feature_name) is True


def get_server_features() -> dict[str, Any]:
    """A copy of the server's flags."""
    return copy.deepcopy(SERVER_FEATURE_FLAGS)
