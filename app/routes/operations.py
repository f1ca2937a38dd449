"""How routes are described. A file of routes says in `OPERATIONS` what each of its routes takes and answers:

    OPERATIONS = {"GET /prompt": Operation("Length of the queue", {200: record({"exec_info": ...})})}

The key is method and path as in the file's table of routes. `app/openapi.py` makes docs/openapi.json of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any]


@dataclass(frozen=True)
class Raw:
    """A body that is no JSON, by its media type."""

    media_type: str
    schema: Schema | None = None


Content = Schema | Raw | None
"""A body: JSON by its schema, anything else by its type, or none."""

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TRUTH: Schema = {"type": "boolean"}
ANY: Schema = {}
OBJECT: Schema = {"type": "object"}
REASON = Raw("text/plain")
"""A refusal in words, or only its name."""
BYTES = Raw("*/*")


def record(fields: Mapping[str, Schema], maybe: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these fields, and perhaps those; others may come."""
    content: Schema = {"type": "object", "properties": {**fields, **(maybe or {})}}
    return {**content, "required": sorted(fields)} if fields else content


def many(schema: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": schema}


def by_name(schema: Schema) -> Schema:
    """An object whose names are no part of the interface, such as ids."""
    return {"type": "object", "additionalProperties": schema}


def one_of(*words: str) -> Schema:
    """One of a few words."""
    return {"type": "string", "enum": list(words)}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def either(*schemas: Schema) -> Schema:
    """One of several."""
    return {"anyOf": list(schemas)}


def form(fields: Mapping[str, Schema], maybe: Mapping[str, Schema] | None = None) -> Raw:
    """The fields of a form with files."""
    return Raw("multipart/form-data", record(fields, maybe))


FILE: Schema = {"type": "string", "format": "binary"}


@dataclass(frozen=True)
class Operation:
    """What one route does, takes and answers."""

    summary: str
    answers: Mapping[int, Content]
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Content = None
    path: Mapping[str, Schema] = field(default_factory=dict)
    needs_body: bool = True
    needs_query: tuple[str, ...] = ()
