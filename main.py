"""Start ComfyUI Depot: read the settings, start the depot, load the nodes, serve. The only file that wires
the rooms.

Nothing heavy is imported here: the server answers first; torch and the model zoo are loaded by the first
prompt.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import comfy_depot
import comfy_depot.hooks
import comfy_depot.options
import folder_paths
from comfy import cli_args, interruption, tokenizer_files
from comfy.progress_bar import ProgressBar

log = logging.getLogger(__name__)
STARTED = time.perf_counter()
MOST_GPUS = 32
SERVING = threading.Event()
LIBRARY_LOADED = threading.Event()


class StartRefused(Exception):
    """The server cannot start; the message says why and what to do."""


def apply_device_settings(args: argparse.Namespace) -> None:
    """Set the environment that GPU libraries read when they are imported; they must not be loaded yet."""
    if args.cuda_device not in (None, "all"):
        for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES"):
            os.environ[name] = args.cuda_device
    elif args.default_device is not None:
        others = (str(number) for number in range(MOST_GPUS) if number != args.default_device)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join([str(args.default_device), *others])
    if args.cuda_malloc and not args.disable_cuda_malloc:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync")
    if args.oneapi_device_selector is not None:
        os.environ["ONEAPI_DEVICE_SELECTOR"] = args.oneapi_device_selector
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def addresses(args: argparse.Namespace) -> list[tuple[str, int]]:
    """(host, port) pairs to listen on. An empty host would mean every address, so it is left out."""
    found = [(host.strip(), args.port) for host in args.listen.split(",") if host.strip()]
    if not found:
        raise StartRefused("--listen names no address. Name one, or give --listen alone for every address.")
    return found


def refuse_used_ports(wanted: Sequence[tuple[str, int]]) -> None:
    """Fail before anything slow is loaded when an address is taken."""
    for host, port in wanted:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OverflowError:
                raise StartRefused(f"--port {port} is no port. Choose one from 1 to 65535.") from None
            except OSError as error:
                raise StartRefused(cannot_listen(host, port, error)) from error


def refuse_useless_certificate(args: argparse.Namespace) -> None:
    """Fail when https is asked for and cannot be had: never answer in plain text instead."""
    import ssl

    if bool(args.tls_keyfile) != bool(args.tls_certfile):
        raise StartRefused("https needs both --tls-keyfile and --tls-certfile. Give both, or none for http.")
    if not args.tls_keyfile:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(args.tls_certfile, args.tls_keyfile)
    except OSError as error:
        raise StartRefused(f"https is not possible with {args.tls_certfile} and {args.tls_keyfile}: {error}. "
                           "Check --tls-certfile and --tls-keyfile.") from error


def prepare_folders(args: argparse.Namespace) -> None:
    """Set every folder, empty the temp folder, and make those that are missing."""
    from utils import extra_config

    folder_paths.apply_arguments(args)
    tokenizer_files.find_with(tokenizer_path)
    try:
        extra_config.load_configured(args)
    except ValueError as error:
        raise StartRefused(str(error)) from error
    empty_temp_folder()
    try:
        folder_paths.create_working_folders()
    except OSError as error:
        raise StartRefused(f"The folder {error.filename} cannot be made: {error.strerror}. "
                           "Move away what is in its place or let this user write there, "
                           "or choose another folder with --base-directory.") from error


def tokenizer_path(name: str) -> str:
    """Where the vocabulary `name` is, fetched if it is missing: for a node that runs, by its hook; else for a
    model that is loaded ahead of workflows.
    """
    from comfy_execution.utils import get_executing_context

    depot = comfy_depot.hooks.armed()
    if depot is not None and get_executing_context() is None:
        depot.fetch("tokenizers", name)
    return folder_paths.get_full_path_or_raise("tokenizers", name)


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """The sentence for an address that cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        return (f"Port {port} on {host} is in use by another program. "
                f"Stop that program, or choose another port: --port {port + 1}")
    return f"Cannot listen on {host} port {port}: {error.strerror or error}. Check --listen and --port."


def empty_temp_folder() -> None:
    """Remove what earlier runs left in the temp folder."""
    shutil.rmtree(folder_paths.get_temp_directory(), ignore_errors=True)


def named_in_queue(queue) -> set[tuple[str, str]]:
    """(folder type, name) of every model that a running or waiting prompt may open: a superset, never less.
    """
    items = [item for part in queue.get_current_queue_volatile() for item in part]
    inputs = [value for item in items for node in item[2].values() for value in node["inputs"].values()]
    names = {value.replace("\\", "/") for value in inputs if isinstance(value, str)}
    return {(folder, name) for folder in folder_paths.folder_names_and_paths for name in names}


def load_settings() -> tuple[str, ...]:
    """The devices on which a model that is loaded now would work and rest. Packs change them."""
    from comfy import model_management

    choices = ("get_torch_device", "unet_offload_device", "text_encoder_device",
               "text_encoder_offload_device", "vae_device", "vae_offload_device", "intermediate_device")
    return tuple(str(getattr(model_management, choice)()) for choice in choices)


def bytes_of_device() -> int:
    """Bytes of memory of the device that models work on: the GPU's, without one the machine's."""
    from comfy import model_management

    return int(model_management.get_total_memory(model_management.get_torch_device()))


def bytes_free(device) -> float:
    """Bytes of memory that are free on a device."""
    from comfy import model_management

    return model_management.get_free_memory(device)


def load_model(folder: str, name: str) -> bool:
    """Load a model as a workflow would, in the calling thread (see `app.model_loaders`). Before the server
    answers there are no nodes, so it waits for that.
    """
    import server
    from app import worker

    SERVING.wait()
    if not LIBRARY_LOADED.is_set():
        server.PromptServer.instance.between_prompts(load_model_library)
    with worker.settled_environment():
        return server.PromptServer.instance.model_loaders.load_model(folder, name)


def load_model_library() -> None:
    """Import what loads models. Where two threads import parts of it at once, one finds modules of which not
    all is there yet, so the thread that runs prompts does it.
    """
    import comfy.sd  # isort: skip - first, since a loader node may have begun with it
    import comfy.controlnet
    import comfy.lora_file
    import comfy.style_model
    import comfy.upscalers  # noqa: F401
    from comfy import families

    families.families()
    LIBRARY_LOADED.set()


def depot_host():
    """What the depot may ask of this process (see `comfy_depot.host`)."""
    import server
    from app import memory_report, queued_models
    from comfy import ram
    from comfy_depot.host import Executing, Host
    from comfy_execution.utils import get_executing_context

    def current_node():
        context = get_executing_context()
        if context is None:
            return None
        tenant = queued_models.tenant_of(server.PromptServer.instance.prompt_queue, context.prompt_id)
        return Executing(context.prompt_id, context.node_id, tenant)

    return Host(
        current_node=current_node,
        report=lambda done, total: ProgressBar(total).update_absolute(done),
        raise_if_interrupted=interruption.throw_exception_if_processing_interrupted,
        send=lambda event, data: server.PromptServer.instance.send_sync(event, data),
        models_in_use=lambda: named_in_queue(server.PromptServer.instance.prompt_queue),
        queued_prompts=lambda most: queued_models.queued_prompts(
            server.PromptServer.instance.prompt_queue, most
        ),
        chosen=lambda prompt: queued_models.chosen_values(prompt.graph, prompt.outputs),
        load_settings=load_settings,
        let_models_go=lambda: server.PromptServer.instance.let_models_go(),
        load_model=load_model,
        bytes_free=bytes_free,
        bytes_allowed=lambda: ram.read_ram().total,
        patched_weights=memory_report.patched_weights,
        bytes_of_device=bytes_of_device,
        memory_report=memory_report.memory_report,
    )


async def load_nodes(args: argparse.Namespace) -> None:
    """Core nodes, the topics of comfy_extras, and the packs in custom_nodes/."""
    import nodes

    await nodes.init_extra_nodes(
        init_custom_nodes=not args.disable_all_custom_nodes or bool(args.whitelist_custom_nodes),
        init_api_nodes=False,
    )


def attach_journal(server, args: argparse.Namespace) -> None:
    """Let the queue go on where the server before has stopped."""
    from app import queue_journal
    from comfy_execution.queueing.journal import JournalError

    try:
        queue_journal.attach(server, args)
    except JournalError as error:
        raise StartRefused(str(error)) from error


def attach_model_loaders(server, options: comfy_depot.options.Options) -> None:
    """Let models be loaded ahead of workflows, in the way that workflows have loaded them."""
    from app.loader_recipes import Recipes
    from app.model_loaders import ModelLoaders

    recipes = Recipes(options.depot_dir)
    server.prompt_succeeded = recipes.learn
    server.model_loaders = ModelLoaders(recipes, between_prompts=lambda act: server.between_prompts(act))


async def start_server(args: argparse.Namespace):
    """Everything up to the first answer; returns the listening server."""
    import server as server_module

    options = comfy_depot.options.from_args(args, base_directory=Path(folder_paths.base_path))
    depot = comfy_depot.start(options, depot_host())
    server = server_module.PromptServer(asyncio.get_running_loop())
    if depot is not None:
        server.add_on_prompt_handler(depot.offers.on_prompt)
        attach_model_loaders(server, options)
    attach_journal(server, args)
    server.webhooks.start()
    await load_nodes(args)
    server.queue_updated()  # prompts from before a restart wait already, and now their nodes are known
    server.add_routes()
    await server.setup()
    try:
        await server.start_multi_address(addresses(args), verbose=False)
    except OSError as error:
        raise StartRefused(cannot_listen(args.listen, args.port, error)) from error
    return server


def announce(args: argparse.Namespace) -> None:
    """Say where the web page is, and open it when asked."""
    host = addresses(args)[0][0]
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"{'https' if args.tls_keyfile else 'http'}://{host}:{args.port}"
    log.info(
        "ComfyUI Depot answers after %.1f s. To see the GUI go to: %s", time.perf_counter() - STARTED, address
    )
    if args.auto_launch:
        webbrowser.open(address)


def collect_garbage_less_often() -> None:
    """Large graphs and the model library are many small objects that live long: looking through them costs
    more than it frees. Tensors and pictures are freed by reference counts, and the worker collects when idle.
    """
    gc.set_threshold(50_000, 20, 20)


async def serve(args: argparse.Namespace) -> None:
    """Serve until the process is told to stop."""
    from app import progress_messages, worker

    server = await start_server(args)
    progress_messages.install(server)
    worker.start(server)
    SERVING.set()
    announce(args)
    if args.quick_test_for_ci:
        return
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows has no handlers in the loop; Ctrl-C raises there
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    publisher = asyncio.create_task(server.publish_loop())
    await asyncio.wait([publisher, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    log.info("Stopping.")
    server.prompt_queue.stop()
    interruption.interrupt_current_processing()


def let_queue_go() -> None:
    """What runs still will run again after the next start; close the journal."""
    import server

    instance = getattr(server.PromptServer, "instance", None)
    if instance is not None:
        instance.prompt_queue.stop()
        instance.prompt_queue.close()


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """On the way out: stop downloads, write what the access log still holds, empty the temp folder."""
    try:
        yield
    finally:
        comfy_depot.stop()
        let_queue_go()
        empty_temp_folder()


def list_feature_flags() -> NoReturn:
    """Write what --feature-flag takes as JSON, and leave."""
    from comfy_api.feature_flags import CLI_FEATURE_FLAG_REGISTRY

    sys.stdout.write(json.dumps(CLI_FEATURE_FLAG_REGISTRY, indent=2) + "\n")
    raise SystemExit(0)


def prepare(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line and set folders, log and environment from it."""
    from app import logger
    from comfy_execution import node_packs

    args = cli_args.parse(argv, extend=[comfy_depot.options.add_arguments])
    if args.list_feature_flags:
        list_feature_flags()
    try:
        logger.setup_logger(log_level=args.verbose, use_stdout=args.log_stdout, files=args.log_files)
    except OSError as error:
        raise StartRefused(f"The log file {error.filename} cannot be written: {error.strerror}. "
                           "Name another one behind --verbose.") from error
    for name in cli_args.options_without_effect(args):
        log.info("%s is accepted and has no effect here.", name)
    apply_device_settings(args)
    refuse_useless_certificate(args)
    refuse_used_ports(addresses(args))
    prepare_folders(args)
    node_packs.run_prestartup_scripts(
        folder_paths.get_folder_paths("custom_nodes"),
        disabled=args.disable_all_custom_nodes, allowed=args.whitelist_custom_nodes)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; returns the exit code."""
    collect_garbage_less_often()
    try:
        args = prepare(argv)
        with cleaning_up():
            asyncio.run(serve(args))
    except StartRefused as refusal:
        log.error("%s", refusal)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    # The worker thread may sit in a long computation; what must be written has been written by now.
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
