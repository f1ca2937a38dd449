"""The whole story on a laptop, without a network: a model that is only in a manifest gives a picture.

A local origin serves the demo model, a manifest names it, and a real server on a free port does the rest.
Everything is written under .demo/ and left there to look at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "tests" / "data" / "demo_shapes.safetensors"
PROMPT = ROOT / "tests" / "data" / "demo_prompt.json"
WORKFLOW = ROOT / "tests" / "data" / "demo_workflow.json"
NAME = "demo_shapes.safetensors"
console = Console(highlight=False)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def build_world(place: Path, origin_port: int) -> None:
    """The library on 'another machine', and an installation that has only a manifest of it."""
    marker = place / ".comfyui-depot-demo"
    if place.exists() and any(place.iterdir()) and not marker.exists():
        raise SystemExit(
            f"{place} holds other files, and the demo empties its folder first. Name another --place."
        )
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    marker.touch()
    library, base = place / "library" / "checkpoints", place / "base"
    library.mkdir(parents=True)
    shutil.copy(MODEL, library / NAME)
    for folder in ("models/checkpoints", "model_manifests", "custom_nodes", "user/default/workflows"):
        (base / folder).mkdir(parents=True)
    shutil.copy(WORKFLOW, base / "user" / "default" / "workflows" / "demo.json")
    entry = {
        "url": f"http://127.0.0.1:{origin_port}/checkpoints/{NAME}",
        "size": MODEL.stat().st_size,
        "sha256": hashlib.sha256(MODEL.read_bytes()).hexdigest(),
    }
    manifest = {"checkpoints": {NAME: entry}}
    (base / "model_manifests" / "demo.json").write_text(
        json.dumps(manifest, indent=2) + "\n", encoding="utf-8"
    )


@contextlib.contextmanager
def running(command: list[str], log_file: Path) -> Iterator[subprocess.Popen]:
    """A child process whose output goes to a file; it is stopped on the way out."""
    with open(log_file, "w", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


async def wait_until_answers(
    session: aiohttp.ClientSession, url: str, process: subprocess.Popen, log_file: Path
) -> float:
    """Seconds until the server answered."""
    started = time.perf_counter()
    while time.perf_counter() - started < 60:
        if process.poll() is not None:
            raise SystemExit(f"The server stopped at once. Its log:\n{log_file.read_text(encoding='utf-8')}")
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url + "/system_stats") as answer:
                if answer.status == 200:
                    return time.perf_counter() - started
        await asyncio.sleep(0.05)
    raise SystemExit(f"The server did not answer within 60 s. See {log_file}")


class Client:
    """What an API client does: post a prompt, listen, fetch the picture."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url, self.id = session, url, uuid.uuid4().hex

    async def post(self, path: str, body: dict) -> tuple[int, str]:
        """Status and text of a POST."""
        async with self.session.post(self.url + path, json=body) as answer:
            return answer.status, await answer.text()

    async def tier(self) -> str:
        """Where the demo model is now, as the depot says."""
        async with self.session.get(self.url + "/depot/models") as answer:
            models = (await answer.json())["models"]
        return next(model["tier"] for model in models if model["name"] == NAME)

    async def run(self, text: str, seed: int, **request) -> tuple[bytes, list[str], float]:
        """The picture of a prompt, the nodes that ran, and the seconds it took; progress is drawn meanwhile.
        """
        graph = json.loads(PROMPT.read_text(encoding="utf-8"))
        for node in graph.values():
            if node["class_type"] == "KSampler":
                node["inputs"]["seed"] = seed
                graph[node["inputs"]["positive"][0]]["inputs"]["text"] = text
        started = time.perf_counter()
        async with self.session.ws_connect(f"{self.url}/ws?clientId={self.id}") as socket_:
            body = {"prompt": graph, "client_id": self.id, **request}
            async with self.session.post(self.url + "/prompt", json=body) as answer:
                if answer.status != 200:
                    raise SystemExit(f"The prompt was refused: {await answer.text()}")
                prompt_id = (await answer.json())["prompt_id"]
            ran = await self.follow(socket_, prompt_id, graph)
        async with self.session.get(f"{self.url}/history/{prompt_id}") as answer:
            entry = (await answer.json())[prompt_id]
        picture = next(output["images"][0] for output in entry["outputs"].values() if output.get("images"))
        async with self.session.get(self.url + "/view", params=picture) as answer:
            return await answer.read(), ran, time.perf_counter() - started

    async def follow(self, socket_, prompt_id: str, graph: dict) -> list[str]:
        """Draw download and sampling from the websocket until the prompt is done; the class names that ran.
        """
        ran: list[str] = []
        columns = (TextColumn("   {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=console) as bars:
            download = None
            async for message in socket_:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                data = event["data"]
                if event["type"] == "depot" and data.get("kind") == "transfer":
                    download = download or bars.add_task(
                        f"download {data['name']}", total=data["bytes_total"]
                    )
                    bars.update(download, completed=data["bytes_done"], total=data["bytes_total"])
                elif event["type"] == "executing" and data.get("prompt_id") == prompt_id:
                    if data["node"] is None:
                        return ran
                    ran.append(graph[data["node"]]["class_type"])
                elif event["type"] == "execution_error" and data["prompt_id"] == prompt_id:
                    raise SystemExit(f"The prompt failed at {data['node_type']}: {data['exception_message']}")
        return ran


def step(number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}[/]  {text}")


async def tell_the_story(place: Path, port: int, origin: int, rate: str) -> None:
    """The chapters, each a real request to the real server."""
    base, log_file = place / "base", place / "server.log"
    serve = [
        sys.executable,
        "-m",
        "comfy_depot",
        "serve",
        str(place / "library"),
        "--port",
        str(origin),
        "--rate",
        rate,
    ]
    server = [sys.executable, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base),
              "--depot-allow-hosts", "127.0.0.1", "--disable-auto-launch"]  # fmt: skip
    step(1, f"A library is served by a local origin at {rate}/s; an empty installation has its manifest.")
    with running(serve, place / "origin.log"), running(server, log_file) as process:
        async with aiohttp.ClientSession() as session:
            client = Client(session, f"http://127.0.0.1:{port}")
            seconds = await wait_until_answers(session, client.url, process, log_file)
            console.print(f"   The server answered after {seconds:.1f} s at {client.url}")
            async with session.get(client.url + "/models/checkpoints") as answer:
                console.print(f"   Checkpoints in the list: {await answer.json()}")
            on_disk = os.listdir(base / "models" / "checkpoints")
            console.print(
                f"   Checkpoints on disk: {on_disk}; the depot says: [bold]{await client.tier()}[/]"
            )
            await show_pictures(client, place)
            await show_force(client, base / "output")
            await show_eviction(client)
            if process.poll() is not None:
                raise SystemExit(f"The server died. See {log_file}")


async def show_pictures(client: Client, place: Path) -> None:
    """First picture, second picture from memory."""
    chapters = [
        (
            "A prompt asks for that model: it is downloaded, verified, loaded, and a picture comes.",
            "a red circle",
            1,
        ),
        ("A second prompt: the model is in memory, no byte is downloaded or read.", "a blue square", 2),
    ]
    for number, (title, text, seed) in enumerate(chapters, 2):
        step(number, title)
        picture, ran, seconds = await client.run(text, seed)
        file = place / f"{text.replace(' ', '_')}.png"
        file.write_bytes(picture)
        console.print(f"   “{text}”: {file}  ({seconds:.1f} s; ran: {', '.join(ran)})")
        console.print(f"   The depot says: [bold]{await client.tier()}[/]")


async def show_force(client: Client, output: Path) -> None:
    """The same graph three times: nothing runs; the picture is saved again; it is decoded and saved again."""
    step(4, "The same request again: nothing runs. With force it does: the outputs, all, or what is named.")
    for request in ({}, {"force": "outputs"}, {"force": ["VAEDecode"]}):
        before = set(os.listdir(output))
        _, ran, seconds = await client.run("a blue square", 2, **request)
        saved = sorted(set(os.listdir(output)) - before)
        console.print(
            f"   {json.dumps(request):24} {seconds:.1f} s; ran: {', '.join(ran) or 'nothing'}; "
            f"saved: {', '.join(saved) or 'nothing'}"
        )


async def show_eviction(client: Client) -> None:
    """Free the memory, take the model off the disk: it is in the cloud again, and still in the list."""
    step(5, "The disk is needed for something else: the model is taken out of memory and evicted.")
    await client.post("/free", {"unload_models": True, "free_memory": True})
    for _ in range(40):  # the worker follows /free a moment later; until then the depot refuses
        status, answer = await client.post("/depot/evict", {"folder": "checkpoints", "name": NAME})
        if status != 409:
            break
        await asyncio.sleep(0.25)
    if status != 200:
        raise SystemExit(f"The model was not evicted: {answer}")
    console.print(
        f"   The depot says: [bold]{await client.tier()}[/]; still in the list, "
        "for the next prompt that needs it."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--place", type=Path, default=ROOT / ".demo", help="folder for everything (emptied first)"
    )
    parser.add_argument("--rate", default="2M", help="bytes per second of the origin, such as 500K or 2M")
    arguments = parser.parse_args()
    origin = free_port()
    build_world(arguments.place, origin)
    asyncio.run(tell_the_story(arguments.place, free_port(), origin, arguments.rate))
    log_command = f"{sys.executable} -m comfy_depot log --base-directory {arguments.place / 'base'}"
    console.print(f"\nDone. The access log: {log_command}")


if __name__ == "__main__":
    main()
