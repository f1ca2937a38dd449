"""Who makes a request, and where that user's files are.

<user directory>/users.json                  {id: name}, only with --multi-user
<user directory>/<id>/comfy.settings.json    settings of the web page
<user directory>/<id>/workflows/*.json ...   files of the web page
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
import uuid

import folder_paths
from app.atomic_write import write_atomically
from app.safe_paths import inside
from comfy.cli_args import args


class UserManager:
    """Users by id. Without --multi-user there is one, "default"."""

    def __init__(self) -> None:
        os.makedirs(folder_paths.get_user_directory(), exist_ok=True)
        self.users: dict[str, str] = self._read_users() if args.multi_user else {"default": "default"}

    def _read_users(self) -> dict[str, str]:
        file_name = self.get_users_file()
        try:
            with open(file_name, encoding="utf-8") as file:
                users = json.load(file)
        except FileNotFoundError:
            return {}
        except ValueError:
            users = None
        if not isinstance(users, dict):  # going on without them would write the file anew, without them
            raise SystemExit(f"{file_name} is not a JSON object of users. Repair it, or move it away.")
        return users

    def get_users_file(self) -> str:
        """The file that lists the users."""
        return os.path.join(folder_paths.get_user_directory(), "users.json")

    def get_request_user_id(self, request) -> str:
        """Id of the requesting user; KeyError for one that does not exist."""
        user = request.headers.get("comfy-user", "default") if args.multi_user else "default"
        if user.startswith(folder_paths.SYSTEM_USER_PREFIX) or user not in self.users:
            raise KeyError(f"Unknown user: {user}")
        return user

    def get_request_user_filepath(
        self, request, file: str | None, type: str = "userdata", create_dir: bool = True
    ) -> str | None:
        """Path of a user's file (None: the user's folder), or None when it would leave the user's folder."""
        if type != "userdata":
            raise KeyError(f"Unknown filepath type: {type}")
        root = folder_paths.get_public_user_directory(self.get_request_user_id(request))
        if root is None:
            return None
        path = root if file is None else inside(root, urllib.parse.unquote(file), links_may_leave=True)
        if path is not None and create_dir:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def add_user(self, name: str) -> str:
        """Make a user and return its id; ValueError for a name that cannot be one."""
        name = name.strip()
        if not name:
            raise ValueError("username not provided")
        slug = re.sub(r"[^a-zA-Z0-9_-]+", "-", name)
        if slug.startswith(folder_paths.SYSTEM_USER_PREFIX):
            raise ValueError(f"A username cannot begin with {folder_paths.SYSTEM_USER_PREFIX!r}")
        user_id = f"{slug}_{uuid.uuid4()}"
        self.users[user_id] = name
        write_atomically(self.get_users_file(), json.dumps(self.users).encode("utf-8"))
        return user_id
