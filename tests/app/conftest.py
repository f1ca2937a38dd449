"""The application in this process, on a folder of its own, without the thread that runs prompts."""

import asyncio
import contextlib
import copy

import pytest
from aiohttp.test_utils import TestClient, TestServer

import folder_paths
import nodes
from comfy.cli_args import args
from comfy_api import feature_flags


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A base directory with its folders; options, folders and flags are put back afterwards."""
    before, flags = dict(vars(args)), copy.deepcopy(feature_flags.SERVER_FEATURE_FLAGS)
    args.base_directory = str(tmp_path)
    folder_paths.apply_arguments(args)
    folder_paths.create_working_folders()
    for name in ("custom_nodes", "models/checkpoints", "models/embeddings", "models/loras"):
        (tmp_path / name).mkdir(parents=True)
    for table in (
        "NODE_CLASS_MAPPINGS",
        "NODE_DISPLAY_NAME_MAPPINGS",
        "EXTENSION_WEB_DIRS",
        "LOADED_MODULE_DIRS",
    ):
        monkeypatch.setattr(nodes, table, dict(getattr(nodes, table)))
    yield tmp_path
    vars(args).clear()
    vars(args).update(before)
    folder_paths.apply_arguments(args)
    feature_flags.SERVER_FEATURE_FLAGS.clear()
    feature_flags.SERVER_FEATURE_FLAGS.update(flags)


@pytest.fixture
async def connect(base):
    """A function that starts a server with options; gives a client, whose `prompt_server` is the server."""
    from server import PromptServer

    async with contextlib.AsyncExitStack() as stack:

        async def start(prepare=None, **options):
            vars(args).update(options)
            server = PromptServer(asyncio.get_running_loop())
            if prepare is not None:
                prepare(server)
            server.add_routes()
            publisher = asyncio.create_task(server.publish_loop())
            stack.push_async_callback(_end, publisher)
            stack.callback(server.webhooks.stop)
            client = await stack.enter_async_context(TestClient(TestServer(server.app)))
            client.prompt_server = server
            return client

        yield start


async def _end(task):
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def client(connect):
    """A client of a server with default options."""
    return await connect()


class Echo:
    """An output node that needs no model."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": ""})}, "hidden": {"id": "UNIQUE_ID"}}

    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"
    DESCRIPTION = "Says its text."

    def run(self, text, id=None):
        return {"ui": {"text": [text]}, "result": (text,)}


@pytest.fixture
def echo(base):
    """The Echo class, registered as a node."""
    nodes.NODE_CLASS_MAPPINGS["Echo"] = Echo
    nodes.NODE_DISPLAY_NAME_MAPPINGS["Echo"] = "Echo a text"
    return Echo
