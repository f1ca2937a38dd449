"""What the core files call of the depot: one line each, and this page is all of them.

Each hook steps aside until `comfy_depot.start()` arms it. This module imports nothing but the standard
library and loads in a few milliseconds, so any file may import it.

| hook                  | stands on                             | does                                       |
|-----------------------|---------------------------------------|--------------------------------------------|
| `adds_manifest_names` | `folder_paths.recursive_search`       | names of manifests join the files on disk  |
| `keeps_lists_fresh`   | `folder_paths.cached_filename_list_`  | the list of now, from memory               |
| `knows_files`         | `app.model_manager.describe_files`    | size and dates of models, from memory      |
| `fetches_in_nodes`    | `folder_paths.get_full_path`          | a running node gets it, fetched if missing |
| `fetches_embeddings`  | `load_embed` of text encoders         | the same for `embedding:NAME` in a prompt  |
| `explains_missing`    | `folder_paths.get_full_path_or_raise` | a missing file says where it can come from |
| `keeps_resident`      | model loaders of `comfy`, VAE loader  | what was read once is not read again       |
| `takes_streamed`      | `comfy.utils.load_torch_file`         | what was loaded on its way is not read     |
| `makes_room`          | `comfy.model_management.free_memory`  | idle models go too; pinned ones stay       |
| `keeps_pinned`        | `LoadedModel.model_unload` there      | a pinned model stays on its device         |
| `places_models`       | `load_models_gpu` there               | notes moves; an error says what is pinned  |
| `explains_full_memory`| `execution._advice`                   | the message says what is pinned            |
| `free_idle_models`    | `execution.PromptExecutor.reset`, and | models that nobody uses are let go         |
|                       | `_let_models_go` when memory is full  |                                            |
| `needs_memory`        | `comfy.mapped_memory._require_room`   | the same, when less is free than is needed |
| `queue_changed`       | `server.PromptServer.queue_updated`   | models of waiting prompts are fetched ahead|
| `knows_contents`      | `contents_of` of `.is_changed`        | results are of the bytes, not of the name  |
| `add_routes`          | `server.PromptServer.add_routes`      | `/depot/...`                               |
| `knows_base_models`   | `comfy.lora_file.base_model_of`       | the family of a LoRA that fits nothing     |

On upstream's own files stand most of these, and six more, which do what our core does by itself:

| hook                     | stands on                                | does                                |
|--------------------------|------------------------------------------|-------------------------------------|
| `add_options`            | `comfy.cli_args`, after `parser`         | the depot's options; `--force`      |
| `starts_with_the_server` | `main.start_comfyui`                     | the depot starts                    |
| `runs_prompts`           | `execution.PromptExecutor.execute`       | which prompt runs                   |
| `takes_force`            | `server.PromptServer.trigger_on_prompt`  | `force` and `cache` of a request    |
| `forces_nodes`           | `execution.IsChangedCache.get`           | forced nodes have another signature |
| `adds_models_to_page`    | `ModelFileManager.get_model_file_list`   | the models page names them too      |
"""

from __future__ import annotations

import functools

TYPE_CHECKING = False  # the name that type checkers know; importing `typing` would cost 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

_depot: Any = None
"""The started depot (`comfy_depot.depot.Depot`), or None while every hook steps aside."""


def arm(depot: Any) -> None:
    """Let the hooks work for `depot`; called by `comfy_depot.start`."""
    global _depot
    _depot = depot


def disarm() -> None:
    """Let every hook step aside again."""
    arm(None)


def armed() -> Any:
    """The depot that the hooks work for, or None."""
    return _depot


def adds_manifest_names(function: F) -> F:
    """Around `recursive_search(directory, ...)`: manifest names join the files on disk."""

    @functools.wraps(function)
    def with_manifest_names(directory: str, *args: Any, **kwargs: Any) -> Any:
        search = function if _depot is None else functools.partial(_depot.search, function)
        return search(directory, *args, **kwargs)

    return with_manifest_names  # type: ignore[return-value]


def keeps_lists_fresh(function: F) -> F:
    """Around `cached_filename_list_(folder_name, ...)`: the list of now, from the index of local files."""

    @functools.wraps(function)
    def from_index(folder_name: str, *args: Any, **kwargs: Any) -> Any:
        listed = function if _depot is None else functools.partial(_depot.current_list, function)
        return listed(folder_name, *args, **kwargs)

    return from_index  # type: ignore[return-value]


def knows_files(function: F) -> F:
    """Around `describe_files(folder_name, names)`: size and dates from the index of local files."""

    @functools.wraps(function)
    def from_index(folder_name: str, names: list[str]) -> Any:
        describe = function if _depot is None else functools.partial(_depot.index.describe_files, function)
        return describe(folder_name, names)

    return from_index  # type: ignore[return-value]


def fetches_in_nodes(function: F) -> F:
    """Around `get_full_path(folder_name, filename, ...)`: fetch and log inside a running node only."""

    @functools.wraps(function)
    def with_fetch(folder_name: str, filename: str, *args: Any, **kwargs: Any) -> Any:
        path = function(folder_name, filename, *args, **kwargs)
        return path if _depot is None else _depot.path_in_node(folder_name, filename, path)

    return with_fetch  # type: ignore[return-value]


def fetches_embeddings(function: F) -> F:
    """Around `load_embed(embedding_name, ...)`, which looks through folders by itself."""

    @functools.wraps(function)
    def with_fetch(embedding_name: str, *args: Any, **kwargs: Any) -> Any:
        if _depot is not None:
            _depot.embedding_in_node(embedding_name)
        return function(embedding_name, *args, **kwargs)

    return with_fetch  # type: ignore[return-value]


def explains_missing(function: F) -> F:
    """Around `get_full_path_or_raise(folder_name, filename, ...)`: a better error, and accesses logged."""

    @functools.wraps(function)
    def with_explanation(folder_name: str, filename: str, *args: Any, **kwargs: Any) -> Any:
        if _depot is None:
            return function(folder_name, filename, *args, **kwargs)
        with _depot.explaining(folder_name, filename):
            path = function(folder_name, filename, *args, **kwargs)
            _depot.note_plain_access(folder_name, filename, path)
            return path

    return with_explanation  # type: ignore[return-value]


def keeps_resident(parameter: str, *, folder: str | None = None) -> Callable[[F], F]:
    """Around a loader: clones of the model in memory. `parameter` is the one with the file's path (or those
    of several files), or with its name in `folder`.
    """

    def around(function: F) -> F:
        @functools.wraps(function)
        def from_memory(*args: Any, **kwargs: Any) -> Any:
            if _depot is None:
                return function(*args, **kwargs)
            return _depot.residents.load(function, args, kwargs, parameter=parameter, folder=folder)

        return from_memory  # type: ignore[return-value]

    return around


def takes_streamed(function: F) -> F:
    """Around `load_torch_file(ckpt, ...)`: the tensors of a file that was loaded while it arrived."""

    @functools.wraps(function)
    def from_stream(ckpt: Any, *args: Any, **kwargs: Any) -> Any:
        load = function if _depot is None else functools.partial(_depot.streams.load, function)
        return load(ckpt, *args, **kwargs)

    return from_stream  # type: ignore[return-value]


def makes_room(function: F) -> F:
    """Around `free_memory(memory_required, device, keep_loaded, ...)`: pinned models stay, and idle models
    that cannot leave the device go.
    """

    @functools.wraps(function)
    def with_the_store(
        memory_required: float, device: Any, keep_loaded: Any = (), *args: Any, **kwargs: Any
    ) -> Any:
        if _depot is None:
            return function(memory_required, device, keep_loaded, *args, **kwargs)
        free = _depot.residents.placing.free
        unloaded = free(function, memory_required, device, keep_loaded, *args, **kwargs)
        _depot.residents.make_room(memory_required, device)
        return unloaded

    return with_the_store  # type: ignore[return-value]


def keeps_pinned(method: F) -> F:
    """Around `LoadedModel.model_unload(self, ...)`: a pinned model answers False and stays."""

    @functools.wraps(method)
    def unless_pinned(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _depot is not None and _depot.residents.placing.is_pinned(self.model):
            return False
        return method(self, *args, **kwargs)

    return unless_pinned  # type: ignore[return-value]


def places_models(function: F) -> F:
    """Around `load_models_gpu(models, ...)`: what moves is noted, and when memory does not suffice the error
    says what is pinned.
    """

    @functools.wraps(function)
    def with_notes(models: Any, *args: Any, **kwargs: Any) -> Any:
        place = function if _depot is None else functools.partial(_depot.residents.placing.place, function)
        return place(models, *args, **kwargs)

    return with_notes  # type: ignore[return-value]


def explains_full_memory(function: F) -> F:
    """Around what makes advice of an error, `function(error, ...) -> str`: when memory was full, also what is
    pinned.
    """

    @functools.wraps(function)
    def with_pins(error: BaseException, *args: Any, **kwargs: Any) -> str:
        advice: str = function(error, *args, **kwargs)
        return advice if _depot is None else f"{advice} {_depot.residents.placing.advice(error)}".rstrip()

    return with_pins  # type: ignore[return-value]


def free_idle_models() -> None:
    """Let go of the models in memory that nobody uses."""
    if _depot is not None:
        _depot.residents.free_idle()


def needs_memory(size: int, free_bytes: Callable[[], int]) -> None:
    """Let go of the models in memory that nobody uses, if less than `size` bytes are free."""
    if _depot is not None and size > free_bytes():
        _depot.residents.free_idle()


def queue_changed() -> None:
    """A prompt came into the queue, began, ended, or was taken out. Called often, and with locks held."""
    if _depot is not None:
        _depot.preload.wake()


def knows_contents(function: F) -> F:
    """Around `contents_of(chosen)`: the contents of the models that manifests name."""

    @functools.wraps(function)
    def with_manifests(chosen: Any) -> Any:
        return function(chosen) if _depot is None else _depot.contents_of(chosen)

    return with_manifests  # type: ignore[return-value]


def add_routes(routes: Any) -> None:
    """Add `/depot/...` to an aiohttp route table; without a started depot there are none."""
    if _depot is not None:
        _depot.add_routes(routes)


def knows_base_models(function: F) -> F:
    """Around `base_model_of(shapes, metadata)`: what the header of a file tells of its family."""

    @functools.wraps(function)
    def from_header(shapes: Any, metadata: Any) -> Any:
        return function(shapes, metadata) if _depot is None else _depot.base_model_of(shapes, metadata)

    return from_header  # type: ignore[return-value]


# Only on upstream's files.


def _then(result: Any, act: Callable[[Any], Any]) -> Any:
    """`act(result)`; of a function that is `async` there, an awaitable of it."""
    if not hasattr(result, "__await__"):
        return act(result)

    async def later() -> Any:
        return act(await result)

    return later()


@functools.cache
def _running() -> Any:
    """Imported once: in a chain of n nodes upstream asks n * n / 2 times whether one has changed."""
    from comfy_depot.upstream import running

    return running


def add_options(parser: Any) -> None:
    """Add the depot's options to a command line, whether or not the depot will start."""
    from comfy_depot.upstream import program

    program.add_options(parser)


def starts_with_the_server(function: F) -> F:
    """Around what builds the server: the depot starts before, unless `--depot-off`."""

    @functools.wraps(function)
    def with_depot(*args: Any, **kwargs: Any) -> Any:
        from comfy_depot.upstream import program

        program.start()
        return function(*args, **kwargs)

    return with_depot  # type: ignore[return-value]


def runs_prompts(method: F) -> F:
    """Around `execute(self, prompt, prompt_id, extra_data, ...)`: meanwhile a node may have files fetched."""

    @functools.wraps(method)
    def in_worker(self: Any, prompt: Any, prompt_id: str, *args: Any, **kwargs: Any) -> Any:
        if _depot is None:
            return method(self, prompt, prompt_id, *args, **kwargs)
        from comfy_depot.upstream import running

        return running.run(method, self, prompt, prompt_id, *args, **kwargs)

    return in_worker  # type: ignore[return-value]


def takes_force(method: F) -> F:
    """Around `trigger_on_prompt(self, json_data)`: `force` and `cache` move into its extra data."""

    @functools.wraps(method)
    def with_fields(self: Any, json_data: Any, *args: Any, **kwargs: Any) -> Any:
        body = method(self, json_data, *args, **kwargs)
        if _depot is None:
            return body
        from comfy_depot.upstream import page

        return _then(body, page.take_force)

    return with_fields  # type: ignore[return-value]


def forces_nodes(method: F) -> F:
    """Around `IsChangedCache.get(self, node_id)`: what tells a forced node from its stored result."""

    @functools.wraps(method)
    def with_epoch(self: Any, node_id: str, *args: Any, **kwargs: Any) -> Any:
        if _depot is None:
            return method(self, node_id, *args, **kwargs)
        return _running().is_changed(method, self, node_id, *args, **kwargs)

    return with_epoch  # type: ignore[return-value]


def adds_models_to_page(method: F) -> F:
    """Around `get_model_file_list(self, folder_name)`: what only a manifest has is listed too."""

    @functools.wraps(method)
    def with_manifests(self: Any, folder_name: str, *args: Any, **kwargs: Any) -> Any:
        files = method(self, folder_name, *args, **kwargs)
        if _depot is None:
            return files
        from comfy_depot.upstream import page

        return _then(files, functools.partial(page.with_manifest_models, _depot, folder_name))

    return with_manifests  # type: ignore[return-value]
