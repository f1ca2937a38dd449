"""Runs prompts on a ComfyUI server and writes down what can be seen of it, for compare_execution.py.

What differs by nature is left out of the record: times, tracebacks, the texts of refusals, the order of the
errors of one node (upstream's is that of a Python set), ids of prompts (numbered in their order), and how a
server spreads the states of nodes over `progress_state` messages (what is kept is each change of a state).
Left out too is where upstream is known to be vague: `current_outputs` (it lists every node, whether it has a
result or not), the progress state `error` (it leaves a failed node `running`), and in the history `meta` of
nodes that were cached (it keeps their old ids).
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Prompt = dict[str, Any]

PREFIX = "Cmp"
SECONDS_TO_END = 60.0
SECONDS_INTO_A_NODE = 0.1
ERROR_KEYS = ("node_id", "node_type", "exception_type", "current_inputs")
IDENTITY = ("node_id", "display_node_id", "parent_node_id", "real_node_id")
NOT_COMPARED_IN_EXTRA_INFO = ("traceback", "exception_message")
NOT_COMPARED_IN_EXTRA_DATA = ("create_time", "client_id")


@dataclass(frozen=True)
class Post:
    """A `POST /prompt`: the graph, and other fields of the body."""

    prompt: Prompt
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """Prompts to post, one after the other; the step ends when all have ended.

    With `at`, `then` is done when that node of the first prompt begins: ("interrupt", None or number of a
    prompt), ("post", Post), ("delete", number), ("clear",).
    """

    posts: tuple[Post, ...]
    at: str = ""
    then: tuple[tuple[Any, ...], ...] = ()


@dataclass(frozen=True)
class Scenario:
    """Steps on a server that remembers nothing from before. `rules` says what it is about."""

    name: str
    steps: tuple[Step, ...]
    rules: str = ""
    is_large: bool = False
    """Of so many nodes that a server may join their progress messages: only last states are compared."""


Record = dict[str, Any]
"""What was seen in one step, part by part: answers, events, executed, cached, calls, history."""


class PackIsMissing(RuntimeError):
    """A server does not know the nodes that are compared."""


class ServerHangs(RuntimeError):
    """A server does not end a prompt."""


class Server:
    """A running server, with one websocket to it. A context manager."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.client_id = uuid.uuid4().hex
        self._messages: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Server:
        timeout = aiohttp.ClientTimeout(total=SECONDS_TO_END)
        self._session = aiohttp.ClientSession(timeout=timeout)
        self._socket = await self._session.ws_connect(
            f"{self.url}/ws?clientId={self.client_id}", max_msg_size=0
        )
        self._reader = asyncio.create_task(self._read())
        if PREFIX + "Number" not in await self.get("/object_info"):
            raise PackIsMissing(
                f"{self.url} does not know the nodes of tests/fakes/compare_pack. Put that folder into its "
                "custom_nodes (--install DIR does it) and start it again."
            )
        return self

    async def __aexit__(self, *error: object) -> None:
        self._reader.cancel()
        await self._socket.close()
        await self._session.close()

    async def _read(self) -> None:
        async for message in self._socket:
            if isinstance(message.data, str):
                async with self._changed:
                    self._messages.append(json.loads(message.data))
                    self._changed.notify_all()

    async def get(self, path: str) -> Any:
        """The JSON of a GET."""
        async with self._session.get(self.url + path) as answer:
            return await answer.json(content_type=None)

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """(status, JSON or None) of a POST."""
        async with self._session.post(self.url + path, json=body) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else None

    async def seen(self, condition: Any) -> None:
        """Wait until a message has come that fits."""
        async with self._changed:
            waiting = self._changed.wait_for(lambda: any(map(condition, self._messages)))
            try:
                await asyncio.wait_for(waiting, SECONDS_TO_END)
            except asyncio.TimeoutError:
                last = self._messages[-1:]
                raise ServerHangs(
                    f"{self.url} says nothing more for {SECONDS_TO_END} s after {last}. Start it again."
                ) from None

    async def forget(self) -> None:
        """Make the server forget all results: /free works between two prompts, so two are run after it."""
        await self.post("/free", {"free_memory": True, "unload_models": True})
        for number in (-1, -2):
            source = {"class_type": PREFIX + "Number", "inputs": {"value": number}}
            show = {"class_type": PREFIX + "Show", "inputs": {"value": ["forget a", 0]}}
            await _StepRun(self).run(Step((Post({"forget a": source, "forget b": show}),)))

    async def run(self, step: Step, orders: list[list[str]] | None = None) -> tuple[Record, list[list[str]]]:
        """(what was seen, the order of outputs of each prompt). With `orders`, the nodes of each prompt are
        posted in such an order that outputs follow it.
        """
        run = _StepRun(self, orders)
        await run.run(step)
        return await run.record()


class _StepRun:
    """One step on one server."""

    def __init__(self, server: Server, orders: list[list[str]] | None = None) -> None:
        self.server = server
        self.orders = orders or []
        self.answers: list[tuple[int, Any]] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    async def run(self, step: Step) -> None:
        self.server._messages.clear()
        await self.server.get("/compare_pack/calls")
        for post in step.posts:
            await self._post(post)
        if step.at:
            await self.server.seen(lambda message: _is_start_of(message, step.at))
            await asyncio.sleep(SECONDS_INTO_A_NODE)  # the message goes out shortly before the call
            for action in step.then:
                await self._act(*action)
        for prompt_id in self.open:
            await self.server.seen(lambda message, wanted=prompt_id: _is_end_of(message, wanted))

    async def _post(self, post: Post) -> None:
        prompt_id, prompt = str(uuid.uuid4()), post.prompt
        number = len(self.ids)
        self.ids.append(prompt_id)
        if number < len(self.orders):
            prompt = in_order(prompt, self.orders[number])
        body = {"prompt": prompt, "client_id": self.server.client_id, "prompt_id": prompt_id, **post.fields}
        status, answer = await self.server.post("/prompt", body)
        self.answers.append((status, answer))
        if status == 200:
            self.open.append(prompt_id)

    async def _act(self, kind: str, what: Any = None) -> None:
        if kind == "post":
            await self._post(what)
        elif kind == "interrupt":
            await self.server.post("/interrupt", {} if what is None else {"prompt_id": self.ids[what]})
        elif kind == "delete":
            await self.server.post("/queue", {"delete": [self.ids[what]]})
            if what:
                self.open.remove(self.ids[what])
        elif kind == "clear":
            await self.server.post("/queue", {"clear": True})
            del self.open[1:]
        else:
            raise ValueError(f"There is no action {kind!r}.")

    async def record(self) -> tuple[Record, list[list[str]]]:
        """What was seen."""
        events = normalised_events(self.server._messages, self.ids)
        entries = [(await self.server.get(f"/history/{one}")).get(one) for one in self.ids]
        executed = [
            sorted({event[2] for event in events if event[:2] == ["executing", number] and event[2]})
            for number in range(len(self.ids))
        ]
        return {
            "answers": [normalised_answer(*answer) for answer in self.answers],
            "events": [event for event in events if event[0] != "execution_cached"],
            "cached": [event[1:] for event in events if event[0] == "execution_cached"],
            "executed": executed,
            "calls": await self.server.get("/compare_pack/calls"),
            "history": [normalised_entry(entry, ran) for entry, ran in zip(entries, executed)],
        }, [[] if entry is None else entry["prompt"][4] for entry in entries]


def in_order(prompt: Prompt, outputs: list[str]) -> Prompt:
    """The same prompt with these of its nodes in this order, at the places where they stood."""
    wanted = iter(outputs)
    return {(found := next(wanted) if one in outputs else one): prompt[found] for one in prompt}


def _is_start_of(message: dict[str, Any], node_id: str) -> bool:
    return message["type"] == "executing" and message["data"]["node"] == node_id


def _is_end_of(message: dict[str, Any], prompt_id: str) -> bool:
    data = message["data"]
    return message["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id


# -- what is compared --------------------------------------------------------------------------------------


def normalised_answer(status: int, answer: Any) -> Any:
    """The answer to POST /prompt."""
    errors = {
        node_id: {
            "class_type": one["class_type"],
            "dependent_outputs": sorted(one["dependent_outputs"]),
            "errors": sorted(map(_without_texts, one["errors"]), key=json.dumps),
        }
        for node_id, one in ((answer or {}).get("node_errors") or {}).items()
    }
    error = (answer or {}).get("error")
    kind = error.get("type") if isinstance(error, dict) else error
    return {"status": status, "error": kind, "node_errors": errors}


def _without_texts(error: dict[str, Any]) -> dict[str, Any]:
    extra = {k: v for k, v in error.get("extra_info", {}).items() if k not in NOT_COMPARED_IN_EXTRA_INFO}
    return {"type": error["type"], "extra_info": extra}


def normalised_error(data: dict[str, Any]) -> dict[str, Any]:
    """The data of `execution_error`."""
    found = {key: data.get(key) for key in ERROR_KEYS}
    message = str(data["exception_message"]).strip()
    has_traceback = bool(data["traceback"])
    return {**found, "message": message, "executed": sorted(data["executed"]), "has_traceback": has_traceback}


def normalised_events(messages: list[dict[str, Any]], ids: list[str]) -> list[list[Any]]:
    """Messages in their order, prompts by number."""
    number = {prompt_id: place for place, prompt_id in enumerate(ids)}
    states: dict[tuple[Any, str], Any] = {}
    events: list[list[Any]] = []
    for message in messages:
        kind, data = message["type"], message["data"]
        if kind == "status":
            events.append([kind, data["status"]["exec_info"]["queue_remaining"]])
        elif "prompt_id" in data and data["prompt_id"] in number:
            prompt = number[data["prompt_id"]]
            if kind == "progress_state":
                events.extend([kind, prompt, *change] for change in _changes(prompt, data["nodes"], states))
            else:
                events.append([kind, prompt, *_content(kind, data)])
    return events


def _changes(prompt: int, nodes: dict[str, Any], states: dict[tuple[Any, str], Any]) -> list[list[Any]]:
    changes = []
    for node_id, node in nodes.items():
        if node["state"] == "error":
            continue
        state = [node["state"], node["value"], node["max"], *(node[key] for key in IDENTITY)]
        if states.get((prompt, node_id)) != state:
            states[prompt, node_id] = state
            changes.append([node_id, *state])
    return changes


def _content(kind: str, data: dict[str, Any]) -> list[Any]:
    if kind == "executing":
        return [data["node"], data.get("display_node")]
    if kind == "executed":
        return [data["node"], data.get("display_node"), data["output"]]
    if kind == "execution_cached":
        return [sorted(data["nodes"])]
    if kind == "progress":
        return [data["node"], data["value"], data["max"]]
    if kind == "execution_error":
        return [normalised_error(data)]
    if kind == "execution_interrupted":
        return [data["node_id"], data["node_type"], sorted(data["executed"])]
    return []


def normalised_entry(entry: dict[str, Any] | None, ran: list[str]) -> Any:
    """An entry of the history, with the `meta` of nodes that ran."""
    if entry is None:
        return None
    _, prompt_id, prompt, extra_data, outputs = entry["prompt"][:5]
    status = entry["status"]
    return {
        "prompt": {node_id: _of_node(node) for node_id, node in prompt.items()},
        "extra_data": {k: v for k, v in extra_data.items() if k not in NOT_COMPARED_IN_EXTRA_DATA},
        "outputs to execute": sorted(outputs),
        "outputs": entry["outputs"],
        "meta": {node_id: meta for node_id, meta in entry["meta"].items() if node_id in ran},
        "status": [status["status_str"], status["completed"]],
        "messages": [
            [kind, *_content(kind, data)]
            for kind, data in status["messages"]
            if data["prompt_id"] == prompt_id
        ],
    }


def _of_node(node: dict[str, Any]) -> dict[str, Any]:
    return {"class_type": node["class_type"], "inputs": node["inputs"]}
