"""What an address in a manifest means, and to which hosts tokens belong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from comfy_depot import schemes, sources
from comfy_depot.errors import SourceRefused
from tests.fakes.fetching import entry, transfers
from tests.fakes.origin import Origin, safetensors, sha256


@pytest.mark.parametrize(
    "url",
    [
        "https://host/a",
        "hf://org/repo/sub/a.safetensors@refs/pr/1",
        "hf://datasets/org/repo/a.safetensors",
        "civitai://128713",
        "civitai://128713?type=Model&format=SafeTensor&size=pruned&fp=fp16",
        "modelscope://org/repo/a.safetensors@v1.0",
        "s3://my-bucket.x/sub/a.safetensors?versionId=Ab_1.2",
        "file:///library/a%20b.safetensors",
        "file://localhost/library/a.safetensors",
        "/library/a b.safetensors",
        "/dev/shm/a.safetensors",
        "C:\\models\\a.safetensors",
    ],
)
def test_an_address_that_can_be_fetched_is_accepted(url: str) -> None:
    assert schemes.check_url(url) == url


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("file:///library/a%20b", "/library/a b"),
        ("file://localhost/library/a", "/library/a"),
        ("/library/a%20b", "/library/a%20b"),
        ("file:///C:/models/a", "C:/models/a"),
        ("file://host/share/a", None),
        ("//host/share/a", None),
        ("https://host/a", None),
        ("hf://a/b/c", None),
    ],
)
def test_paths_and_file_urls_mean_files_of_this_machine(url: str, file: str | None) -> None:
    assert schemes.local_file(url) == (None if file is None else Path(file))


def test_hf_addresses_follow_the_mirror_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "hf://org/repo/a b@x.safetensors@v1"
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert schemes.plain_url(url) == "https://huggingface.co/org/repo/resolve/v1/a%20b%40x.safetensors"
    assert schemes.token_name(schemes.plain_url(url), schemes.TOKENS) == "HF_TOKEN"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hf/")
    assert schemes.plain_url(url) == "https://mirror.example/hf/org/repo/resolve/v1/a%20b%40x.safetensors"
    assert schemes.token_name(schemes.plain_url(url), schemes.TOKENS) is None, "the mirror gets no token"
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    with pytest.raises(SourceRefused, match="HF_ENDPOINT holds no address. Set it to https://HOST"):
        schemes.plain_url(url)
    assert schemes.host_of(url) == "huggingface.co", "a list is shown all the same"


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://huggingface.co/o/r/resolve/main/a.safetensors", "http://mirror:8/hf/o/r/resolve/main/a.safetensors"),
        ("http://huggingface.co/a", "http://huggingface.co/a"),
        ("https://huggingface.co.example/a", "https://huggingface.co.example/a"),
        ("https://civitai.com/api/download/models/1", "https://civitai.com/api/download/models/1"),
    ],
)
def test_addresses_at_the_hub_are_asked_for_at_the_mirror(
    monkeypatch: pytest.MonkeyPatch, url: str, asked: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror:8/hf/")
    assert schemes.request_url(url) == asked
    assert schemes.plain_url(url) == url, "the address as it is written is what is allowed and shown"
    monkeypatch.delenv("HF_ENDPOINT")
    assert schemes.request_url(url) == url


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://huggingface.co/a", "HF_TOKEN"),
        ("https://huggingface.co:443/a", "HF_TOKEN"),
        ("https://HuggingFace.co/a", "HF_TOKEN"),
        ("http://huggingface.co/a", None),
        ("https://huggingface.co:8443/a", None),
        ("https://huggingface.co.evil.example/a", None),
        ("https://evil.example/huggingface.co", None),
        ("https://sub.huggingface.co/a", None),
        ("https://civitai.com/a", "CIVITAI_TOKEN"),
        ("https://modelscope.cn/a", "MODELSCOPE_API_TOKEN"),
        ("http://mine.example:8080/a", "MINE"),
        ("https://mine.example/a", None),
    ],
)
def test_a_token_belongs_to_exactly_one_host(url: str, name: str | None) -> None:
    assert schemes.token_name(url, {**schemes.TOKENS, "mine.example:8080": "MINE"}) == name


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://host.example/a?sig=s", "host.example"),
        ("hf://org/repo/a", "huggingface.co"),
        ("civitai://1", "civitai.com"),
        ("s3://bucket/a", "s3://bucket"),
        ("/library/a", "library"),
        ("file:///library/a", "library"),
    ],
)
def test_a_source_is_shown_as_its_host(url: str, host: str) -> None:
    assert schemes.host_of(url) == host


def test_only_public_addresses_are_taken_from_strangers() -> None:
    assert [url for url in ("https://h/a", "hf://a/b/c", "s3://bucket/a", "file:///a", "/a", "file://h/a")
            if schemes.is_remote(url)] == ["https://h/a", "hf://a/b/c"]


def test_without_boto3_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SourceRefused, match="pip install -r requirements-s3.txt"):
        sources.resolve(entry("s3://bucket/a"), "s3://bucket/a")


def test_a_bucket_is_read_with_a_fresh_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3", reason="the package boto3 is not installed")
    body = safetensors(5000)
    with Origin() as origin:
        origin.put("/my-bucket/sub/a%20b.safetensors", body)
        for name, value in {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "very-secret",
                            "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_S3": origin.url}.items():
            monkeypatch.setenv(name, value)
        url = "s3://my-bucket/sub/a%20b.safetensors"
        with transfers(tmp_path) as ours:
            wanted = entry(url, sha256=sha256(body), headers={"X-Own": "header"})
            assert ours.fetch(wanted, tmp_path / "a.safetensors").wait().read_bytes() == body
        assert all("X-Amz-Signature" in hit.query and "x-own" not in hit.headers for hit in origin.log)
        assert "very-secret" not in repr(origin.log)
        missing = "s3://my-bucket/none.safetensors"
        with pytest.raises(FileNotFoundError, match="answered 404") as caught:
            sources.resolve(entry(missing), missing, allow_hosts=("127.0.0.1",))
        assert "Signature" not in str(caught.value)


def test_a_bucket_without_credentials_says_which_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("boto3", reason="the package boto3 is not installed")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceRefused, match="cannot be signed .*Set AWS_ACCESS_KEY_ID, AWS_SECRET"):
        schemes.request_url("s3://bucket/a")
