"""POST /upload/image and /upload/mask."""

import io
import json

import pytest
from aiohttp import FormData
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def form(body=b"bytes", filename="a.png", **fields):
    data = FormData(quote_fields=False)
    data.add_field("image", body, filename=filename, content_type="image/png")
    for key, value in fields.items():
        data.add_field(key, value)
    return data


def png(mode, colour, size=(4, 4), **texts):
    metadata = PngInfo()
    for key, value in texts.items():
        metadata.add_text(key, value)
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG", pnginfo=metadata)
    return file.getvalue()


async def test_an_upload_is_stored_in_input_and_named_in_the_answer(client, base):
    answer = await client.post("/api/upload/image", data=form(subfolder="pasted"))
    assert await answer.json() == {"name": "a.png", "subfolder": "pasted", "type": "input"}
    assert (base / "input" / "pasted" / "a.png").read_bytes() == b"bytes"


@pytest.mark.parametrize("kind", ["input", "temp", "output"])
async def test_the_form_chooses_the_folder(client, base, kind):
    assert (await (await client.post("/upload/image", data=form(type=kind))).json())["type"] == kind
    assert (base / kind / "a.png").exists()


async def test_the_same_bytes_keep_their_name_and_other_bytes_get_a_new_one(client, base):
    names = []
    for body in (b"one", b"one", b"two", b"two", b"three"):
        names.append((await (await client.post("/upload/image", data=form(body))).json())["name"])
    assert names == ["a.png", "a.png", "a (1).png", "a (1).png", "a (2).png"]
    assert sorted(file.name for file in (base / "input").iterdir()) == ["a (1).png", "a (2).png", "a.png"]


@pytest.mark.parametrize("yes", ["true", "1"])
async def test_overwrite_replaces_the_file(client, base, yes):
    await client.post("/upload/image", data=form(b"old"))
    answer = await client.post("/upload/image", data=form(b"new", overwrite=yes))
    assert (await answer.json())["name"] == "a.png"
    assert (base / "input" / "a.png").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"filename": "../a.png"}, "a name with dots"),
        ({"subfolder": "../../x"}, "a subfolder with dots"),
        ({"subfolder": "/tmp"}, "an absolute subfolder"),
        ({"type": "models"}, "a folder type that is none"),
        ({"filename": "."}, "the folder itself"),
    ],
)
async def test_uploads_cannot_leave_their_folder(client, base, fields, reason):
    answer = await client.post("/upload/image", data=form(**fields))
    assert answer.status == 400, reason
    assert await answer.text()
    assert not (base / "a.png").exists()


async def test_an_upload_cannot_go_through_a_link_that_leaves_the_folder(client, base, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (base / "input" / "link").symlink_to(elsewhere)
    assert (await client.post("/upload/image", data=form(subfolder="link"))).status == 400
    assert list(elsewhere.iterdir()) == []


async def test_a_form_without_a_picture_is_refused(client):
    data = FormData()
    data.add_field("overwrite", "true")
    answer = await client.post("/upload/image", data=data)
    assert answer.status == 400
    assert "needs a file" in await answer.text()


async def test_a_mask_becomes_the_alpha_of_its_original_and_metadata_is_kept(client, base):
    (base / "input" / "photo.png").write_bytes(png("RGB", (10, 20, 30), prompt="{}"))
    mask = png("RGBA", (0, 0, 0, 77))
    reference = json.dumps({"filename": "photo.png", "type": "input", "subfolder": ""})
    answer = await client.post(
        "/upload/mask", data=form(mask, "painted.png", original_ref=reference, subfolder="clipspace")
    )
    assert await answer.json() == {"name": "painted.png", "subfolder": "clipspace", "type": "input"}
    with Image.open(base / "input" / "clipspace" / "painted.png") as picture:
        assert picture.getpixel((0, 0)) == (10, 20, 30, 77)
        assert picture.text == {"prompt": "{}"}


@pytest.mark.parametrize(
    ("reference", "status"),
    [
        ("", 400),
        ("[]", 400),
        ('{"filename": "../x.png"}', 400),
        ('{"filename": "none.png"}', 404),
        ('{"filename": "x.png", "subfolder": "../.."}', 403),
    ],
)
async def test_a_mask_needs_an_original_inside_the_folders(client, reference, status):
    answer = await client.post("/upload/mask", data=form(png("RGBA", 0), original_ref=reference))
    assert answer.status == status


async def test_a_mask_that_is_no_picture_is_refused(client, base):
    (base / "output" / "photo.png").write_bytes(png("RGB", 0))
    answer = await client.post(
        "/upload/mask", data=form(b"no picture", original_ref='{"filename": "photo.png"}')
    )
    assert answer.status == 400
    assert "not a picture" in await answer.text()


async def test_an_upload_larger_than_the_limit_is_refused(connect):
    client = await connect(max_upload_size=0.001)
    answer = await client.post("/upload/image", data=form(b"x" * 5000))
    assert answer.status == 413
    assert (await (await client.get("/features")).json())["max_upload_size"] == 1049


async def post_raw(client, part, path="/upload/image"):
    """Send one part of a form as it stands."""
    headers = {"Content-Type": "multipart/form-data; boundary=X"}
    return await client.post(path, data=b"--X\r\n" + part + b"\r\n--X--\r\n", headers=headers)


@pytest.mark.parametrize(
    "head", [b'filename="\x00a.png"', b'filename="a\x1b.png"', b'filename="a\xff.png"', b'filename=""']
)
async def test_a_name_that_cannot_be_spoken_of_is_refused(client, base, head):
    part = b'Content-Disposition: form-data; name="image"; ' + head + b"\r\n\r\nbytes"
    answer = await post_raw(client, part)
    assert answer.status == 400 and await answer.text()
    assert list((base / "input").iterdir()) == []


async def test_a_body_that_is_no_form_is_refused(client):
    for content_type in ("multipart/form-data; boundary=X", "multipart/form-data"):
        answer = await client.post("/upload/image", data=b"garbage", headers={"Content-Type": content_type})
        assert answer.status == 400 and "no form" in await answer.text()


async def test_a_place_that_cannot_be_written_to_is_refused(client, base):
    (base / "input" / "a.png").write_bytes(b"a file")
    for wish in (form(subfolder="a.png"), form(filename="x" * 300)):
        answer = await client.post("/upload/image", data=wish)
        assert answer.status == 400 and "Choose another name or subfolder" in await answer.text()
    assert [file.name for file in (base / "input").iterdir()] == ["a.png"]


async def test_a_file_in_the_place_of_the_subfolder_is_refused(client):
    data = form()
    data.add_field("subfolder", b"x", filename="x")
    answer = await client.post("/upload/image", data=data)
    assert answer.status == 400 and "subfolder must be a text" in await answer.text()


async def test_a_mask_on_a_picture_that_would_fill_the_memory_is_refused(client, base, monkeypatch):
    (base / "input" / "a.png").write_bytes(png("RGB", 0, size=(90, 90)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    reference = json.dumps({"filename": "a.png", "type": "input"})
    answer = await client.post("/upload/mask", data=form(png("RGBA", 0), "m.png", original_ref=reference))
    assert answer.status == 400 and "exceeds limit" in await answer.text()
