"""Rule 103: versions of the interface, what nodes can ask for, and its twin that is not asynchronous."""

import asyncio
import importlib

import numpy
import pytest
import torch

from app.node_replace_manager import NodeReplaceManager
from comfy.cli_args import args
from comfy_api import node_replacements
from comfy_api.internal.api_registry import (
    ComfyAPIWithVersion,
    find_version,
    get_all_versions,
    parse_version,
    register_versions,
)
from comfy_api.internal.async_to_sync import run_blocking
from comfy_api.internal.singleton import ProxiedSingleton
from comfy_api.latest import Caching, ComfyAPI, ComfyAPISync, io
from comfy_api.version_list import supported_versions
from comfy_execution import cache_provider, progress
from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.utils import CurrentNodeContext, get_executing_context


class Pictures(progress.ProgressHandler):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__("pictures")
        self.told = []

    def update_handler(self, node_id, value, max_value, state, prompt_id, image=None):
        self.told.append((node_id, value, max_value, image))


@pytest.fixture
def told():
    progress.reset_progress_state("p", DynamicPrompt({}))
    handler = Pictures()
    progress.add_progress_handler(handler)
    return handler.told


@pytest.mark.parametrize("module", ["latest", "v0_0_2", "v0_0_1"])
def test_each_version_can_be_imported_and_reports_progress(told, module):
    version = importlib.import_module(f"comfy_api.{module}")
    for name in set(version.__all__):
        assert hasattr(version, name), name
    asyncio.run(version.ComfyAPI().execution.set_progress(1, 4, node_id="7"))
    version.ComfyAPISync().execution.set_progress(2, 4, "8")
    assert told == [("7", 1, 4, None), ("8", 2, 4, None)]


def test_versions_are_known_by_number_and_there_is_one_object_of_each():
    assert [version.VERSION for version in supported_versions] == ["latest", "0.0.2", "0.0.1"]
    assert all(version() is version() for version in supported_versions)
    register_versions([ComfyAPIWithVersion(version.VERSION, version) for version in supported_versions])
    assert [entry.version for entry in get_all_versions()] == ["0.0.1", "0.0.2", "latest"]
    assert find_version("0.0.2") is supported_versions[1] and find_version("9") is None
    assert parse_version("0.0.10") > parse_version("v0_0_9")
    with pytest.raises(ValueError, match="'new' is no version"):
        parse_version("new")


def test_progress_belongs_to_the_node_that_runs(told):
    with CurrentNodeContext("p", "5", 0):
        asyncio.run(ComfyAPI().execution.set_progress(0.5, 1.0))
        ComfyAPISync().execution.set_progress(0.75, 1.0)
    assert [entry[:3] for entry in told] == [("5", 0.5, 1.0), ("5", 0.75, 1.0)]
    with pytest.raises(ValueError, match="Pass node_id"):
        ComfyAPISync().execution.set_progress(1, 1)


def test_a_preview_may_be_a_tensor_or_a_picture(told):
    batch = torch.zeros(2, 3, 5, 3)
    batch[0, 0, 0] = torch.tensor([1.0, 0.5, 2.0])
    api = ComfyAPISync().execution
    api.set_progress(1, 2, "1", preview_image=batch)
    api.set_progress(1, 2, "1", preview_image=batch[0], ignore_size_limit=True)
    (kind, picture, limit), (_, second, no_limit) = (entry[3] for entry in told)
    assert (kind, picture.size, limit, no_limit) == ("JPEG", (5, 3), args.preview_size, None)
    assert numpy.asarray(picture)[0, 0].tolist() == [255, 127, 255] == numpy.asarray(second)[0, 0].tolist()
    picture.format = "PNG"
    api.set_progress(1, 2, "1", preview_image=picture)
    assert told[-1][3] == ("PNG", picture, args.preview_size)


def test_the_twin_can_be_used_inside_a_running_loop_and_stays_in_its_node():
    async def inside():
        with CurrentNodeContext("p", "3", 1):
            return run_blocking(where())

    async def where():
        await asyncio.sleep(0)
        return get_executing_context()

    assert asyncio.run(inside()) == ("p", "3", 1)


def test_replacements_reach_the_server_also_those_from_before_it_started(monkeypatch):
    monkeypatch.setattr(node_replacements, "_left", [])
    monkeypatch.setattr(node_replacements, "_receivers", [])
    early = io.NodeReplace("New", "Old", input_mapping=[{"new_id": "b", "old_id": "a"}])
    asyncio.run(ComfyAPI().node_replacement.register(early))
    manager = NodeReplaceManager()
    node_replacements.send_replacements_to(manager.register)
    ComfyAPISync().node_replacement.register(io.NodeReplace("Newer", "Older"))
    assert manager.as_dict() == {
        "Old": [
            {
                "new_node_id": "New",
                "old_node_id": "Old",
                "old_widget_ids": None,
                "input_mapping": [{"new_id": "b", "old_id": "a"}],
                "output_mapping": None,
            }
        ],
        "Older": [
            {
                "new_node_id": "Newer",
                "old_node_id": "Older",
                "old_widget_ids": None,
                "input_mapping": None,
                "output_mapping": None,
            }
        ],
    }


def test_cache_providers_are_registered_by_the_interface():
    class Nothing(Caching.CacheProvider):
        async def on_lookup(self, context):
            return None

        async def on_store(self, context, value):
            pass

    provider = Nothing()
    ComfyAPISync().caching.register_provider(provider)
    assert cache_provider.registered_providers()[-1] is provider
    asyncio.run(Caching().unregister_provider(provider))
    assert provider not in cache_provider.registered_providers()


def test_a_singleton_can_be_set_before_its_first_use_only():
    class One(ProxiedSingleton):
        pass

    first = object.__new__(One)
    One.inject_instance(first)
    assert One() is first is One.get_instance()
    with pytest.raises(RuntimeError, match="There is a One already"):
        One.inject_instance(first)
