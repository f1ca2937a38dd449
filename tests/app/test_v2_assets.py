"""`/api/v2/assets`: uploads by content, ranges, deletion, errors."""

import os

import pytest
from aiohttp import FormData

import folder_paths
from app.content_kinds import kind_of

PNG = b"\x89PNG\r\n\x1a\n and the rest of a picture"


def digest(content):
    from blake3 import blake3

    return "blake3:" + blake3(content).hexdigest()


async def upload(client, content=PNG, file_path="photo.png", **fields):
    """(status, body) of an upload; a field of None is left out."""
    form = FormData(default_to_multipart=True)
    for name, value in {"file_path": file_path, **fields}.items():
        if value is not None:
            form.add_field(name, value)
    if content is not None:
        form.add_field("file", content, filename="photo.png", content_type="image/png")
    answer = await client.post("/api/v2/assets", data=form)
    return answer.status, await answer.json()


async def test_an_upload_is_called_by_its_content_and_can_be_fetched(client):
    status, asset = await upload(client)
    assert status == 201 and asset["created_new"] is True
    assert (asset["hash"], asset["size_bytes"]) == (digest(PNG), len(PNG))
    assert (asset["content_type"], asset["file_path"]) == ("image/png", "photo.png")
    path = os.path.join(folder_paths.get_input_directory(), "assets", digest(PNG)[7:] + ".png")
    assert os.path.exists(path)
    again = await (await client.get(f"/api/v2/assets/{asset['id']}")).json()
    assert again == {**{k: v for k, v in asset.items() if k != "created_new"},
                     "url_expires_at": again["url_expires_at"]}
    answer = await client.get(f"/api/v2/assets/{asset['id']}/content")
    assert (answer.status, answer.content_type, await answer.read()) == (200, "image/png", PNG)


async def test_the_same_bytes_are_one_asset(client):
    _, first = await upload(client)
    status, second = await upload(client, file_path="other.png", tags="x")
    assert (status, second["created_new"], second["id"]) == (200, False, first["id"])
    answer = await client.post("/api/v2/assets/from-hash", json={"hash": digest(PNG)})
    assert (answer.status, (await answer.json())["id"]) == (200, first["id"])
    assert (await client.head(f"/api/v2/assets/by-hash/{digest(PNG)}")).status == 200


async def test_unknown_bytes_are_404(client):
    unknown = digest(b"other")
    assert (await client.head(f"/api/v2/assets/by-hash/{unknown}")).status == 404
    answer = await client.post("/api/v2/assets/from-hash", json={"hash": unknown})
    assert (answer.status, (await answer.json())["error"]["code"]) == (404, "blob_not_found")
    for body in ({}, {"hash": 7}, {"hash": None}):
        answer = await client.post("/api/v2/assets/from-hash", json=body)
        assert (answer.status, (await answer.json())["error"]["code"]) == (422, "invalid_request")


async def test_a_part_of_the_bytes_can_be_fetched(client):
    _, asset = await upload(client)
    url = f"/api/v2/assets/{asset['id']}/content"
    answer = await client.get(url, headers={"Range": "bytes=1-3"})
    assert (answer.status, await answer.read()) == (206, PNG[1:4])
    assert answer.headers["Content-Range"] == f"bytes 1-3/{len(PNG)}"
    assert (await client.get(url, headers={"Range": f"bytes={len(PNG)}-"})).status == 416


async def test_a_deleted_asset_is_gone_with_its_file(client):
    _, asset = await upload(client)
    assert (await client.delete(f"/api/v2/assets/{asset['id']}")).status == 204
    assert os.listdir(os.path.join(folder_paths.get_input_directory(), "assets")) == []
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = await client.request(method, f"/api/v2/assets/{asset['id']}{path}")
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")
    assert (await client.head(f"/api/v2/assets/by-hash/{asset['hash']}")).status == 404


async def test_a_file_that_somebody_removed_can_be_sent_again(client):
    _, asset = await upload(client)
    os.unlink(os.path.join(folder_paths.get_input_directory(), "assets", digest(PNG)[7:] + ".png"))
    answer = await client.get(f"/api/v2/assets/{asset['id']}/content")
    assert (answer.status, (await answer.json())["error"]["code"]) == (404, "output_unavailable")
    assert (await client.head(f"/api/v2/assets/by-hash/{asset['hash']}")).status == 404
    status, again = await upload(client)
    assert (status, again["id"]) == (201, asset["id"])
    assert (await client.get(f"/api/v2/assets/{asset['id']}/content")).status == 200


async def test_a_file_that_somebody_changed_is_put_right(client):
    _, asset = await upload(client)
    path = os.path.join(folder_paths.get_input_directory(), "assets", digest(PNG)[7:] + ".png")
    await client.delete(f"/api/v2/assets/{asset['id']}")
    with open(path, "wb") as file:
        file.write(b"something else")
    await upload(client)
    with open(path, "rb") as file:
        assert file.read() == PNG


async def test_refused_uploads_say_why_and_leave_nothing(client):
    cases = [
        ({"content": None}, 422, "invalid_request", "no field file"),
        ({"file_path": None}, 422, "invalid_request", "file_path"),
        ({"file_path": "../x.png"}, 422, "invalid_request", "file_path"),
        ({"file_path": "/etc/x.png"}, 422, "invalid_request", "file_path"),
        ({"file_path": "a\\..\\x.png"}, 422, "invalid_request", "file_path"),
        ({"file_path": "x" * 401}, 422, "invalid_request", "file_path"),
        ({"file_path": "checkpoints/x.safetensors"}, 422, "invalid_request", "manifest"),
        ({"file_path": "models/x.safetensors"}, 422, "invalid_request", "manifest"),
        ({"expected_hash": digest(b"other")}, 409, "hash_mismatch", "expected_hash"),
        ({"tags": "x" * 20000}, 422, "invalid_request", "'tags'"),
    ]
    for fields, wanted_status, code, text in cases:
        status, body = await upload(client, **fields)
        assert (status, body["error"]["code"]) == (wanted_status, code), fields
        assert text in body["error"]["message"], fields
    answer = await client.post("/api/v2/assets", json={})
    assert (answer.status, (await answer.json())["error"]["code"]) == (422, "invalid_request")
    assert os.listdir(os.path.join(folder_paths.get_input_directory(), "assets")) == []


async def test_an_upload_over_the_limit_is_413_and_leaves_nothing(connect):
    client = await connect(max_upload_size=0.01)
    status, body = await upload(client, b"x" * 20_000)
    assert (status, body["error"]["code"]) == (413, "payload_too_large")
    assert os.listdir(os.path.join(folder_paths.get_input_directory(), "assets")) == []


async def test_an_upload_never_runs_as_a_page_of_this_server(client):
    _, asset = await upload(client, b"<script>alert(1)</script>", "x.html", content_type="text/html")
    answer = await client.get(f"/api/v2/assets/{asset['id']}/content")
    assert answer.content_type == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")


async def test_the_ending_of_a_file_is_harmless(client):
    for file_path, ending in (("x.P-G", ""), ("x", ""), (".png", ""), ("a.tar.GZ", ".gz")):
        _, asset = await upload(client, file_path.encode(), file_path)
        name = asset["hash"][7:] + ending
        assert os.path.exists(os.path.join(folder_paths.get_input_directory(), "assets", name)), file_path


@pytest.mark.parametrize(
    ("head", "family", "extension"),
    [
        (PNG, "image", ".png"), (b"\xff\xd8\xff\xe0", "image", ".jpg"), (b"GIF89a", "image", ".gif"),
        (b"RIFF\0\0\0\0WEBP", "image", ".webp"), (b"RIFF\0\0\0\0WAVE", "audio", ".wav"),
        (b"RIFF\0\0\0\0AVI ", "video", ".avi"), (b"\0\0\0 ftypisom", "video", ".mp4"),
        (b"\0\0\0 ftypM4A ", "audio", ".m4a"), (b"\0\0\0 ftypqt  ", "video", ".mov"),
        (b"\0\0\0 ftypavif", "image", ".avif"), (b"\x1aE\xdf\xa3 webm", "video", ".webm"),
        (b"\x1aE\xdf\xa3 matroska", "video", ".mkv"), (b"fLaC", "audio", ".flac"), (b"OggS", "audio", ".ogg"),
        (b"ID3\4", "audio", ".mp3"), (b"\xff\xfb\x90\0", "audio", ".mp3"), (b"glTF", "model", ".glb"),
        (b"BM\1\2\3\4\0\0\0\0", "image", ".bmp"), (b"\xef\xbb\xbf \n<!DOCTYPE html>", "page", ".html"),
    ],
)  # fmt: skip
def test_files_are_known_by_their_first_bytes(head, family, extension):
    assert kind_of(head)[:2] == (family, extension)


@pytest.mark.parametrize("head", [b"", b"{}", b"RIFF", b"plain text", b"\xff\xff\xff\xff", b"BMW is a car"])
def test_what_is_no_media_file_is_nothing(head):
    assert kind_of(head) is None


async def test_a_form_whose_headers_cannot_be_read_is_refused(client):
    body = b'--b\r\nContent-Disposition: form-data; name="\x05"\r\n\r\nx\r\n--b--\r\n'
    answer = await client.post(
        "/api/v2/assets", data=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status == 422
    assert "no proper form" in (await answer.json())["error"]["message"]
