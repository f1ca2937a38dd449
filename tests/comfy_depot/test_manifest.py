"""What a manifest may say, and what is said of one that is wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_depot import manifest
from comfy_depot.json_lines import key_lines
from comfy_depot.manifest import Bundle, Entry, read_entry, read_manifest

URL = "https://host.example/a.safetensors"
MANIFESTS = Path(__file__).resolve().parents[2] / "model_manifests"


def write(folder: Path, text: str, name: str = "list.json") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_the_plain_form_gives_an_entry_per_name(tmp_path: Path) -> None:
    content = {
        "checkpoints": {"a.safetensors": URL},
        "loras": {"sub/b.safetensors": "http://mirror.example:8080/b"},
    }
    reading = read_manifest(write(tmp_path, json.dumps(content)))
    assert reading.problems == ()
    assert reading.entries == (
        Entry("checkpoints", "a.safetensors", (URL,)),
        Entry("loras", "sub/b.safetensors", ("http://mirror.example:8080/b",)),
    )


def test_the_object_form_gives_every_field() -> None:
    value = {
        "urls": [URL, "https://mirror.example/a.safetensors"],
        "size": 7,
        "sha256": "AB" * 32,
        "headers": {"Authorization": "Bearer $HF_TOKEN"},
        "group": "sd15",
        "license": "MIT",
        "gated": True,
    }
    entry = read_entry("checkpoints", "a.safetensors", value)
    assert entry.urls == (URL, "https://mirror.example/a.safetensors")
    assert (entry.size, entry.sha256, entry.group, entry.license, entry.gated) == (
        7,
        "ab" * 32,
        "sd15",
        "MIT",
        True,
    )
    assert entry.headers["Authorization"] == "Bearer $HF_TOKEN", "the token is not expanded here"
    assert entry.key == "checkpoints/a.safetensors"


def test_a_bundle_names_a_member_and_may_tell_of_the_archive() -> None:
    value = {"url": "https://host.example/all.zip", "size": 5, "bundle": {"member": "a/b.safetensors"}}
    assert read_entry("loras", "b.safetensors", value).bundle == Bundle("a/b.safetensors")
    value["bundle"] |= {"size": 7, "sha256": "AB" * 32}
    entry = read_entry("loras", "b.safetensors", value)
    assert entry.bundle == Bundle("a/b.safetensors", 7, "ab" * 32) and entry.size == 5


def test_an_entry_can_be_a_key_of_a_dictionary() -> None:
    assert hash(read_entry("loras", "a.safetensors", {"url": URL, "headers": {"X-A": "b"}}))


@pytest.mark.parametrize(
    "text, line, words",
    [
        ("{\n'checkpoints': {}}", 2, "not JSON: Expecting property name enclosed in double quotes"),
        ('{"checkpoints": {\n "a.safetensors" "https://host/a"\n}}', 2, "Correct this line"),
        ("", 1, "not JSON"),
        ("[]", 1, 'not an object. The form is {"checkpoints"'),
        ("[" * 100_000, None, "nested too deeply"),
        ("1" * 5000, None, "a number has too many digits"),
    ],
)
def test_what_is_not_json_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int | None, words: str
) -> None:
    reading = read_manifest(write(tmp_path, text))
    assert not reading.is_readable and reading.entries == ()
    (problem,) = reading.problems
    assert words in problem.message and problem.file == "list.json"
    assert problem.line == line
    assert str(problem).startswith(f"list.json:{line}: " if line else "list.json: ")


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    file.write_bytes(b'{"loras": {"\xff": 1}}')
    assert "not UTF-8 at byte 12. Save it as UTF-8." in str(read_manifest(file).problems[0])


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufeff" + json.dumps({"loras": {"a.safetensors": URL}}))
    assert len(read_manifest(file).entries) == 1


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in str(
        read_manifest(tmp_path / "no.json").problems[0]
    )


def test_a_giant_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    with file.open("wb") as stream:
        stream.truncate(manifest.LARGEST_MANIFEST + 1)
    assert "larger than 64 MiB. Split it into several files." in str(read_manifest(file).problems[0])


@pytest.mark.parametrize(
    "name, words",
    [
        ("model", "no extension, so nobody can tell what kind of file it is. Write it as the file is called"),
        ("sub/model", "such as 'sub/model.safetensors'"),
        ("../../etc/a.safetensors", "is refused"),
        ("/etc/a.safetensors", "is refused"),
        ("a/../b.safetensors", "is refused"),
        ("..\\..\\a.safetensors", "is refused"),
        ("C:/a.safetensors", "is refused"),
        ("C:a.safetensors", "is refused"),
        ("//host/share/a.safetensors", "is refused"),
        ("a\u0000.safetensors", "is refused"),
        ("a\n.safetensors", "is refused"),
        (".hidden.safetensors", "is refused"),
        ("sub//a.safetensors", "is refused"),
        ("con.safetensors", "is refused"),
        ("a.safetensors ", "is refused"),
        ("", "empty"),
        ("x" * 300 + ".safetensors", "longer than"),
    ],
)
def test_a_hostile_or_bare_name_is_refused(tmp_path: Path, name: str, words: str) -> None:
    text = json.dumps({"loras": {"good.safetensors": URL, name: URL}}, indent=1)
    reading = read_manifest(write(tmp_path, text))
    (problem,) = reading.problems
    assert words in problem.message and "'loras'" in problem.message
    assert problem.line == 4
    assert [entry.name for entry in reading.entries] == ["good.safetensors"], "the good entry works"


@pytest.mark.parametrize(
    "value, words",
    [
        (7, 'the value is no url and no object. Write "https://..." or {"url": "https://..."}'),
        (None, "the value is no url"),
        ("host/a.safetensors", "'host/a.safetensors' is not the url of a file. Write https://host/path"),
        ("ftp://host/a", "is not the url of a file"),
        ("https:///a", "is not the url of a file"),
        ("https://host:99999/a", "is malformed"),
        ("https://[::1/a", "is malformed"),
        ("https://host/a b", "holds a space or a control character. Write %20 for a space"),
        ("https://host/a\r\nX: y", "holds a space or a control character"),
        (
            "https://me:secret@host/a",
            "holds a user name or password. Write it as a header, from the environment",
        ),
        ("hf://org/model", "names no file. Write hf://ORG/REPO/PATH@REVISION"),
        ("hf://org/model/../../x/a", "has an empty component, '.' or '..'. Write hf://ORG/REPO/PATH@REVISION"),
        ("hf://org/model/%2e%2e/a", "has an empty component"),
        ("civitai://dream", "Write civitai://VERSION, where VERSION is the number of the model version"),
        ("civitai://1?token=abc", "Write civitai://VERSION"),
        ("modelscope://a", "names no file. Write modelscope://ORG/REPO/PATH@REVISION"),
        ("s3://bucket", "names no file. Write s3://BUCKET/KEY"),
        ("s3://b/../c/a", "names no file. Write s3://BUCKET/KEY"),
        ("file://other/share/a.safetensors", "names no file on this machine. Write file:///folder/name"),
        ("//other/share/a.safetensors", "names no file on this machine"),
        ("file:a.safetensors", "names no file on this machine"),
        ("/library/../etc/a.safetensors", "has a component '.' or '..'. Write it without"),
        ("/dev/zero", "lies among the devices of the system. Name a file of a model library"),
        ("/proc/self/environ", "lies among the devices"),
        ("/etc/passwd", "is no '.safetensors' file. Name a file with the extension of the model"),
        ({"urls": [URL, "file:///etc/shadow"]}, "is no '.safetensors' file"),
        ({}, 'one of "url" and "urls" must be there, not both'),
        ({"url": URL, "urls": [URL]}, 'one of "url" and "urls" must be there, not both'),
        ({"url": 5}, "'url' must be text in quotes"),
        ({"urls": []}, "'urls' must be a list of urls"),
        ({"urls": ["ftp://host/a"]}, "is not the url of a file"),
        ({"url": URL, "size": "7"}, "'size' must be a whole number of bytes above 0"),
        ({"url": URL, "size": 0}, "'size' must be a whole number of bytes above 0"),
        ({"url": URL, "size": True}, "'size' must be a whole number of bytes above 0"),
        ({"url": URL, "sha256": "12ab"}, "'12ab' is not a sha256. Write its 64 hexadecimal digits, or leave"),
        ({"url": URL, "gated": "yes"}, "'gated' must be true or false"),
        ({"url": URL, "group": 1}, "'group' must be text in quotes"),
        ({"url": URL, "headers": []}, "'headers' must be an object such as"),
        (
            {"url": URL, "headers": {"A b": "c"}},
            "header 'A b' is malformed. Write a plain name and a value on one",
        ),
        ({"url": URL, "headers": {"X": "a\r\nY: b"}}, "header 'X' is malformed"),
        (
            {"url": URL, "headers": {"Authorization": "Bearer abc"}},
            "holds a secret in plain text. Put it into an",
        ),
        ({"url": URL, "sha265": "x"}, "field 'sha265' is not known. Write 'sha256'"),
        ({"url": URL, "zzz": 1}, "field 'zzz' is not known. Write one of url, urls, size"),
        ({"url": URL, "bundle": {}}, "'bundle.member' must be the name of a file inside the archive"),
        ({"url": URL, "bundle": {"member": "../a.safetensors"}}, "a component starts with a dot"),
        ({"url": URL, "bundle": {"member": "/a.safetensors"}}, "it is absolute"),
        ({"url": URL, "bundle": {"member": "a.ckpt"}}, "'a.ckpt' of its bundle is no '.safetensors' file"),
        ({"url": URL, "bundle": {"member": "a.safetensors", "size": 0}}, "'bundle.size' must be a whole"),
        ({"url": URL, "bundle": {"member": "a.safetensors", "sha256": "1"}}, "is not a sha256"),
        ({"url": URL, "bundle": {"membr": "a.safetensors"}}, "not known. Write 'bundle.member'"),
        ({"url": URL, "bundle": "a.zip"}, "'bundle' must be an object such as"),
    ],
)
def test_a_bad_value_says_what_to_write(tmp_path: Path, value: Any, words: str) -> None:
    text = json.dumps({"loras": {"good.safetensors": URL, "bad.safetensors": value}}, indent=1)
    reading = read_manifest(write(tmp_path, text))
    (problem,) = reading.problems
    assert words in problem.message and problem.message.startswith("'bad.safetensors' in 'loras': ")
    assert problem.line == 4
    assert "secret@" not in str(problem) and "abc" not in str(problem), "no message repeats a secret"
    assert [entry.name for entry in reading.entries] == ["good.safetensors"]


def test_two_mistakes_in_one_entry_are_both_told() -> None:
    with pytest.raises(ValueError, match="size.*; .*gated"):
        read_entry("loras", "a.safetensors", {"url": URL, "size": -1, "gated": 3})


def test_a_folder_that_holds_no_object_is_refused(tmp_path: Path) -> None:
    reading = read_manifest(write(tmp_path, '{\n"loras": ["a.safetensors"]}'))
    assert str(reading.problems[0]) == "list.json:2: 'loras' must hold an object. Write {file name: url}."


def test_the_schema_key_is_no_folder(tmp_path: Path) -> None:
    assert read_manifest(write(tmp_path, '{"$schema": "schema.json", "loras": {}}')).problems == ()


def test_a_name_that_stands_twice_is_told_with_both_lines(tmp_path: Path) -> None:
    text = '{"loras": {\n"a.safetensors": "https://host/1",\n"a.safetensors": "https://host/2"}}'
    reading = read_manifest(write(tmp_path, text))
    assert (
        str(reading.problems[0]) == "list.json:3: 'a.safetensors' stands here and on line 2; "
        "only this counts. Join the two."
    )
    assert reading.entries[0].urls == ("https://host/2",)


# Few characters, and these are what a reader of JSON can take for something else.
TEXTS = st.text('"\\\n\u2028:,{}[]a1 \u00e9\U0001f600', max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def paths(content: Any) -> list[tuple[str, ...]]:
    if isinstance(content, dict):
        return [(key, *rest) for key, inner in content.items() for rest in [(), *paths(inner)]]
    return [path for inner in content for path in paths(inner)] if isinstance(content, list) else []


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_every_key_of_every_json_text_is_found(content: Any) -> None:
    assert [path for path, _ in key_lines(json.dumps(content))] == paths(content)
    assert [path for path, _ in key_lines(json.dumps(content, indent=2, ensure_ascii=False))] == paths(
        content
    )


def test_lines_are_counted_from_one() -> None:
    assert list(key_lines('{\n"a": {\n\n"b\\"": [{"c": 1}]},\n"d": ":"}')) == [
        (("a",), 2),
        (("a", 'b"'), 4),
        (("a", 'b"', "c"), 4),
        (("d",), 5),
    ]


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_no_json_makes_the_reader_raise(content: Any) -> None:
    text = json.dumps(content)
    file = Path(f"/dev/shm/depot-manifest-{random.randrange(1 << 60)}.json")
    if not file.parent.is_dir():
        pytest.skip("there is no /dev/shm")
    try:
        file.write_text(text, encoding="utf-8")
        reading = read_manifest(file)
        assert reading.is_readable == isinstance(content, dict) or reading.problems
    finally:
        file.unlink()


def test_the_schema_file_is_what_the_models_say() -> None:
    written = json.loads((MANIFESTS / "schema.json").read_text(encoding="utf-8"))
    assert written == manifest.json_schema(), "run: python -m comfy_depot verify --write-schema"


@pytest.mark.parametrize("file", sorted(MANIFESTS.glob("*_models.json")), ids=lambda file: file.name)
def test_a_shipped_manifest_has_no_mistake(file: Path) -> None:
    reading = read_manifest(file)
    assert reading.entries and reading.problems == ()


@pytest.mark.parametrize("name", list(manifest.EntryForm.model_fields))
def test_every_field_stands_in_the_description_of_the_format(name: str) -> None:
    assert f"`{name}`" in (MANIFESTS / "README.md").read_text(encoding="utf-8")
