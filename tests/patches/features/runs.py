"""Prompts of the feature tests, and what a run of one has shown."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.parse
import uuid
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from tests.patches.features.hosts import FeatureServer

Graph = dict[str, dict[str, Any]]
SECONDS = 90


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node of a graph."""
    return {"class_type": class_type, "inputs": inputs}


def picture(model: str, *, lora: str | None = None, seed: int = 1, strength: float = 1.0) -> Graph:
    """Draws with a checkpoint; with a LoRA on it if one is named."""
    graph = {
        "1": node("CheckpointLoaderSimple", ckpt_name=model),
        "2": node("FeatureText", seed=1),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node("KSampler", seed=seed, steps=2, cfg=2.0, sampler_name="euler", scheduler="normal",
                  denoise=1.0, model=["1", 0], positive=["2", 0], negative=["2", 0], latent_image=["3", 0]),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="picture"),
    }  # fmt: skip
    if lora is not None:
        graph["7"] = node("LoraLoaderModelOnly", lora_name=lora, strength_model=strength, model=["1", 0])
        graph["4"]["inputs"]["model"] = ["7", 0]
    return graph


def weights(model: str, trouble: str = "") -> Graph:
    """Tells where the weights of a checkpoint are."""
    return {"1": node("CheckpointLoaderSimple", ckpt_name=model),
            "2": node("FeatureWeights", model=["1", 0], trouble=trouble)}


def stamps(value: int = 0) -> Graph:
    """Two chains that end in a file: 1 -> 2 -> 3, and 4 -> 5. Nothing of it needs a model."""
    return {
        "1": node("FeatureNumber", value=value),
        "2": node("FeatureStamp", value=["1", 0]),
        "3": node("FeatureSave", text=["2", 0]),
        "4": node("FeatureStamp", value=value),
        "5": node("FeatureSave", text=["4", 0]),
    }


@dataclass
class Run:
    """A prompt that has ended, and all that its client was told meanwhile."""

    server: FeatureServer
    prompt_id: str
    events: list[dict[str, Any]]
    entry: dict[str, Any]
    """Of the history."""

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The data of the events of a kind."""
        return [event["data"] for event in self.events if event["type"] == kind]

    @property
    def ran(self) -> list[str]:
        """The nodes that were executed, sorted."""
        return sorted({str(data["node"]) for data in self.told("executing") if data["node"] is not None})

    @property
    def cached(self) -> list[str]:
        """The nodes whose stored results were used, sorted."""
        return sorted(one for data in self.told("execution_cached") for one in data["nodes"])

    @property
    def is_success(self) -> bool:
        return self.entry["status"]["status_str"] == "success"

    @property
    def error(self) -> str:
        """The message of the node that failed."""
        return next(data["exception_message"] for kind, data in self.entry["status"]["messages"]
                    if kind == "execution_error")

    def shown(self, node_id: str, name: str) -> list[Any]:
        """What a node has shown under a name."""
        return self.entry["outputs"][node_id][name]

    def pixels(self) -> np.ndarray:
        """The picture that was saved: (H, W, 3) of bytes."""
        assert self.is_success, self.error
        file = self.shown("6", "images")[0]
        status, body = self.server.request("GET", f"/view?{urllib.parse.urlencode(file)}")
        assert status == 200
        return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))


async def run(server: FeatureServer, graph: Graph, **fields: Any) -> Run:
    """Queue a prompt and listen until it has ended."""
    prompt_id, events = await asyncio.wait_for(_listen(server, {"prompt": graph, **fields}), SECONDS)
    entry = await asyncio.to_thread(server.wait_for_history, prompt_id)
    return Run(server, prompt_id, events, entry)


async def _listen(server: FeatureServer, body: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    client = uuid.uuid4().hex
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{server.url}/ws?clientId={client}", max_msg_size=0) as socket:
            asked = await asyncio.to_thread(server.post_json, "/prompt", {**body, "client_id": client})
            assert "prompt_id" in asked, asked
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    events.append(json.loads(message.data))
                    if is_end(events[-1], asked["prompt_id"]):
                        break
    return asked["prompt_id"], events


def is_end(event: dict[str, Any], prompt_id: str) -> bool:
    """Is this the message that the prompt has ended?"""
    data = event["data"]
    return event["type"] == "executing" and data["node"] is None and data.get("prompt_id") == prompt_id
