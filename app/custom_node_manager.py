"""What node packs bring for the web page besides nodes: translations and example workflows.

custom_nodes/<pack>/locales/<language>/{main,nodeDefs,commands,settings}.json
custom_nodes/<pack>/example_workflows/*.json      (or example, examples, workflow, workflows)
"""

from __future__ import annotations

import glob
import json
import logging
import os
from typing import Any

import folder_paths

EXAMPLE_FOLDERS = ("example_workflows", "example", "examples", "workflow", "workflows")
LOCALE_SECTIONS = ("nodeDefs", "commands", "settings")


def pack_folders() -> list[str]:
    """The folders of all node packs, sorted within each place they are looked for in."""
    return [
        path
        for place in folder_paths.get_folder_paths("custom_nodes")
        for path in sorted(glob.glob(os.path.join(glob.escape(place), "*", "")))
    ]


def read_object(path: str) -> dict[str, Any]:
    """The JSON object in a file; empty for a missing file, and for a damaged one with an error in the log."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logging.error("%s is left out, it is not JSON: %s.", path, error)
        return {}
    return content if isinstance(content, dict) else {}


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`base` with `more` laid over it, object by object; lists are joined."""
    result = dict(base)
    for key, value in more.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merged(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            result[key] = old + value
        else:
            result[key] = value
    return result


class CustomNodeManager:
    """Collects the packs' translations (once) and example workflows."""

    def __init__(self) -> None:
        self._translations: dict[str, Any] | None = None

    def build_translations(self) -> dict[str, Any]:
        """{language: {keys of main.json, nodeDefs, commands, settings}} of all packs together."""
        if self._translations is None:
            translations: dict[str, Any] = {}
            for pack in pack_folders():
                for language_folder in sorted(glob.glob(os.path.join(glob.escape(pack), "locales", "*", ""))):
                    language = os.path.basename(os.path.dirname(language_folder))
                    texts = read_object(os.path.join(language_folder, "main.json"))
                    for section in LOCALE_SECTIONS:
                        if content := read_object(os.path.join(language_folder, section + ".json")):
                            texts[section] = content
                    if texts:
                        translations[language] = merged(translations.get(language, {}), texts)
            self._translations = translations
        return self._translations

    def example_workflows(self) -> dict[str, list[str]]:
        """{pack: names of its example workflows}; packs without any are left out."""
        found: dict[str, list[str]] = {}
        for pack in pack_folders():
            for folder in EXAMPLE_FOLDERS:
                for file in sorted(glob.glob(os.path.join(glob.escape(pack), folder, "*.json"))):
                    name = os.path.splitext(os.path.basename(file))[0]
                    found.setdefault(os.path.basename(os.path.dirname(pack)), []).append(name)
        return found
