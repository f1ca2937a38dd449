"""GET /view: the right bytes, and nothing else of the machine."""

import io

import pytest
from PIL import Image


def write_picture(path, mode="RGBA", colour=(255, 0, 0, 128), size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


async def opened(answer):
    return Image.open(io.BytesIO(await answer.read()))


async def test_view_sends_the_file_with_its_type_and_name(client, base):
    write_picture(base / "output" / "a.png")
    answer = await client.get("/api/view", params={"filename": "a.png"})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == 'filename="a.png"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert await answer.read() == (base / "output" / "a.png").read_bytes()


@pytest.mark.parametrize(
    "query",
    [
        {"filename": "b.png", "type": "input", "subfolder": "deep/er"},
        {"filename": "b.png [input]", "subfolder": "deep/er"},
    ],
)
async def test_view_looks_into_the_named_folder_and_subfolder(client, base, query):
    write_picture(base / "input" / "deep" / "er" / "b.png")
    assert (await client.get("/view", params=query)).status == 200


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ({}, 404, "no file name"),
        ({"filename": ""}, 400, "an empty file name"),
        ({"filename": "none.png"}, 404, "a file that is not there"),
        ({"filename": "/etc/passwd"}, 400, "an absolute name"),
        ({"filename": "../secret.txt"}, 400, "a name with dots"),
        ({"filename": "a.png", "type": "models"}, 400, "a folder type that is none"),
        ({"filename": "secret.txt", "subfolder": ".."}, 403, "a subfolder with dots"),
        ({"filename": "passwd", "subfolder": "/etc"}, 403, "an absolute subfolder"),
        ({"filename": "a.png\0.txt"}, 403, "a name with a zero byte"),
    ],
)
async def test_view_refuses_what_leads_elsewhere(client, base, query, status, reason):
    (base / "secret.txt").write_text("secret")
    answer = await client.get("/view", params=query)
    assert answer.status == status, reason


async def test_view_refuses_a_link_that_leaves_the_folder(client, base):
    (base / "secret.txt").write_text("secret")
    (base / "output" / "link.txt").symlink_to(base / "secret.txt")
    assert (await client.get("/view", params={"filename": "link.txt"})).status == 403


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.js", "a.xhtml", "a.xml", "a.css"])
async def test_files_that_could_run_as_a_page_are_downloads(client, base, name):
    (base / "output" / name).write_text("<script>alert(1)</script>")
    answer = await client.get("/view", params={"filename": name})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["Vary"] == "Sec-Fetch-Dest"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_an_svg_is_shown_where_a_picture_is_asked_for(client, base):
    (base / "output" / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    answer = await client.get("/view", params={"filename": "a.svg"}, headers={"Sec-Fetch-Dest": "image"})
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("wish", "kind"), [("webp;50", "WEBP"), ("jpeg;80", "JPEG"), ("gif", "WEBP"), ("jpeg", "JPEG")]
)
async def test_a_preview_is_a_webp_or_a_jpeg(client, base, wish, kind):
    write_picture(base / "output" / "a.png")
    picture = await opened(await client.get("/view", params={"filename": "a.png", "preview": wish}))
    assert (picture.format, picture.size) == (kind, (8, 6))


async def test_the_colour_channels_come_without_transparency(client, base):
    write_picture(base / "output" / "a.png")
    picture = await opened(await client.get("/view", params={"filename": "a.png", "channel": "rgb"}))
    assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", (255, 0, 0))


async def test_the_alpha_channel_comes_as_a_mask(client, base):
    write_picture(base / "output" / "a.png")
    picture = await opened(await client.get("/view", params={"filename": "a.png", "channel": "a"}))
    assert picture.getpixel((0, 0)) == (0, 0, 0, 128)


async def test_the_mask_of_an_opaque_picture_is_opaque(client, base):
    write_picture(base / "output" / "a.png", "RGB", (1, 2, 3))
    picture = await opened(await client.get("/view", params={"filename": "a.png", "channel": "a"}))
    assert picture.getpixel((0, 0)) == (0, 0, 0, 255)


async def test_a_preview_of_what_is_no_picture_says_so(client, base):
    (base / "output" / "a.txt").write_text("text")
    answer = await client.get("/view", params={"filename": "a.txt", "preview": "webp"})
    assert answer.status == 400
    assert "a.txt cannot be read as a picture" in await answer.text()


async def test_ranges_are_served(client, base):
    (base / "output" / "a.bin").write_bytes(bytes(range(100)))
    answer = await client.get("/view", params={"filename": "a.bin"}, headers={"Range": "bytes=10-19"})
    assert (answer.status, await answer.read()) == (206, bytes(range(10, 20)))


@pytest.mark.parametrize("wish", [{"preview": "webp;90"}, {"channel": "rgb"}, {"channel": "a"}])
async def test_a_picture_that_would_fill_the_memory_is_refused(client, base, monkeypatch, wish):
    write_picture(base / "output" / "a.png", size=(90, 90))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    answer = await client.get("/view", params={"filename": "a.png", **wish})
    assert answer.status == 400 and "exceeds limit" in await answer.text()
