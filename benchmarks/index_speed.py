"""Lists of 100,000 models: how fast they are answered, after a change too, and what they cost at start.

    python benchmarks/index_speed.py [--models 100000] [--folders 100] [--only lists|index|start|memory]

Makes a folder of small model files (a header of --header bytes and one number) and asks a server of ours,
and one of upstream ComfyUI beside it when COMFY_UPSTREAM names a checkout (COMFY_UPSTREAM_PYTHON: its Python,
COMFY_UPSTREAM_PYTHONPATH: more module folders) or --url names a running server whose models folder is
--url-models. Both get a pack with --loaders nodes that list the checkpoints, so that the answers are of about
one size. Times are those of the whole answer over a kept connection; "stall" is the longest time that another
client waited meanwhile for a small answer.

index: how long the index on the disk takes to be built after the first start and to be compared after the
second, how long others wait meanwhile; searches; how soon a changed file is seen.
start: first answer and memory with and without the files, and with as many entries in a manifest.
memory: the index in this process: a list, one changed file, without HTTP.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.server_process import ServerProcess  # noqa: E402

LOADER = "/object_info/CheckpointLoaderSimple"
ASKED = {  # path: goal for a warm answer in ms
    LOADER: 20,
    "/object_info": 150,
    "/models/checkpoints": 20,
    "/experiment/models/checkpoints": 150,
    "/experiment/models": 20,
}
SEARCHES = ("name=model_05+00", "base_model=sd3", "base_model=sdxl&limit=1000", "hash=0123456789")
ARCHITECTURES = ("stable-diffusion-v1", "stable-diffusion-xl-v1-base", "flux-1-dev", "my-own-architecture")
GOAL_AFTER_A_FILE = 50
GOAL_SEEN = 200
GOAL_STALL = 50
PACK = """
import folder_paths

def loader(number):
    class Loader:
        FUNCTION, CATEGORY, RETURN_TYPES = "load", "benchmark", ("MODEL",)
        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"name": (folder_paths.get_filename_list("checkpoints"),)}}
        def load(self, name):
            return (None,)
    return Loader

NODE_CLASS_MAPPINGS = {f"BenchmarkLoader{number}": loader(number) for number in range(%d)}
"""


class Client:
    """One kept connection. `get` gives the milliseconds and the body."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)

    def get(self, path: str) -> tuple[float, bytes]:
        began = time.perf_counter()
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"GET {path}: {answer.status} {body[:200]!r}")
        return (time.perf_counter() - began) * 1000, body


def _watch(url: str, longest: object, is_over: object) -> None:
    client = Client(url)
    while not is_over.is_set():
        longest.value = max(longest.value, client.get("/features")[0])
        time.sleep(0.002)


@contextlib.contextmanager
def stall(url: str) -> Iterator[Callable[[], float]]:
    """A client of its own that asks for a small answer all the time; gives the longest wait in ms."""
    longest, is_over = multiprocessing.Value("d", 0.0), multiprocessing.Event()
    watcher = multiprocessing.Process(target=_watch, args=(url, longest, is_over), daemon=True)
    watcher.start()
    time.sleep(0.3)
    longest.value = 0.0
    try:
        yield lambda: longest.value
    finally:
        is_over.set()
        watcher.join()


def model_file(architecture: str, header_bytes: int) -> bytes:
    """A safetensors file with one number and a header of so many bytes (at least 200)."""
    header: dict[str, object] = {"__metadata__": {"modelspec.architecture": architecture, "tags": ""},
                                 "weight": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    header["__metadata__"]["tags"] = "x" * (header_bytes - len(json.dumps(header)))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"1"


def make_models(folder: Path, count: int, folders: int, header_bytes: int) -> None:
    """Model files in as many subfolders (0: all in the folder itself)."""
    bodies = [model_file(architecture, header_bytes) for architecture in ARCHITECTURES]
    for number in range(count):
        inside = folder / f"set{number % folders:03}" if folders else folder
        if number < max(folders, 1):
            inside.mkdir(parents=True, exist_ok=True)
        path = inside / f"model_{number:06}.safetensors"
        with contextlib.suppress(FileExistsError), open(path, "xb") as file:
            file.write(bodies[number % len(bodies)])


def make_base(base: Path, arguments: argparse.Namespace, *, models: int) -> Path:
    """A base directory with the pack and the files."""
    (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
    (base / "model_manifests").mkdir(exist_ok=True)
    (base / "custom_nodes" / "benchmark_loaders.py").write_text(PACK % arguments.loaders)
    (base / "models" / "checkpoints").mkdir(parents=True, exist_ok=True)
    make_models(base / "models" / "checkpoints", models, arguments.folders, arguments.header)
    return base


def make_manifest(base: Path, entries: int) -> None:
    """A manifest of so many entries in object form."""
    models = {
        f"cloud/model_{number:06}.safetensors": {
            "url": f"https://huggingface.co/org/repository{number}/resolve/main/model_{number}.safetensors",
            "size": 1_000_000 + number, "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        }
        for number in range(entries)
    }  # fmt: skip
    (base / "model_manifests" / "large.json").write_text(json.dumps({"checkpoints": models}, indent=1))


def upstream() -> dict[str, object] | None:
    """How to start upstream, if the environment names a checkout."""
    if not (checkout := os.environ.get("COMFY_UPSTREAM")):
        return None
    extra = {"PYTHONPATH": os.environ.get("COMFY_UPSTREAM_PYTHONPATH", "")}
    python = os.environ.get("COMFY_UPSTREAM_PYTHON", sys.executable)
    return {"main": Path(checkout) / "main.py", "python": python, "environment": extra}


def ask(name: str, url: str, models: Path, rounds: int) -> None:
    """All figures of one server."""
    client = Client(url)
    for path, goal in ASKED.items():
        first, body = client.get(path)
        with stall(url) as longest:
            times = sorted(client.get(path)[0] for _ in range(rounds))
            waited = longest()
        p95 = times[int(len(times) * 0.95) - 1]
        print(f"{name:9} {path:34} {len(body) / 1e6:6.1f} MB  first {first:7.1f}  "
              f"warm {statistics.median(times):6.1f} (p95 {p95:6.1f}, goal {goal})  "
              f"stall {waited:6.1f} ms", flush=True)
    for path in (LOADER, "/object_info", "/models/checkpoints", "/experiment/models/checkpoints"):
        times = []
        with stall(url) as longest:
            for number in range(rounds):
                added = models / f"added_{number}.safetensors"
                added.touch()
                took, body = client.get(path)
                assert added.name.encode() in body, f"{name}: {path} does not show {added.name}"
                times.append(took)
                added.unlink()
                body = client.get(path)[1]
                assert added.name.encode() not in body, f"{name}: {path} still shows {added.name}"
            waited = longest()
        print(f"{name:9} {path:34} after one file was added {statistics.median(times):6.1f} "
              f"(max {max(times):6.1f}, goal {GOAL_AFTER_A_FILE} for the loader)  stall {waited:6.1f} ms "
              f"(goal {GOAL_STALL})", flush=True)


def lists(arguments: argparse.Namespace, scratch: Path) -> None:
    """Ask the servers, one after the other."""
    servers = {"ours": {}, **({"upstream": peer} if (peer := upstream()) else {})}
    for name, where in servers.items():
        base = make_base(scratch / name, arguments, models=arguments.models)
        server = ServerProcess(base, **where)
        try:
            server.start(seconds=180)
            time.sleep(2)
            if name == "ours":
                wait_for_index(Client(server.url))
            ask(name, server.url, base / "models" / "checkpoints", arguments.rounds)
        finally:
            server.stop()
    if arguments.url:
        ask("--url", arguments.url, arguments.url_models / "checkpoints", arguments.rounds)


def index(arguments: argparse.Namespace, scratch: Path) -> None:
    """The index on the disk: built, compared, searched, corrected."""
    base = make_base(scratch / "ours", arguments, models=arguments.models)
    for state in ("built", "compared"):
        server = ServerProcess(base)
        try:
            server.start(seconds=180)
            began = time.perf_counter()
            with stall(server.url) as longest:
                client = Client(server.url)
                wait_for_index(client)
                seconds, waited = time.perf_counter() - began, longest()
            with stall(server.url) as longest:
                time.sleep(5)
                idle = longest()
            print(f"index     {state} {seconds:6.1f} s after the first answer  stall {waited:6.1f} ms "
                  f"(idle {idle:.1f})  {server.rss_megabytes():4.0f} MB", flush=True)
            if state == "compared":
                ask_searches(client, arguments.rounds)
                see_changes(client, base / "models" / "checkpoints", arguments)
        finally:
            server.stop()


def wait_for_index(client: Client) -> None:
    """Return when the server has looked at all files."""
    while not json.loads(client.get("/depot/search?base_model=of-no-model")[1])["is_complete"]:
        time.sleep(0.1)


def ask_searches(client: Client, rounds: int) -> None:
    """Some searches, warm."""
    for query in SEARCHES:
        times = sorted(client.get(f"/depot/search?{query}")[0] for _ in range(rounds))
        total = json.loads(client.get(f"/depot/search?{query}")[1])["total"]
        print(f"search    {query:34} {total:6} found  {statistics.median(times):6.1f} ms "
              f"(max {times[-1]:6.1f})", flush=True)


def see_changes(client: Client, models: Path, arguments: argparse.Namespace) -> None:
    """How soon a file that was replaced, removed or renamed is seen by a search for what is in its header."""
    def until(total: int, words: str) -> float:
        began = time.perf_counter()
        while json.loads(client.get(f"/depot/search?base_model={words}")[1])["total"] != total:
            time.sleep(0.002)
        return (time.perf_counter() - began) * 1000

    times: dict[str, list[float]] = {"replaced": [], "renamed": [], "removed": []}
    for number in range(arguments.rounds):
        file, beside = models / "changing.safetensors", models.parent / "new"
        for place, words in ((file, "older"), (beside, f"newer-{number}")):
            place.write_bytes(model_file(words, arguments.header))
        until(1, "older")
        os.replace(beside, file)
        times["replaced"].append(until(1, f"newer-{number}"))
        file.rename(models / "renamed.safetensors")
        times["renamed"].append(until(1, f"newer-{number}&name=renamed"))
        (models / "renamed.safetensors").unlink()
        times["removed"].append(until(0, f"newer-{number}"))
    for what, took in times.items():
        print(f"changed   {what:34} seen after {statistics.median(took):6.1f} ms (max {max(took):6.1f}, "
              f"goal {GOAL_SEEN})", flush=True)


def started(base: Path, *, seconds_of_work: float, **where: object) -> tuple[float, float]:
    """(seconds to the first answer, megabytes when the work in the background is done)"""
    server = ServerProcess(base, **where)
    try:
        server.start(seconds=180)
        Client(server.url).get(LOADER)
        time.sleep(seconds_of_work)
        assert server.seconds_to_answer is not None
        return server.seconds_to_answer, server.rss_megabytes()
    finally:
        server.stop()


def start(arguments: argparse.Namespace, scratch: Path) -> None:
    """First answer and memory: nothing, the files, a manifest of as many entries."""
    bases = {"empty": make_base(scratch / "empty", arguments, models=0),
             "files": make_base(scratch / "ours", arguments, models=arguments.models),
             "manifest": make_base(scratch / "manifest", arguments, models=0)}
    make_manifest(bases["manifest"], arguments.models)
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(4):
        for name, base in bases.items():
            seconds, megabytes = started(base, seconds_of_work=8 if number == 0 else 3)
            if number:
                found.setdefault(name, []).append((seconds, megabytes))
            else:
                print(f"start     {name:9} for the first time: first answer {seconds:5.2f} s", flush=True)
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)]
               for name, rows in found.items()}
    for name, (seconds, megabytes) in medians.items():
        more, larger = seconds - medians["empty"][0], megabytes - medians["empty"][1]
        print(f"start     {name:9} first answer {seconds:5.2f} s ({more:+.2f}, goal +1), {megabytes:4.0f} MB "
              f"({larger:+.0f}, goal +150)", flush=True)


def memory(arguments: argparse.Namespace, scratch: Path) -> None:
    """The index in this process."""
    import folder_paths
    from comfy_depot.depot import start as start_depot
    from comfy_depot.options import Options

    base = make_base(scratch / "ours", arguments, models=arguments.models)
    folder_paths.apply_arguments(argparse.Namespace(base_directory=str(base)))
    depot = start_depot(Options(model_manifests=base / "model_manifests", depot_dir=scratch / "state"))
    assert depot is not None
    folder = base / "models" / "checkpoints"

    def show(
        what: str, goal: str, work: Callable[[int], object], before: Callable[[int], object] = id
    ) -> None:
        times = []
        for number in range(arguments.rounds):
            before(number)
            began = time.perf_counter()
            work(number)
            times.append((time.perf_counter() - began) * 1000)
        times.sort()
        print(f"memory    {what:34} first {times[-1]:7.2f}  median {statistics.median(times):6.2f}  "
              f"p95 {times[int(len(times) * 0.95) - 1]:6.2f} ms (goal {goal})", flush=True)

    show("first list", "-", lambda number: folder_paths.get_filename_list("checkpoints"))
    show("list, nothing changed", "p95 20", lambda number: folder_paths.get_filename_list("checkpoints"))
    show("list as it is kept", "< 1", lambda number: folder_paths.cached_filename_list_("checkpoints"))
    show("list, one file added", "200", lambda number: folder_paths.get_filename_list("checkpoints"),
         lambda number: (folder / f"new_{number}.safetensors").touch())
    depot.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=100_000)
    parser.add_argument("--folders", type=int, default=100, help="subfolders; 0: all files in one folder")
    parser.add_argument("--loaders", type=int, default=5, help="nodes more that list the checkpoints")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--header", type=int, default=2000, help="bytes of each header")
    parser.add_argument("--only", choices=("lists", "index", "start", "memory"))
    parser.add_argument("--base", type=Path, help="where to make the files, and leave them")
    parser.add_argument("--url", help="a running server to measure as well")
    parser.add_argument("--url-models", type=Path, help="its models folder")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = arguments.base or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, part in (("memory", memory), ("index", index), ("lists", lists), ("start", start)):
            if arguments.only in (None, name):
                part(arguments, scratch)


if __name__ == "__main__":
    main()
