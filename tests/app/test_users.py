"""/users, /settings and /userdata."""

import json
import os

import pytest


async def test_a_single_user_server_says_where_files_are_and_whether_there_are_any(client, base):
    assert await (await client.get("/users")).json() == {"storage": "server", "migrated": False}
    await client.post("/settings/a", json=1)
    assert await (await client.get("/api/users")).json() == {"storage": "server", "migrated": True}


QUIET = {"Comfy.Notification.ShowVersionUpdates": False}


async def test_settings_are_merged_and_kept(client, base):
    assert await (await client.get("/settings")).json() == QUIET
    assert (await client.post("/api/settings", json={"a": 1, "b": [2]})).status == 200
    assert (await client.post("/api/settings/c", json={"deep": True})).status == 200
    assert (await client.post("/api/settings/a", data="null")).status == 200
    assert await (await client.get("/api/settings")).json() == {
        "a": None,
        "b": [2],
        "c": {"deep": True},
        **QUIET,
    }
    assert await (await client.get("/settings/b")).json() == [2]
    assert await (await client.get("/settings/unknown")).json() is None
    stored = json.loads((base / "user/default/comfy.settings.json").read_text())
    assert stored == {"a": None, "b": [2], "c": {"deep": True}}


async def test_the_page_looks_for_no_news_unless_the_user_wants_it(client):
    (key,) = QUIET
    assert await (await client.get(f"/settings/{key}")).json() is False
    await client.post(f"/settings/{key}", json=True)
    assert await (await client.get("/settings")).json() == {key: True}


@pytest.mark.parametrize(
    ("path", "body"), [("/settings", "[1]"), ("/settings", "no json"), ("/settings/a", "no json")]
)
async def test_settings_that_are_not_json_are_refused(client, path, body):
    answer = await client.post(path, data=body)
    assert answer.status == 400
    assert "JSON" in await answer.text()


async def test_a_damaged_settings_file_means_the_defaults_and_an_error_in_the_log(client, base, caplog):
    (base / "user/default").mkdir()
    (base / "user/default/comfy.settings.json").write_text("{half")
    assert await (await client.get("/settings")).json() == QUIET
    assert "is not JSON" in caplog.text and "repair or delete it" in caplog.text


async def test_users_are_made_once_per_name_and_keep_their_own_settings(connect, base):
    client = await connect(multi_user=True)
    assert await (await client.get("/users")).json() == {"storage": "server", "users": {}}
    ann = await (await client.post("/users", json={"username": "Ann Lee!"})).json()
    bob = await (await client.post("/users", json={"username": "bob"})).json()
    assert ann.startswith("Ann-Lee-_")
    assert await (await client.get("/users")).json() == {
        "storage": "server",
        "users": {ann: "Ann Lee!", bob: "bob"},
    }
    await client.post("/settings/a", json=1, headers={"Comfy-User": ann})
    assert await (await client.get("/settings", headers={"Comfy-User": ann})).json() == {"a": 1, **QUIET}
    assert await (await client.get("/settings", headers={"Comfy-User": bob})).json() == QUIET
    assert json.loads((base / "user/users.json").read_text()) == {ann: "Ann Lee!", bob: "bob"}


@pytest.mark.parametrize(
    ("name", "error"),
    [("bob", "Duplicate username."), (" ", "username not provided"), ("__system", "cannot begin")],
)
async def test_bad_user_names_are_refused(connect, name, error):
    client = await connect(multi_user=True)
    await client.post("/users", json={"username": "bob"})
    answer = await client.post("/users", json={"username": name})
    assert answer.status == 400
    assert error in (await answer.json())["error"]


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b'{"username": 5}'])
async def test_a_body_that_names_no_user_is_refused(connect, body):
    client = await connect(multi_user=True)
    answer = await client.post("/users", data=body)
    assert answer.status == 400
    assert '{"username": text}' in (await answer.json())["error"]


@pytest.mark.parametrize("user", ["nobody", "__system", "../default"])
async def test_unknown_users_get_nothing(connect, user):
    client = await connect(multi_user=True)
    client.prompt_server.user_manager.users["__system"] = "system"
    headers = {"Comfy-User": user}
    assert (await client.get("/settings", headers=headers)).status == 401
    assert (await client.get("/userdata?dir=workflows", headers=headers)).status == 403
    assert (await client.get("/v2/userdata", headers=headers)).status == 403


async def test_a_file_is_stored_listed_read_moved_and_deleted(client, base):
    assert (await client.get("/userdata?dir=workflows")).status == 404
    answer = await client.post("/api/userdata/workflows%2Fa.json", data=b'{"nodes": []}')
    assert await answer.json() == "workflows/a.json"
    answer = await client.post("/api/userdata/workflows%2Fdeep%2Fb.json?full_info=true", data=b"{}")
    info = await answer.json()
    stored = os.stat(base / "user/default/workflows/deep/b.json")
    assert info == {
        "path": "workflows/deep/b.json",
        "size": 2,
        "modified": int(stored.st_mtime * 1000),
        "created": int(stored.st_ctime * 1000),
    }
    listed = "/userdata?dir=workflows"
    assert await (await client.get(listed)).json() == ["a.json"]
    assert await (await client.get(listed + "&recurse=true")).json() == ["a.json", "deep/b.json"]
    assert await (await client.get(listed + "&recurse=true&split=true")).json() == [
        ["a.json", "a.json"],
        ["deep/b.json", "deep", "b.json"],
    ]
    full = await (await client.get(listed + "&recurse=true&full_info=true")).json()
    assert [entry["path"] for entry in full] == ["a.json", "deep/b.json"]
    assert set(full[0]) == {"path", "size", "modified", "created"}
    answer = await client.get("/api/userdata/workflows%2Fa.json")
    assert await answer.json() == {"nodes": []}
    answer = await client.post("/userdata/workflows%2Fa.json/move/workflows%2Fc.json?overwrite=false")
    assert await answer.json() == "workflows/c.json"
    assert (await client.delete("/userdata/workflows%2Fc.json")).status == 204
    assert await (await client.get(listed)).json() == []


async def test_the_tree_lists_folders_first(client, base):
    assert await (await client.get("/v2/userdata")).json() == []
    for name in ("z.json", "workflows%2Fa.json"):
        await client.post(f"/userdata/{name}", data=b"{}")
    entries = await (await client.get("/v2/userdata")).json()
    assert [(entry["type"], entry["path"]) for entry in entries] == [
        ("directory", "workflows"),
        ("file", "workflows/a.json"),
        ("file", "z.json"),
    ]
    assert entries[2]["size"] == 2 and isinstance(entries[2]["modified"], float)
    assert [e["name"] for e in await (await client.get("/v2/userdata?path=workflows")).json()] == ["a.json"]
    assert (await client.get("/v2/userdata?path=none")).status == 404
    assert (await client.get("/v2/userdata?path=z.json")).status == 400
    assert (await client.get("/v2/userdata?path=..%2F..")).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/userdata", 400),
        ("GET", "/userdata?dir=..%2F..", 403),
        ("GET", "/userdata/none.json", 404),
        ("GET", "/userdata/..%2F..%2Fsecret", 403),
        ("POST", "/userdata/..%2F..%2Fsecret", 403),
        ("DELETE", "/userdata/..%2F..%2Fsecret", 403),
        ("POST", "/userdata/a.json?overwrite=false", 409),
        ("POST", "/userdata/a.json/move/b.json?overwrite=false", 409),
        ("POST", "/userdata/a.json/move/..%2F..%2Fb.json", 403),
        ("POST", "/userdata/none.json/move/b.json", 404),
    ],
)
async def test_userdata_refuses(client, method, path, status):
    for name in ("a.json", "b.json"):
        await client.post(f"/userdata/{name}", data=b"{}")
    assert (await client.request(method, path)).status == status


@pytest.mark.parametrize(
    "path",
    ["x" * 300, "file%2Fbelow", "folder"] + [f"file/move/{to}" for to in ("x" * 300, "folder", "file%2Fx")],
)
async def test_a_name_that_cannot_be_written_is_refused(client, path):
    for name in ("file", "folder%2Ffile"):
        await client.post(f"/userdata/{name}", data=b"{}")
    answer = await client.post(f"/userdata/{path}", data=b"{}")
    assert answer.status == 400
    assert "Choose another name" in await answer.text()
    assert await (await client.get("/userdata/file")).read() == b"{}"


@pytest.mark.parametrize(
    ("name", "content_type", "disposition"),
    [
        ("user.css", "text/css", "inline"),
        ("other.css", "application/octet-stream", "attachment"),
        ("page.html", "application/octet-stream", "attachment"),
        ("a.json", "application/json", "attachment"),
    ],
)
async def test_userdata_never_runs_as_a_page(client, name, content_type, disposition):
    await client.post(f"/userdata/{name}", data=b"x")
    headers = (await client.get(f"/userdata/{name}")).headers
    assert (headers["Content-Type"], headers["Content-Disposition"]) == (content_type, disposition)
    assert headers["X-Content-Type-Options"] == "nosniff"
