"""Settings of the web page, one JSON file per user."""

from __future__ import annotations

import json
import logging
from typing import Any

from aiohttp import web

from app.atomic_write import write_atomically
from app.user_manager import UserManager

SETTINGS_FILE = "comfy.settings.json"
# What a user who has not chosen otherwise gets. The server's owner is asked before anything is fetched from
# the internet, so the web page does not look for news of its makers.
DEFAULTS: dict[str, Any] = {"Comfy.Notification.ShowVersionUpdates": False}


class AppSettings:
    """Reads and writes the settings of the user behind a request."""

    def __init__(self, user_manager: UserManager) -> None:
        self.user_manager = user_manager

    def _file(self, request) -> str:
        try:
            path = self.user_manager.get_request_user_filepath(request, SETTINGS_FILE)
        except KeyError as error:
            raise web.HTTPUnauthorized() from error
        if path is None:
            raise web.HTTPForbidden()
        return path

    def get_settings(self, request) -> dict[str, Any]:
        """All settings: the defaults, and over them what the user has chosen."""
        return {**DEFAULTS, **self.get_chosen(request)}

    def get_chosen(self, request) -> dict[str, Any]:
        """The stored settings; none for a missing file, and for a damaged one with an error in the log."""
        path = self._file(request)
        try:
            with open(path, encoding="utf-8") as file:
                settings = json.load(file)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            logging.error(
                "Settings file %s is not JSON (%s). The defaults are used; repair or delete it.", path, error
            )
            return {}
        return settings if isinstance(settings, dict) else {}

    def save_settings(self, request, settings: dict[str, Any]) -> None:
        """Replace the user's settings."""
        write_atomically(self._file(request), json.dumps(settings, indent=4).encode("utf-8"))
