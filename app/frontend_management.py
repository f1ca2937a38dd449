"""Where the web UI, its templates and its documentation are: files of packages that are not imported."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging
import os
import re

REQUIREMENTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "requirements.txt")
FRONTEND_PACKAGE = "comfyui-frontend-package"
TEMPLATES_PACKAGE = "comfyui-workflow-templates"
DOCS_PACKAGE = "comfyui-embedded-docs"
REPORTED_PACKAGES = (FRONTEND_PACKAGE, TEMPLATES_PACKAGE, DOCS_PACKAGE)


def package_folder(module: str, folder: str) -> str | None:
    """A folder of an installed package, or None when the package or the folder is missing."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = os.path.join(list(spec.submodule_search_locations)[0], folder)
    return path if os.path.isdir(path) else None


def installed_version(package: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.lru_cache(maxsize=1)
def required_versions() -> dict[str, str]:
    """Package -> the lowest version that requirements.txt accepts."""
    try:
        with open(REQUIREMENTS, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    found = (
        re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*(?:==|>=|~=)\s*([0-9][0-9A-Za-z.]*)", line)
        for line in lines
    )
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


@functools.lru_cache(maxsize=1)
def template_files() -> dict[str, str]:
    """Name of a file below /templates -> its path. The template packages spread them over several wheels."""
    try:
        from comfyui_workflow_templates import get_asset_path, iter_templates
    except ImportError:
        logging.warning("Package %s is not installed: the template browser stays empty.", TEMPLATES_PACKAGE)
        return {}
    files: dict[str, str] = {}
    for template in iter_templates():
        for asset in template.assets:
            try:
                files[asset.filename] = get_asset_path(template.template_id, asset.filename)
            except (OSError, KeyError, ValueError, ImportError) as error:
                logging.warning("Template file %s is left out: %s.", asset.filename, error)
    return files


class FrontendManager:
    """What the server asks about the web UI's packages."""

    @classmethod
    def default_frontend_path(cls) -> str:
        """The folder with index.html; SystemExit with advice when the package is missing."""
        path = package_folder("comfyui_frontend_package", "static")
        if path is None:
            raise SystemExit(
                f"The web UI is not installed: package {FRONTEND_PACKAGE} is missing. "
                "Run: pip install -r requirements.txt, or name a folder with --front-end-root."
            )
        return path

    @classmethod
    def init_frontend(cls, version_string: str) -> str:
        """The web UI's folder. Only the installed package is served, so the version is not looked at."""
        return cls.default_frontend_path()

    @classmethod
    def embedded_docs_path(cls) -> str | None:
        """The folder of node documentation, if its package is installed."""
        return package_folder("comfyui_embedded_docs", "docs")

    @classmethod
    def get_required_frontend_version(cls) -> str | None:
        """The oldest web UI that fits this server."""
        return required_versions().get(FRONTEND_PACKAGE)

    @classmethod
    def get_installed_templates_version(cls) -> str | None:
        """Version of the installed template package."""
        return installed_version(TEMPLATES_PACKAGE)

    @classmethod
    def get_required_templates_version(cls) -> str | None:
        """The oldest template package that fits this server."""
        return required_versions().get(TEMPLATES_PACKAGE)

    @classmethod
    def get_comfy_package_versions(cls) -> list[dict[str, str | None]]:
        """[{name, installed, required}] of the web UI's packages that this server asks for."""
        return [
            {"name": name, "installed": installed_version(name), "required": required_versions()[name]}
            for name in REPORTED_PACKAGES
            if name in required_versions()
        ]
