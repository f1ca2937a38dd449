"""The web page's files, and what the middlewares do to every answer."""

import gzip

import pytest

from app.frontend_management import FrontendManager, required_versions, template_files
from app.middleware.cache_headers import cache_rule
from app.middleware.origin import is_loopback, same_host


async def test_the_root_is_the_official_web_page(client):
    answer = await client.get("/")
    assert "<title>ComfyUI</title>" in await answer.text()
    assert answer.headers["Cache-Control"] == "no-store, must-revalidate"
    assert (await client.get("/scripts/app.js")).headers["Cache-Control"] == "no-store"
    assert (await client.get("/none.js")).status == 404
    assert (await client.get("/../server.py")).status == 404


async def test_another_folder_can_be_the_web_page(connect, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    client = await connect(front_end_root=str(tmp_path))
    assert await (await client.get("/")).text() == "mine"


def test_a_missing_web_page_package_is_said_with_advice(monkeypatch):
    monkeypatch.setattr("app.frontend_management.package_folder", lambda *names: None)
    with pytest.raises(SystemExit, match="pip install -r requirements.txt"):
        FrontendManager.default_frontend_path()


async def test_templates_of_all_their_packages_are_served(client):
    assert "index.json" in template_files()
    assert isinstance(await (await client.get("/templates/index.json")).json(), list)
    assert (await client.get("/templates/none.json")).status == 404


def test_required_versions_come_from_the_requirements():
    assert required_versions()["comfyui-frontend-package"] == FrontendManager.get_required_frontend_version()


@pytest.mark.parametrize(
    ("path", "status", "rule"),
    [
        ("/assets/a.js", 200, "no-store"),
        ("/a.css", 200, "no-store"),
        ("/templates/index.json", 200, "no-store"),
        ("/templates/index.fr.json", 200, "no-store"),
        ("/templates/other.json", 200, None),
        ("/a.png", 200, "public, max-age=86400"),
        ("/a.webp", 404, "public, max-age=3600"),
        ("/a.jpg", 302, "no-cache"),
        ("/a.jpg", 304, None),
        ("/prompt", 200, None),
    ],
)
def test_cache_rules_by_kind_of_file(path, status, rule):
    assert cache_rule(path, status) == rule


async def test_a_missing_picture_may_be_remembered_for_an_hour(client):
    assert (await client.get("/none.png")).headers["Cache-Control"] == "public, max-age=3600"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example", "Host": "public.invalid"}, 200),
        ({}, 200),
    ],
)
async def test_pages_of_other_sites_cannot_call_this_machine(client, headers, status):
    assert (await client.get("/prompt", headers=headers)).status == status
    own = {"Origin": f"http://127.0.0.1:{client.port}"}
    assert (await client.post("/queue", json={}, headers=own)).status == 200


async def test_options_answers_empty(client):
    answer = await client.options("/prompt")
    assert (answer.status, await answer.text()) == (200, "")


@pytest.mark.parametrize("origin", ["*", "https://studio.example"])
async def test_the_cors_option_lets_other_pages_in(connect, origin):
    client = await connect(enable_cors_header=origin)
    foreign = {"Origin": "https://studio.example", "Sec-Fetch-Site": "cross-site"}
    for answer in (
        await client.get("/prompt", headers=foreign),
        await client.options("/prompt", headers=foreign),
    ):
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize(
    ("host", "origin", "same"),
    [
        ("a:80", "http://a:80", True),
        ("a:80", "http://a:81", False),
        ("a:80", "http://a", True),
        ("a", "http://a:81", True),
        ("a", "http://b", False),
        ("a:x", "http://a:80", False),
        ("A:80", "http://a:80", True),
        ("a:80", "null", False),
        ("a:80", "file://", False),
        ("[bad", "http://a", False),
        ("a", "http://[bad", False),
    ],
)
def test_hosts_are_compared_with_their_ports_where_both_have_one(host, origin, same):
    assert same_host(host, origin) is same


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("x.localhost", True), ("10.0.0.1", False),
     ("none.invalid", False), (None, False), ("localhost.", True), ("0.0.0.0", True), ("::", True),
     ("::ffff:127.0.0.1", True), ("::ffff:10.0.0.1", False), ("x" * 300, False), ("a\udc80", False)],
)  # fmt: skip
async def test_loopback_names(host, loopback):
    assert await is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "0.0.0.0:8188", "Origin": "http://evil.example"}, 403),
        ({"Host": "[::]:8188", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost.:8188", "Origin": "http://evil.example"}, 403),
        ({"Host": "[bad", "Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "studio.invalid", "Origin": "https://studio.invalid"}, 200),
        ({"Host": "10.0.0.1:8188", "Origin": "https://behind.a.proxy"}, 200),
    ],
)
async def test_no_name_of_this_machine_lets_foreign_pages_in(client, headers, status):
    assert (await client.get("/features", headers=headers)).status == status


async def test_answers_are_compressed_when_asked_for(connect):
    client = await connect(enable_compress_response_body=True)
    answer = await client.get("/features", headers={"Accept-Encoding": "gzip"}, auto_decompress=False)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert b"supports_preview_metadata" in gzip.decompress(await answer.read())
    plain = await client.get("/features", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers


async def test_the_page_is_kept_from_the_internet_when_asked_for(connect):
    client = await connect(disable_api_nodes=True)
    assert "connect-src 'self'" in (await client.get("/")).headers["Content-Security-Policy"]


async def test_routes_stand_bare_and_below_api_also_those_of_packs(connect):
    from aiohttp import web

    def add(server):
        @server.routes.get("/my_pack/hello")
        async def hello(request):
            return web.json_response("hello")

    client = await connect(add)
    for path in ("/my_pack/hello", "/api/my_pack/hello"):
        assert await (await client.get(path)).json() == "hello"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/assets"), ("POST", "/api/assets/seed"), ("GET", "/api/tags")]
)
async def test_assets_are_refused_in_the_agreed_form(client, method, path):
    answer = await client.request(method, path)
    assert answer.status == 503
    assert (await answer.json())["error"]["code"] == "SERVICE_DISABLED"
    assert (await client.get("/api/assetsomething")).status == 404
