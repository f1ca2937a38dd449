"""What the server is: /system_stats and /features. Both answer before torch is loaded."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
from typing import Any

import psutil
from aiohttp import web

import comfyui_version
from app.frontend_management import FrontendManager
from app.routes import register
from app.routes.operations import OBJECT, TEXT, TRUTH, WHOLE, Operation, many, or_null, record
from comfy_api import feature_flags

DEVICE_FUNCTIONS = ("get_torch_device", "get_torch_device_name", "get_total_memory", "get_free_memory")


@functools.lru_cache(maxsize=1)
def torch_version() -> str | None:
    """The installed version of torch, found without importing it."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def loaded_model_management() -> Any | None:
    """`comfy.model_management` if it is loaded already: looking at the devices must not load torch."""
    module = sys.modules.get("comfy.model_management")
    return module if all(hasattr(module, name) for name in DEVICE_FUNCTIONS) else None


def describe_device(management: Any, device: Any) -> dict[str, Any]:
    """One device as torch knows it."""
    total, torch_total = management.get_total_memory(device, torch_total_too=True)
    free, torch_free = management.get_free_memory(device, torch_free_too=True)
    return {
        "name": management.get_torch_device_name(device),
        "type": device.type,
        "index": device.index,
        "vram_total": total,
        "vram_free": free,
        "torch_vram_total": torch_total,
        "torch_vram_free": torch_free,
    }


def describe_devices() -> list[dict[str, Any]]:
    """The devices, the one in use first; before torch is loaded only the CPU is known."""
    management = loaded_model_management()
    if management is None:
        memory = psutil.virtual_memory()
        return [
            {
                "name": "cpu",
                "type": "cpu",
                "index": None,
                "vram_total": memory.total,
                "vram_free": memory.available,
                "torch_vram_total": memory.total,
                "torch_vram_free": memory.available,
            }
        ]
    first = management.get_torch_device()
    every = getattr(management, "get_all_torch_devices", list)()
    return [describe_device(management, device) for device in [first, *(d for d in every if d != first)]]


async def get_system_stats(server: Any, request: web.Request) -> web.Response:
    memory = psutil.virtual_memory()
    system = {
        "os": sys.platform,
        "ram_total": memory.total,
        "ram_free": memory.available,
        "comfyui_version": comfyui_version.__version__,
        "required_frontend_version": FrontendManager.get_required_frontend_version(),
        "installed_templates_version": FrontendManager.get_installed_templates_version(),
        "required_templates_version": FrontendManager.get_required_templates_version(),
        "comfy_package_versions": FrontendManager.get_comfy_package_versions(),
        "python_version": sys.version,
        "pytorch_version": torch_version(),
        "embedded_python": os.path.basename(os.path.dirname(sys.executable)) == "python_embeded",
        "deploy_environment": "local",
        "argv": sys.argv,
    }
    return web.json_response({"system": system, "devices": describe_devices()})


async def get_features(server: Any, request: web.Request) -> web.Response:
    return web.json_response(feature_flags.get_server_features())


async def get_cache(server: Any, request: web.Request) -> web.Response:
    return web.json_response(server.cache_stats())


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes that describe the server."""
    table = [
        ("GET", "/system_stats", get_system_stats),
        ("GET", "/features", get_features),
        ("GET", "/depot/cache", get_cache),
    ]
    register(routes, server, table)


DEVICE = record(
    {
        "name": TEXT,
        "type": TEXT,
        "index": or_null(WHOLE),
        "vram_total": WHOLE,
        "vram_free": WHOLE,
        "torch_vram_total": WHOLE,
        "torch_vram_free": WHOLE,
    }
)
PACKAGE = record({"name": TEXT, "installed": or_null(TEXT), "required": or_null(TEXT)})
SYSTEM = record(
    {
        "os": TEXT,
        "ram_total": WHOLE,
        "ram_free": WHOLE,
        "comfyui_version": TEXT,
        "python_version": TEXT,
        "pytorch_version": or_null(TEXT),
        "embedded_python": TRUTH,
        "deploy_environment": TEXT,
        "argv": many(TEXT),
        "required_frontend_version": or_null(TEXT),
        "installed_templates_version": or_null(TEXT),
        "required_templates_version": or_null(TEXT),
        "comfy_package_versions": many(PACKAGE),
    }
)
OPERATIONS = {
    "GET /system_stats": Operation(
        "Memory, devices and versions", {200: record({"system": SYSTEM, "devices": many(DEVICE)})}
    ),
    "GET /features": Operation("What this server can do, by flag", {200: OBJECT}),
    "GET /depot/cache": Operation("The cache of results", {200: OBJECT}),
}
