"""Read a manifest: JSON in, `Entry` per model and a `Problem` per mistake out.

    {"checkpoints": {"a.safetensors": "https://host/a.safetensors",
                     "sub/b.safetensors": {"urls": ["https://..."], "size": 123, "sha256": "..."}}}

`model_manifests/README.md` gives the whole format, each rule with its reason, and `schema.json` beside it is
generated here. A mistake costs its own entry only; the rest of the file works.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from comfy_depot.errors import UnsafeName
from comfy_depot.json_lines import key_lines
from comfy_depot.layout import safe_name
from comfy_depot.piece_hashes import LEAST_BYTES, PieceHashes
from comfy_depot.schemes import check_url, local_file

LARGEST_MANIFEST = 64 << 20
"""Bytes. A list of 100,000 models with hashes is a quarter of this."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_FORM = 'The form is {"checkpoints": {"name.safetensors": "https://..."}}.'
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_USUAL_FIELDS = {"url", "size", "sha256"}
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset("host connection content-length transfer-encoding te trailer upgrade expect range "
                         "if-range accept-encoding keep-alive".split())
"""What says where a request goes and where it ends."""
_SECRET_HEADERS = {"authorization", "cookie", "proxy-authorization", "x-api-key", "private-token"}

SMALLEST_TO_REMEMBER = 256 << 10
"""Bytes. A smaller manifest is checked in a moment."""

Refused = frozenset[tuple[str, str]]
"""(folder, name) of entries"""
Mistake = tuple[tuple[str, ...], str]
"""(path of keys in the file, what is wrong)"""


@dataclass(frozen=True)
class Bundle:
    """Where a model is inside an archive. `size` and `sha256` are the archive's, not the model's."""

    member: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """A model that a manifest names.

    `name` uses "/" between subfolders on every system. `headers` are kept as written: "Bearer $HF_TOKEN" is
    expanded only at the moment it is sent, so that no token reaches a log, a state file or an answer.
    """

    folder: str
    name: str
    urls: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS, hash=False)
    group: str | None = None
    license: str | None = None
    gated: bool = False
    bundle: Bundle | None = None
    pieces: PieceHashes | None = None
    """Where the file is inside the archive that the urls name; `size` and `sha256` are the file's own."""
    is_anonymous: bool = False
    """Whether none of this server's tokens are sent for it: somebody else than its owner has named it."""

    @property
    def key(self) -> str:
        """`folder/name`, the form in which the command line and the log write it."""
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True)
class Problem:
    """A mistake in a manifest: which file, which line, what to write instead."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


@dataclass(frozen=True)
class Reading:
    """What one file gave. `is_readable` is false where the file as a whole could not be understood."""

    file: Path
    entries: tuple[Entry, ...] = ()
    problems: tuple[Problem, ...] = ()
    is_readable: bool = True
    refused: Refused = frozenset()
    """The entries with mistakes."""


def _check_sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError(f"'{text}' is not a sha256. Write its 64 hexadecimal digits, or leave the field out")
    return text.lower()


def _check_blake2b(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(f"'{text}' is not a blake2b of 32 bytes. Write its 64 hexadecimal digits")
    return text.lower()


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or re.search(r"[\x00-\x1f\x7f]", value):
            raise ValueError(f"header {name!r} is malformed. Write a plain name and a value on one line")
        if name.lower() in _OWN_HEADERS or name.lower().startswith("proxy-"):
            raise ValueError(f"header '{name}' is the depot's own to set. Take it out")
        if name.lower() in _SECRET_HEADERS and not re.search(r"\$\{?[A-Za-z_]", value):
            raise ValueError(f"header '{name}' holds a secret in plain text. Put it into an environment "
                             f'variable and write "{name}": "Bearer $NAME"')
    return headers


Url = Annotated[str, AfterValidator(check_url)]


def _check_member(name: str) -> str:
    try:
        return safe_name(name)
    except UnsafeName as error:
        raise ValueError(f"member: {str(error).rstrip('.')}") from None


class BundleForm(BaseModel):
    """Which member of the archive at `url` the model is; size and sha256 are those of the archive."""

    model_config = ConfigDict(extra="forbid", strict=True, title="Bundle")

    member: Annotated[str, AfterValidator(_check_member)] = Field(
        description="Its name inside the archive, with / between folders.")
    size: Annotated[int, Field(gt=0)] | None = Field(None, description="Bytes of the archive.")
    sha256: Annotated[str, AfterValidator(_check_sha256)] | None = Field(
        None, description="64 hexadecimal digits of the archive. The archive is then always fetched whole, "
                          "unless the model has a sha256 of its own.")


class PiecesForm(BaseModel):
    """Digests of the pieces of the file, in order, all of one kind."""

    model_config = ConfigDict(extra="forbid", strict=True, title="Pieces")

    bytes: Annotated[int, Field(ge=LEAST_BYTES)] = Field(description="Of each piece but the last.")
    sha256: list[Annotated[str, AfterValidator(_check_sha256)]] | None = Field(None, min_length=1)
    blake2b: list[Annotated[str, AfterValidator(_check_blake2b)]] | None = Field(
        None, min_length=1, description="With 32 bytes.")

    def hashes(self, size: int | None) -> PieceHashes:
        """The same, checked; ValueError says what does not fit."""
        if (self.sha256 is None) == (self.blake2b is None):
            raise ValueError('"pieces" holds one list, "sha256" or "blake2b", not both')
        found = PieceHashes(self.bytes, "blake2b" if self.sha256 is None else "sha256",
                            tuple(self.sha256 or self.blake2b or ()))
        if size is not None and not found.fits(size):
            raise ValueError(f'"pieces" holds {len(found.digests)} digests, and a file of {size} bytes has '
                             f"{-(-size // found.length)} pieces of {found.length}. Correct one of them")
        return found


class EntryForm(BaseModel):
    """The object form of an entry."""

    model_config = ConfigDict(extra="forbid", strict=True, title="Model")

    url: Url | None = Field(None, description=(
        "Where the file is: https://host/path, hf://ORG/REPO/PATH@REVISION, civitai://VERSION, "
        "modelscope://ORG/REPO/PATH@REVISION, s3://BUCKET/KEY, or /path of a mounted library."))
    urls: Annotated[list[Url], Field(min_length=1)] | None = Field(
        None, description="The same file in many places.")
    size: Annotated[int, Field(gt=0)] | None = Field(None, description="Bytes.")
    sha256: Annotated[str, AfterValidator(_check_sha256)] | None = Field(
        None, description="64 hexadecimal digits.")
    pieces: PiecesForm | None = Field(
        None, description="Digests of the file's pieces, which are compared while it arrives.")
    headers: Annotated[dict[str, str], AfterValidator(_check_headers)] = Field(
        default_factory=dict, description="Sent to the url's own host only; $NAME: the environment.")
    group: str | None = Field(None, description="A word of your own to sort by.")
    license: str | None = Field(None, description="For people to read.")
    gated: bool = Field(False, description="The source wants a token or an accepted licence.")
    bundle: BundleForm | None = Field(
        None, description="The url is an archive (zip or tar), and the model is a member of it.")


class ManifestForm(BaseModel):
    """A manifest file: folder type, then file name, then url or object."""

    model_config = ConfigDict(extra="allow", title="ComfyUI Depot model manifest")
    __pydantic_extra__: dict[str, dict[str, str | EntryForm]] = Field(init=False)

    schema_: str | None = Field(None, alias="$schema", description="The schema, for editors.")


def json_schema() -> dict[str, Any]:
    """The JSON schema of a manifest, which `model_manifests/schema.json` holds."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ManifestForm.model_json_schema()}


class Checked(Protocol):
    """Knows which manifests were checked before."""

    def refused_of(self, digest: str) -> Refused | None:
        """What was refused of the manifest with this sha256; None where it was not checked."""

    def note(self, digest: str, refused: Refused) -> None:
        """A manifest was checked."""


def read_manifest(file: Path, *, checked: Checked | None = None) -> Reading:
    """Read one manifest file. Never raises: what is wrong stands in `problems`."""
    try:
        if file.stat().st_size > LARGEST_MANIFEST:
            largest = f"{LARGEST_MANIFEST >> 20} MiB"
            return _unreadable(file, None, f"larger than {largest}. Split it into several files.")
        body = file.read_bytes()
        text = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        return _unreadable(file, None, f"not UTF-8 at byte {error.start}. Save it as UTF-8.")
    except OSError as error:
        return _unreadable(file, None, f"cannot be read ({error.strerror}). Check the file and its rights.")
    if checked is None or len(body) < SMALLEST_TO_REMEMBER:
        return _read_text(file, text)
    digest = hashlib.sha256(body).hexdigest()
    del body
    refused = checked.refused_of(digest)
    reading = _read_text(file, text, refused)
    if refused is None and reading.is_readable:
        checked.note(digest, reading.refused)
    return reading


def _read_text(file: Path, text: str, refused: Refused | None = None) -> Reading:
    try:
        content, has_repeated_keys = _parse(text)
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg} at column {error.colno}. Correct this line. {_FORM}"
        return _unreadable(file, error.lineno, message)
    except RecursionError:
        return _unreadable(file, None, f"nested too deeply. {_FORM}")
    except ValueError:  # Python reads no number of more than 4,300 digits
        return _unreadable(file, None, f"a number has too many digits. Correct it. {_FORM}")
    if not isinstance(content, dict):
        return _unreadable(file, 1, f"not an object. {_FORM}")
    repeated = list(_repeated_keys(file, text)) if has_repeated_keys else []
    return _read_content(file, text, content, repeated, refused)


def _parse(text: str) -> tuple[Any, bool]:
    """The content, and whether some key stands twice in one object."""
    repeats = []

    def as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            repeats.append(True)
        return result

    return json.loads(text, object_pairs_hook=as_dict), bool(repeats)


def _unreadable(file: Path, line: int | None, message: str) -> Reading:
    return Reading(file, problems=(Problem(file.name, line, message),), is_readable=False)


def _read_content(
    file: Path, text: str, content: dict[str, Any], repeated: list[Problem], refused: Refused | None
) -> Reading:
    """`refused`: the entries in which there are mistakes, where that is known."""
    entries: list[Entry] = []
    mistakes: list[Mistake] = []
    for folder, models in content.items():
        if folder.startswith("$"):
            continue
        if not isinstance(models, dict):
            mistakes.append(((folder,), f"'{told(folder)}' must hold an object. Write {{file name: url}}."))
            continue
        for name, value in models.items():
            try:
                is_good = refused is not None and (folder, name) not in refused
                entries.append((_entry_of if is_good else read_entry)(folder, name, value))
            except ValueError as error:
                where = f"'{told(name)}' in '{told(folder)}'"
                mistakes.append(((folder, name), f"{where}: {told(str(error), 800)}."))
    problems = [*locate(file.name, text, mistakes), *repeated]
    problems.sort(key=lambda problem: problem.line or 0)
    found = frozenset((path[0], path[-1]) for path, _ in mistakes if len(path) == 2)
    return Reading(file, tuple(entries), tuple(problems), refused=found)


def told(text: str, most: int = 200) -> str:
    """A text of a manifest for a message: one of megabytes is cut in its middle."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def locate(file: str, text: str, mistakes: list[Mistake]) -> list[Problem]:
    """Problems with the lines on which the mistakes stand."""
    lines = dict(key_lines(text)) if mistakes else {}
    return [Problem(file, lines.get(path), message) for path, message in mistakes]


def _repeated_keys(file: Path, text: str) -> Iterator[Problem]:
    """A folder or a name that stands twice: JSON keeps the last one without a word."""
    seen: dict[tuple[str, ...], int] = {}
    for path, line in key_lines(text):
        if len(path) <= 2 and path in seen:
            message = f"'{path[-1]}' stands here and on line {seen[path]}; only this counts. Join the two."
            yield Problem(file.name, line, message)
        seen[path] = line


def read_entry(folder: str, name: str, value: Any) -> Entry:
    """One entry of a manifest; ValueError says what is wrong and what to write instead."""
    check_name(name)
    if isinstance(value, str):
        return Entry(folder, name, (_check_kind(name, check_url(value)),))
    if not isinstance(value, dict):
        raise ValueError('the value is no url and no object. Write "https://..." or {"url": "https://..."}')
    if _is_usual(value):
        _check_kind(name, check_url(value["url"]))
        return _entry_of(folder, name, value)
    try:
        form = EntryForm.model_validate(value)
    except ValidationError as error:
        raise ValueError("; ".join(_explain(details) for details in error.errors())) from None
    if (form.url is None) == (form.urls is None):
        raise ValueError('one of "url" and "urls" must be there, not both. Write "url": "https://..."')
    urls = (form.url,) if form.url is not None else tuple(form.urls or ())
    bundle = None
    if form.bundle is not None:
        bundle = _check_bundle(name, Bundle(form.bundle.member, form.bundle.size, form.bundle.sha256))
    for url in urls if bundle is None else ():
        _check_kind(name, url)
    if form.pieces is not None and bundle is not None:
        raise ValueError('"pieces" cannot be compared for a member of a bundle. Take the field out')
    pieces = None if form.pieces is None else form.pieces.hashes(form.size)
    return Entry(folder, name, urls, form.size, form.sha256, MappingProxyType(form.headers), form.group,
                 form.license, form.gated, bundle, pieces)


def _is_usual(value: dict[str, Any]) -> bool:
    """Whether an object has the form that nearly all have, so that only its url is to be checked."""
    size, sha256 = value.get("size", 1), value.get("sha256", "0" * 64)
    return (value.keys() <= _USUAL_FIELDS and isinstance(value.get("url"), str)
            and type(size) is int and size > 0
            and isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None)


def _entry_of(folder: str, name: str, value: str | dict[str, Any]) -> Entry:
    """The entry of a value that was checked."""
    if isinstance(value, str):
        return Entry(folder, name, (value,))
    get = value.get
    url, sha256, headers, bundle = get("url"), get("sha256"), get("headers"), get("bundle")
    return Entry(
        folder, name, tuple(get("urls") or ()) if url is None else (url,), get("size"),
        None if sha256 is None else sha256.lower(), MappingProxyType(headers) if headers else _NO_HEADERS,
        get("group"), get("license"), get("gated", False), None if bundle is None else _bundle_of(bundle),
    )


def _bundle_of(value: dict[str, Any]) -> Bundle:
    sha256 = value.get("sha256")
    return Bundle(value["member"], value.get("size"), None if sha256 is None else sha256.lower())


def _check_bundle(name: str, bundle: Bundle) -> Bundle:
    """The bundle; ValueError where its member is of another kind than the name says."""
    if extension_of(bundle.member) != extension_of(name):
        raise ValueError(f"the member '{bundle.member}' of its bundle is no '{extension_of(name)}' file. "
                         "Name a member with the extension of the model, or give the model that of the "
                         "member")
    return bundle


def _check_kind(name: str, url: str) -> str:
    """The url; ValueError where it is a file of this machine and of another kind than the name says."""
    file = None if url.startswith("http") else local_file(url)
    if file is not None and extension_of(file.name) != extension_of(name):
        raise ValueError(f"'{url}' is no '{extension_of(name)}' file. "
                         "Name a file with the extension of the model, or give the model that of the file")
    return url


def extension_of(name: str) -> str:
    """".safetensors" of "sub/a.safetensors", in lower case; empty when there is none."""
    stem, _, extension = name.rpartition("/")[2].rpartition(".")
    return f".{extension.lower()}" if stem and extension else ""


def check_name(name: str) -> None:
    """ValueError for a file name that is hostile or has no extension."""
    try:
        safe_name(name)
    except UnsafeName as error:
        raise ValueError(str(error).rstrip(".")) from None
    if not extension_of(name):
        raise ValueError("the name has no extension, so nobody can tell what kind of file it is. "
                         f"Write it as the file is called, such as '{name}.safetensors'")


def _explain(details: ErrorDetails) -> str:
    if details["loc"][:1] == ("pieces",) and details["type"] != "value_error":
        return (f"'{'.'.join(map(str, details['loc'][:2]))}' is wrong ({details['msg']}). "
                f'The form is {{"bytes": {16 << 20}, "sha256": ["...", ...]}}, or "blake2b", '
                f"with at least {LEAST_BYTES} bytes")
    where = ".".join(map(str, details["loc"][:2 if details["loc"][:1] == ("bundle",) else 1])) or "the object"
    if details["type"] == "extra_forbidden":
        known = [f"bundle.{field}" for field in BundleForm.model_fields] if "." in where else [
            *EntryForm.model_fields]
        near = difflib.get_close_matches(where, known, n=1)
        advice = f"'{near[0]}'" if near else f"one of {', '.join(known)}"
        return f"field '{where}' is not known. Write {advice}"
    if details["type"] == "value_error":
        return str(details["msg"]).removeprefix("Value error, ")
    bytes_wanted = "a whole number of bytes above 0"
    wanted = {"size": bytes_wanted, "bundle.size": bytes_wanted,
              "urls": "a list of urls", "gated": "true or false",
              "headers": 'an object such as {"Authorization": "Bearer $NAME"}',
              "bundle": 'an object such as {"member": "a/b.safetensors"}',
              "bundle.member": "the name of a file inside the archive"}.get(where, "text in quotes")
    return f"'{where}' must be {wanted}"
