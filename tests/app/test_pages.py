"""The web page's files, and what the middlewares do to every answer."""

import gzip

import pytest

import nodes
from app.frontend_management import FrontendManager, required_versions, template_files
from app.middleware import deprecation
from app.middleware.cache_headers import cache_rule
from app.middleware.origin import is_loopback, same_host
from app.node_help import help_page


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


OLD_SCRIPTS = [
    ("/scripts/ui.js", True), ("/scripts/ui/components/button.js", True), ("/extensions/core/a.js", True),
    ("/scripts/app.js", False), ("/scripts/uisomething.js", False), ("/extensions/pack/core.js", False),
]  # fmt: skip


@pytest.mark.parametrize(("path", "is_old"), OLD_SCRIPTS)
async def test_a_script_of_the_old_interface_is_named_once_with_the_pack_that_imports_it(
    client, caplog, monkeypatch, path, is_old
):
    monkeypatch.setattr(deprecation, "NAMED", set())
    for _ in range(2):
        await client.get(path, headers={"Referer": "http://127.0.0.1/extensions/some_pack/js/a.js"})
    said = [record.message for record in caplog.records if path in record.message]
    assert len(said) == (1 if is_old else 0)
    assert all("node pack some_pack" in sentence and "Update" in sentence for sentence in said)


async def test_a_node_without_a_page_in_the_documentation_package_gets_one_written(client, echo, monkeypatch):
    monkeypatch.setattr("app.frontend_management.package_folder", lambda *names: None)
    answer = await client.get("/docs/Echo/en.md")
    assert (answer.status, answer.content_type) == (200, "text/markdown")
    assert (await answer.text()).splitlines() == [
        "# Echo a text", "", "Says its text.", "", "Category `test`, class `Echo`.", "",
        "## Inputs", "", "| input | values | required | limits | meaning |", "|---|---|---|---|---|",
        "| text | `STRING` | yes |  |  |", "",
        "## Outputs", "", "| output | type | meaning |", "|---|---|---|", "| STRING | `STRING` |  |",
    ]  # fmt: skip
    for missing in ("/docs/None/en.md", "/docs/Echo/en.html", "/docs/", "/docs/Echo/../../server.py"):
        assert (await client.get(missing)).status == 404


async def test_pages_of_the_documentation_package_come_first(client, echo, monkeypatch, tmp_path):
    (tmp_path / "Echo").mkdir()
    (tmp_path / "Echo" / "en.md").write_text("official")
    monkeypatch.setattr("app.frontend_management.package_folder", lambda *names: str(tmp_path))
    assert await (await client.get("/docs/Echo/en.md")).text() == "official"
    assert (await client.get("/docs/Echo/xx.md")).status == 404  # the web page asks for en.md then


def test_a_help_page_keeps_hostile_texts_in_their_cells_and_shows_limits():
    page = help_page({
        "name": "N", "display_name": "N", "category": "c", "description": "",
        "input": {"required": {"a|b": ("INT", {"default": 1, "min": 0, "max": 9, "tooltip": "x | y\nz"})},
                  "optional": {"mode": (["p", "q"],), "many": ("COMBO", {"options": list("abcdefghij")})}},
        "output": ["IMAGE"], "output_name": ["image"], "output_tooltips": ["the picture"],
    })  # fmt: skip
    assert "| a\\|b | `INT` | yes | default 1, min 0, max 9 | x \\| y z |" in page
    assert "| mode | `p`, `q` | no |" in page and "`h` and 2 more | no |" in page
    assert "| image | `IMAGE` | the picture |" in page


async def test_a_page_can_be_written_about_every_built_in_node(client):
    for name in list(nodes.NODE_CLASS_MAPPINGS):
        assert (await client.get(f"/docs/{name}/en.md")).status == 200, name
