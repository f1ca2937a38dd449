"""The models that a workflow carries with it: `properties.models` of its nodes, as the official templates do.

    {"nodes": [{"properties": {"models": [{"name", "url", "directory", "hash"?, "hash_type"?}]}}],
     "definitions": {"subgraphs": [{"nodes": [...]}]},
     "models": [...]}

What stands here comes from whoever wrote the workflow: every entry passes the gates of a manifest, and a part
that has another form is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from comfy_depot.manifest import Entry, read_entry
from comfy_depot.schemes import is_remote

MOST_NODES = 20_000
"""Of one workflow; the rest is not looked at."""


def models_in(workflow: Any) -> Iterator[dict[str, Any]]:
    """Each object of a model, as it is written; the same one may come several times."""
    if not isinstance(workflow, dict):
        return
    yield from _objects(workflow.get("models"))
    definitions = workflow.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    nodes_left = MOST_NODES
    for graph in (workflow, *_objects(subgraphs)):
        nodes = list(_objects(graph.get("nodes")))[:nodes_left]
        nodes_left -= len(nodes)
        for node in nodes:
            properties = node.get("properties")
            if isinstance(properties, dict):
                yield from _objects(properties.get("models"))


def entry_of(model: dict[str, Any]) -> Entry:
    """The manifest entry that a model of a workflow means; ValueError says what is wrong with it."""
    folder, name, url = (model.get(field) for field in ("directory", "name", "url"))
    if not (isinstance(folder, str) and isinstance(name, str) and isinstance(url, str)):
        raise ValueError("a model of a workflow needs the texts 'name', 'url' and 'directory'")
    if not is_remote(url):
        raise ValueError("a workflow may not name files or buckets of this machine. Write https://host/path")
    value = {"url": without_download_flag(url)}
    digest = _sha256_of(model)
    return read_entry(folder, name, {**value, "sha256": digest} if digest else value)


def without_download_flag(url: str) -> str:
    """A url without `download=true`, which only tells a browser to save the file."""
    if "?" not in url:
        return url
    parts = urlsplit(url)
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair != ("download", "true")]
    return parts._replace(query=urlencode(query)).geturl()


def _sha256_of(model: dict[str, Any]) -> str | None:
    digest, kind = model.get("hash"), str(model.get("hash_type") or "").upper().replace("-", "")
    is_sha256 = isinstance(digest, str) and kind == "SHA256" and re.fullmatch(r"[0-9a-fA-F]{64}", digest)
    return str(digest) if is_sha256 else None


def _objects(items: Any) -> Iterator[dict[str, Any]]:
    if isinstance(items, list):
        yield from (item for item in items if isinstance(item, dict))
