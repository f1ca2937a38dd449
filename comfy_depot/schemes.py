"""Which addresses a manifest may name, and what each means when its file is fetched.

    https://host/path                     as it is, but huggingface.co like hf://; http:// too
    hf://ORG/REPO/PATH@REVISION           huggingface.co, or the mirror that HF_ENDPOINT names
    civitai://VERSION                     the download of a model version
    modelscope://ORG/REPO/PATH@REVISION   modelscope.cn
    s3://BUCKET/KEY                       signed with the environment's AWS credentials (package boto3)
    file:///folder/x, /folder/x           a mounted library: linked or copied, see `library.py`

Tokens belong to hosts: the environment's HF_TOKEN goes to https://huggingface.co and nowhere else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from comfy_depot.errors import SourceRefused

TOKENS: Mapping[str, str] = {
    "huggingface.co": "HF_TOKEN",
    "civitai.com": "CIVITAI_TOKEN",
    "modelscope.cn": "MODELSCOPE_API_TOKEN",
}
"""Host -> environment variable with the token that is sent to it."""

SECONDS_SIGNED = 3600
_FORMS = {
    "hf": "hf://ORG/REPO/PATH@REVISION",
    "modelscope": "modelscope://ORG/REPO/PATH@REVISION",
    "civitai": "civitai://VERSION, where VERSION is the number of the model version",
    "s3": "s3://BUCKET/KEY",
    "file": "file:///folder/name.safetensors",
}
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]+(?::[1-9][0-9]{0,3})?/[!-~]*")
_HUB = re.compile(r"(?:hf|modelscope)://((?:datasets/)?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/"
                  r"([^@?#]+(?:@[^@?#]+)*?)(?:@([\w][\w./-]*))?", re.ASCII)
_CIVITAI = re.compile(r"civitai://([0-9]{1,18})((?:\?|&)(?:(?:type|format|size|fp)=[A-Za-z0-9]+&?)+)?")
_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^?#]+)(?:\?versionId=([\w.-]+))?", re.ASCII)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def check_url(url: str) -> str:
    """The url itself when it can be fetched, else ValueError that says what to write."""
    if _PLAIN_URL.fullmatch(url):  # nearly all of them: a list of 100,000 must not cost seconds
        return url
    if _is_path(url) or url[:5].lower() == "file:":
        return _check_local(url)
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError(f"the url {url!r} holds a space or a control character. Write %20 for a space")
    scheme = url.partition("://")[0]
    if scheme in ("hf", "modelscope", "civitai", "s3"):
        return _check_short(scheme, url)
    return _check_web(url)


def _check_web(url: str) -> str:
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"the url '{url}' is malformed ({error}). Write https://host/path") from None
    if parts.scheme.lower() not in ("http", "https") or not has_host:
        raise ValueError(f"'{url}' is not the url of a file. Write https://host/path")
    if "@" in parts.netloc:
        raise ValueError("the url holds a user name or password. Write it as a header, from the environment: "
                         '"headers": {"Authorization": "Bearer $NAME"}')
    return url


def _check_short(scheme: str, url: str) -> str:
    """An address in a form of its own: it must name one file and cannot leave its repository."""
    pattern = {"civitai": _CIVITAI, "s3": _S3}.get(scheme, _HUB)
    found, told = pattern.fullmatch(url), url.partition("?")[0]  # a query may hold a token
    if found is None:
        raise ValueError(f"'{told}' names no file. Write {_FORMS[scheme]}")
    if {".", "..", ""} & set(unquote(found[2] or "x").split("/")):
        raise ValueError(f"the path in '{told}' has an empty component, '.' or '..'. Write {_FORMS[scheme]}")
    return url


def _check_local(url: str) -> str:
    path = _path_of(url)
    if path is None or re.search(r"[\x00-\x1f\x7f]", path):
        raise ValueError(f"{url!r} names no file on this machine. Write {_FORMS['file']}, "
                         "or the whole path from the root of the file system")
    if {".", ".."} & set(re.split(r"[\\/]", path)):
        raise ValueError(f"the path {url!r} has a component '.' or '..'. Write it without")
    if path.startswith(("/dev/", "/proc/", "/sys/")) and not path.startswith("/dev/shm/"):
        raise ValueError(f"{url!r} lies among the devices of the system. Name a file of a model library")
    return url


def _is_path(url: str) -> bool:
    return url.startswith("/") or bool(_DRIVE.match(url))


def _path_of(url: str) -> str | None:
    """The path that a plain path or a file:// url means; None when it leads to another machine."""
    if not _is_path(url):
        scheme, slashes, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        if scheme.lower() != "file" or not slashes or not slash or host.lower() not in ("", "localhost"):
            return None
        url = unquote("/" + path)
        url = url[1:] if _DRIVE.match(url[1:]) else url
    return None if url.startswith("//") or url.endswith(("/", "\\")) else url


def local_file(url: str) -> Path | None:
    """The file of a mounted library that an address names; None when it is fetched over the network."""
    if _is_path(url) or url[:5].lower() == "file:":
        path = _path_of(url)
        return None if path is None else Path(path)
    return None


def is_remote(url: str) -> bool:
    """Whether an address leads to the public network and to no file or bucket of this machine's owner.

    Only such ones are taken from people who may not read them: authors of fetched lists and of workflows.
    """
    return local_file(url) is None and url.partition("://")[0].lower() not in ("s3", "file")


def plain_url(url: str) -> str:
    """The https form of hf://, civitai:// and modelscope://; other addresses as they are."""
    scheme, _, rest = url.partition("://")
    if scheme in ("hf", "modelscope") and (found := _HUB.fullmatch(url)):
        repository, path, revision = found.groups()
        if scheme == "hf":
            where = f"{_hub_endpoint()}/{repository}/resolve/{quote(revision or 'main', safe='')}"
        else:
            revision = quote(revision or "master", safe="")
            where = f"https://modelscope.cn/models/{repository}/resolve/{revision}"
        return f"{where}/{quote(path, safe='/%')}"
    if scheme == "civitai":
        return f"https://civitai.com/api/download/models/{rest}"
    return url


def _hub_endpoint() -> str:
    """Where hf:// leads: huggingface.co, or the mirror of the environment."""
    mirror = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if mirror and not re.fullmatch(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[\w./-]*)?", mirror):
        raise SourceRefused("The environment variable HF_ENDPOINT holds no address. "
                            "Set it to https://HOST, or remove it to use huggingface.co.")
    return mirror or "https://huggingface.co"


def at_mirror(url: str) -> str:
    """An https address at huggingface.co as it is at the mirror of the environment; others as they are."""
    hub = "https://huggingface.co/"
    return f"{_hub_endpoint()}/{url[len(hub):]}" if url.startswith(hub) else url


def request_url(url: str) -> str:
    """The http(s) address to ask now. That of s3:// is signed anew each time, so it is never an old one."""
    return signed_url(url) if url.startswith("s3://") else at_mirror(plain_url(url))


def host_of(url: str) -> str:
    """Where an address leads, in a word for people: a host, the bucket, or "library"."""
    if local_file(url) is not None:
        return "library"
    try:
        plain = plain_url(url)
    except SourceRefused:
        return "huggingface.co"
    host = urlsplit(plain).hostname or ""
    return f"s3://{host}" if plain.startswith("s3://") else host


def token_name(url: str, tokens: Mapping[str, str]) -> str | None:
    """The environment variable whose token belongs to the host of an https address."""
    parts = urlsplit(url)
    if parts.netloc in tokens and (parts.scheme == "https" or ":" in parts.netloc):
        return tokens[parts.netloc]  # over plain http only where the user has named the port
    if parts.scheme != "https" or parts.port not in (None, 443):
        return None
    return tokens.get(parts.hostname or "")


def signed_url(url: str) -> str:
    """The signed https address of s3://BUCKET/KEY, valid for an hour."""
    found = _S3.fullmatch(url)
    if found is None:
        raise SourceRefused(f"'{url}' names no file. Write {_FORMS['s3']} into the manifest.")
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise SourceRefused(
            f"'{url}' needs the package boto3 to be signed. Install it: pip install -r requirements-s3.txt"
        ) from None
    bucket, key, version = found.groups()
    wanted = {"Bucket": bucket, "Key": unquote(key), **({"VersionId": version} if version else {})}
    try:
        client = boto3.session.Session().client("s3", config=Config(signature_version="s3v4"))
        return str(client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=SECONDS_SIGNED))
    except (BotoCoreError, ValueError) as error:
        raise SourceRefused(
            f"'{url}' cannot be signed ({error}). Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_REGION, and AWS_ENDPOINT_URL_S3 for a server of your own."
        ) from None
