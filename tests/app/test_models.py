"""Model lists, headers and covers."""

import base64
import io
import json
import struct

import pytest
from PIL import Image


def write_safetensors(path, metadata=None):
    header = json.dumps({} if metadata is None else {"__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def picture_bytes(colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


async def test_model_names_are_listed_by_folder(client, base):
    (base / "models/checkpoints/sub").mkdir()
    for name in ("b.safetensors", "a.ckpt", "sub/c.safetensors", "notes.txt"):
        (base / "models/checkpoints" / name).write_bytes(b"")
    assert await (await client.get("/models/checkpoints")).json() == [
        "a.ckpt",
        "b.safetensors",
        "sub/c.safetensors",
    ]
    kinds = await (await client.get("/api/models")).json()
    assert {"checkpoints", "loras", "vae", "custom_nodes"} <= set(kinds)
    assert (await client.get("/models/nothing")).status == 404


async def test_embeddings_are_listed_without_suffix(client, base):
    (base / "models/embeddings/style.pt").write_bytes(b"")
    assert await (await client.get("/api/embeddings")).json() == ["style"]


async def test_the_library_lists_folders_and_files_with_their_size_and_date(client, base):
    (base / "models/loras/x.safetensors").write_bytes(b"12345")
    folders = {entry["name"]: entry for entry in await (await client.get("/api/experiment/models")).json()}
    assert str(base / "models/loras") in folders["loras"]["folders"]
    assert ".safetensors" in folders["loras"]["extensions"]
    assert folders["diffusers"]["extensions"] == ["folder"]
    assert "custom_nodes" not in folders and "configs" not in folders
    (entry,) = await (await client.get("/api/experiment/models/loras")).json()
    assert (entry["name"], entry["pathIndex"], entry["size"]) == ("x.safetensors", 0, 5)
    assert isinstance(entry["modified"], float) and isinstance(entry["created"], float)
    assert (await client.get("/api/experiment/models/nothing")).status == 404


async def test_old_folder_names_still_work(client, base):
    (base / "models/unet").mkdir()
    (base / "models/unet/u.safetensors").write_bytes(b"")
    assert await (await client.get("/models/unet")).json() == ["u.safetensors"]
    (entry,) = await (await client.get("/experiment/models/unet")).json()
    assert entry["name"] == "u.safetensors"


async def test_a_model_that_is_still_to_be_fetched_is_listed_without_a_size(client, base, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_filename_list", lambda folder: ["far.safetensors"])
    files = await (await client.get("/experiment/models/loras")).json()
    assert files == [{"name": "far.safetensors", "pathIndex": 0}]


async def test_view_metadata_reads_the_header(client, base):
    write_safetensors(base / "models/loras/a.safetensors", {"ss_tag": "cat"})
    write_safetensors(base / "models/loras/plain.safetensors")
    (base / "models/loras/damaged.safetensors").write_bytes(b"\xff" * 20)
    (base / "models/loras/short.safetensors").write_bytes(b"123")

    async def get(name):
        return await client.get("/view_metadata/loras", params={"filename": name})

    assert await (await get("a.safetensors")).json() == {"ss_tag": "cat"}
    for name in (
        "plain.safetensors",
        "damaged.safetensors",
        "short.safetensors",
        "none.safetensors",
        "a.ckpt",
    ):
        assert (await get(name)).status == 404, name
    assert (await client.get("/view_metadata/loras")).status == 404


async def test_view_metadata_of_a_listed_model_that_is_not_there_yet_is_empty(client, base, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_filename_list", lambda folder: ["far.safetensors"])
    for folder, name, status in (("loras", "far", 200), ("loras", "none", 404), ("nowhere", "far", 404)):
        answer = await client.get(f"/view_metadata/{folder}", params={"filename": f"{name}.safetensors"})
        assert answer.status == status, (folder, name)
        assert status == 404 or await answer.json() == {}


async def test_a_cover_comes_from_a_picture_beside_the_model(client, base):
    write_safetensors(base / "models/loras/a.safetensors")
    (base / "models/loras/a.preview.png").write_bytes(picture_bytes())
    answer = await client.get("/experiment/models/preview/loras/0/a.safetensors")
    assert answer.headers["Content-Type"] == "image/webp"
    assert Image.open(io.BytesIO(await answer.read())).format == "WEBP"


async def test_a_cover_comes_from_the_header(client, base):
    covers = json.dumps([base64.b64encode(picture_bytes("blue")).decode()])
    write_safetensors(base / "models/loras/b.safetensors", {"ssmd_cover_images": covers})
    answer = await client.get("/api/experiment/models/preview/loras/0/b.safetensors")
    assert Image.open(io.BytesIO(await answer.read())).convert("RGB").getpixel((1, 1))[2] > 200


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("loras/0/none.safetensors", 404, "no such model"),
        ("loras/9/a.safetensors", 404, "no such place"),
        ("loras/x/a.safetensors", 400, "a place that is no number"),
        ("loras/0/", 400, "no name"),
        ("nothing/0/a.safetensors", 404, "no such folder"),
        ("loras/0/..%2F..%2Fsecret.png", 403, "a name that leaves the folder"),
        ("loras/0/broken.safetensors", 404, "a cover that is no picture"),
        ("loras/0/linked.safetensors", 403, "a cover that is a link out of the folder"),
    ],
)
async def test_covers_are_refused(client, base, path, status, reason):
    (base / "secret.png").write_bytes(picture_bytes())
    write_safetensors(base / "models/loras/broken.safetensors", {"ssmd_cover_images": "no json"})
    (base / "models/loras/broken.png").write_bytes(b"no picture")
    (base / "models/loras/linked.png").symlink_to(base / "secret.png")
    assert (await client.get(f"/experiment/models/preview/{path}")).status == status, reason
