"""Inputs that a prompt names by URL or brings along. The origins are real."""

import asyncio
import base64
import contextlib
import io
import os
import socket
import threading
import time

import pytest

import folder_paths
import nodes
from app import guarded_http, url_inputs
from app.guarded_http import Hosts, RefusedError, shown
from app.url_inputs import FetchError, Wanted
from comfy import cli_args
from tests.app.test_v2_jobs import submit
from tests.fakes import running as fakes
from tests.fakes.origin import Origin
from tests.fakes.running import running


def png(colour=(255, 0, 0)):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0"


def taking(flag):
    """A node with one upload of this kind."""

    class Take(fakes.Copy):
        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"image": ([], {flag: True})}, "optional": {"text": ("STRING", {})}}

        def copy(self, image, text=""):
            return super().copy(image)

    return Take


@pytest.fixture
def origin():
    with Origin() as origin:
        yield origin


@pytest.fixture
async def start(connect):
    """A function that gives a client of a server that may ask this machine."""
    nodes.NODE_CLASS_MAPPINGS.update(
        fakes.NODES, Take=taking("image_upload"), Hear=taking("audio_upload"), See=taking("video_upload"),
        Any=taking("file_upload"),
    )  # fmt: skip

    async def begin(hosts=("127.0.0.1",), **options):
        return await connect(input_hosts=hosts, **options)

    return begin


def graph(value, class_type="Take", **more):
    return {"1": {"class_type": class_type, "inputs": {"image": value, **more}}}


async def post(client, value, class_type="Take", **fields):
    answer = await client.post("/prompt", json={"prompt": graph(value, class_type), **fields})
    return answer.status, await answer.json()


def queued(client):
    """The value of the input in the last prompt that waits."""
    return client.prompt_server.prompt_queue.get_current_queue()[1][-1][2]["1"]["inputs"]["image"]


def stored():
    folder = os.path.join(folder_paths.get_input_directory(), "assets")
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def details(body):
    (error,) = body["node_errors"]["1"]["errors"]
    assert error["type"] == body["error"]["type"] == "input_not_fetched"
    assert error["extra_info"]["input_name"] == "image"
    return error["details"]


# -- what works --------------------------------------------------------------------------------------------


async def test_a_picture_is_fetched_before_the_prompt_waits_and_is_called_by_its_content(start, origin):
    from blake3 import blake3

    client = await start()
    status, body = await post(client, origin.put("/some/photo.jpeg", png()) + "?x=1")
    assert status == 200, body
    assert queued(client) == f"assets/{blake3(png()).hexdigest()}.png"  # by its bytes, not by its name
    with open(os.path.join(folder_paths.get_input_directory(), queued(client)), "rb") as file:
        assert file.read() == png()


async def test_jobs_of_the_v2_interface_fetch_too(start, origin):
    client = await start()
    status, job = await submit(client, graph(origin.put("/photo.png", png())))
    assert status == 201, job
    with running(client.prompt_server):
        while not await (await client.get(f"/history/{job['id']}")).json():
            await asyncio.sleep(0.02)
    assert stored() == [queued_name for queued_name in stored() if queued_name.endswith(".png")] != []


async def test_a_url_that_two_nodes_name_is_fetched_once(start, origin):
    client = await start()
    url = origin.put("/photo.png", png())
    prompt = {**graph(url), "2": {"class_type": "Take", "inputs": {"image": url}}}
    assert (await client.post("/prompt", json={"prompt": prompt})).status == 200
    assert len(origin.hits("/photo.png")) == 1


async def test_content_that_is_swapped_behind_a_url_is_another_file(start, origin):
    client = await start()
    url = origin.put("/photo.png", png())
    await post(client, url)
    first = queued(client)
    origin.put("/photo.png", png((0, 0, 255)))
    await post(client, url)
    assert queued(client) != first and len(stored()) == 2
    with open(os.path.join(folder_paths.get_input_directory(), first), "rb") as file:
        assert file.read() == png()


async def test_pictures_come_along_as_data_urls_and_bare_base64(start):
    client = await start(hosts="off")  # nobody is asked
    text = base64.b64encode(png()).decode()
    for value in (f"data:image/png;base64,{text}", text, text[:40] + "\n" + text[40:],
                  "data:," + "".join(f"%{byte:02x}" for byte in png())):
        status, body = await post(client, value)
        assert status == 200, body
    assert len(stored()) == 1


async def test_sounds_videos_and_shapes_are_taken_by_their_fields(start, origin):
    client = await start()
    mp4 = b"\0\0\0 ftypisom" + b"\0" * 100
    for path, body, class_type, ending in (
        ("/a.bin", WAV, "Hear", ".wav"), ("/b", mp4, "See", ".mp4"), ("/c", mp4, "Hear", ".mp4"),
        ("/d.gif", b"GIF89a" + b"\0" * 60, "See", ".gif"), ("/e.obj", b"v 0 0 0\n", "Any", ".obj"),
    ):  # fmt: skip
        status, answer = await post(client, origin.put(path, body), class_type)
        assert status == 200 and queued(client).endswith(ending), (path, answer)


async def test_other_fields_may_hold_urls(start):
    client = await start(hosts="off")
    prompt = graph("data:;base64," + base64.b64encode(png()).decode(), text="https://example.com/x.png")
    assert (await client.post("/prompt", json={"prompt": prompt})).status == 200
    (item,) = client.prompt_server.prompt_queue.get_current_queue()[1]
    assert item[2]["1"]["inputs"]["text"] == "https://example.com/x.png"


async def test_names_of_files_stay_names(start, base):
    client = await start(hosts="off")
    (base / "input" / ("a" * 80)).write_bytes(png())
    for value in ("missing.png", "a" * 80):
        _, body = await post(client, value)
        assert body.get("error", {}).get("type") != "input_not_fetched", value


async def test_the_client_hears_how_far_a_download_is(start, origin):
    client = await start()
    async with client.ws_connect("/ws?clientId=me") as socket:
        await socket.receive_json()
        await post(client, origin.put("/photo.png", png()) + "?token=SECRET", client_id="me", prompt_id="p")
        while (message := await socket.receive_json())["type"] != "input_progress":
            pass
    data = message["data"]
    assert data["prompt_id"] == "p" and data["node"] == "1" and data["max"] == len(png()) >= data["value"] > 0
    assert data["url"].endswith("/photo.png")


# -- what is refused ---------------------------------------------------------------------------------------


async def test_this_machine_and_its_network_are_not_asked(start, origin):
    client = await start(hosts="any")
    url = origin.put("/photo.png", png())
    for value in (url, url.replace("127.0.0.1", "localhost"), "http://169.254.169.254/x", "http://[::1]:1/x",
                  "http://0.0.0.0:1/x", "http://2130706433:1/x"):
        status, body = await post(client, value)
        assert status == 400 and "not public" in details(body), value
    assert "--input-hosts" in details(body) and origin.hits() == [] and stored() == []


async def test_a_redirect_leads_nowhere_else(start, origin):
    with Origin() as inner:
        client = await start(hosts=(f"127.0.0.1:{origin.port}",))
        secret = inner.put("/secret.png", png())
        status, body = await post(client, origin.put("/photo.png", b"", redirect_to=secret))
        assert status == 400 and "not among the hosts of --input-hosts" in details(body)
        assert inner.hits() == []
        onward = origin.put("/onward.png", png())
        assert (await post(client, origin.put("/good.png", b"", redirect_to=onward)))[0] == 200
        loop = origin.put("/loop", b"", redirect_to=f"{origin.url}/loop")
        assert "more than 5 redirects" in details((await post(client, loop))[1])


async def test_private_hosts_that_the_depot_may_ask_are_asked(start, origin):
    client = await start(hosts="any", depot_allow_hosts=("127.0.0.1",))
    assert (await post(client, origin.put("/photo.png", png())))[0] == 200


async def test_hosts_that_are_not_in_the_list_and_no_hosts_at_all(start, origin):
    url = origin.put("/photo.png", png())
    for hosts, text in ((("example.com",), "not among the hosts"), ("off", "--input-hosts off")):
        client = await start(hosts=hosts)
        status, body = await post(client, url)
        assert status == 400 and text in details(body)
    assert origin.hits() == []


async def test_what_is_too_large_is_refused_with_and_without_a_size(start, origin):
    client = await start(max_input_size=0.001)
    big = png() + b"x" * 5000
    for path, known in (("/known.png", True), ("/unknown.png", False)):
        status, body = await post(client, origin.put(path, big, length_known=known))
        assert status == 400 and "more than 1,048 bytes" in details(body)
        assert "--max-input-size" in details(body)
    status, body = await post(client, "data:image/png;base64," + base64.b64encode(big).decode())
    assert status == 400 and "more than 1,048 bytes" in details(body)
    assert stored() == []


async def test_what_the_field_does_not_take_is_refused(start, origin):
    client = await start()
    page = b"<!DOCTYPE html><title>log in</title>"
    for body, class_type, text in (
        (page, "Take", "a web page"), (WAV, "Take", "audio/wav"), (png(), "Hear", "image/png"),
        (b"plain", "Take", "unknown"), (b"", "Take", "unknown"), (page, "Any", "a web page"),
    ):  # fmt: skip
        status, answer = await post(client, origin.put("/x.png", body, content_type="image/png"), class_type)
        assert status == 400 and text in details(answer), (body, answer)
    assert stored() == []


async def test_what_breaks_off_or_is_not_there_is_refused(start, origin):
    client = await start()
    url = origin.put("/cut.png", png() + b"x" * 100_000, truncate_at=50_000)
    assert "of 100,075 bytes" in details((await post(client, url))[1])
    assert "404" in details((await post(client, f"{origin.url}/nothing.png"))[1])
    assert "cannot be reached" in details((await post(client, "http://127.0.0.1:1/x.png"))[1])
    assert stored() == []


async def test_bad_data_urls_are_refused(start):
    client = await start()
    for value, text in (("data:image/png;base64", "no comma"), ("data:image/png;base64,!!", "base64"),
                        ("data:image/png;base64,aGVsbG8=", "unknown")):
        status, body = await post(client, value)
        assert status == 400 and text in details(body), value


@contextlib.contextmanager
def dripping(head):
    """A server that sends `head` and then a byte now and then."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ends = threading.Event()

        def serve():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(head)
                while not ends.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
        ends.set()
        thread.join(5)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_an_origin_that_drips_has_no_more_than_its_time(start, head):
    client = await start(input_timeout=0.5)
    with dripping(head) as url:
        began = time.monotonic()
        status, body = await post(client, url)
    assert status == 400 and time.monotonic() - began < 5
    assert "in time" in details(body) or "no answer" in details(body)


async def test_too_many_urls_are_refused_before_one_is_fetched(start, origin):
    client = await start()
    prompt = {str(n): {"class_type": "Take", "inputs": {"image": f"{origin.url}/{n}"}} for n in range(33)}
    answer = await client.post("/prompt", json={"prompt": prompt})
    assert answer.status == 400 and "33 inputs; 32 may be" in (await answer.json())["error"]["details"]
    assert origin.hits() == []


async def test_a_url_with_a_token_is_shown_without_it(start, origin, caplog):
    client = await start()
    caplog.set_level("INFO")
    _, body = await post(client, f"{origin.url}/x.png?token=SECRET")
    assert "SECRET" not in str(body)
    await post(client, origin.put("/y.png", png()) + "?token=SECRET")
    assert "SECRET" not in caplog.text and "SECRET" not in await (await client.get("/queue")).text()


# -- options ---------------------------------------------------------------------------------------------


def test_the_options_that_say_whom_to_ask(capsys):
    given = ["--input-hosts", "A.example, b:80", "--webhook-hosts", "OFF"]
    parsed = cli_args.build_parser().parse_args(given)
    assert (parsed.input_hosts, parsed.webhook_hosts) == (("a.example", "b:80"), "off")
    assert cli_args.build_parser().parse_args([]).input_hosts == "any"
    for option, value, text in (
        ("--input-hosts", "http://x/", "not any, off, or hosts"), ("--webhook-hosts", ",", "not any, off"),
        ("--max-input-size", "0", "number of MB"), ("--input-timeout", "x", "number of seconds"),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            cli_args.build_parser().parse_args([option, value])
        assert text in capsys.readouterr().err


# -- parts -------------------------------------------------------------------------------------------------


def test_only_foreign_values_are_looked_at():
    foreign = ("http://x", "HTTPS://x", "data:,x", base64.b64encode(png()).decode())
    assert all(map(url_inputs.looks_foreign, foreign))
    names = ("x.png", "", 7, None, ["1", 0], "httpx", "a b.png" * 20, "ftp://x", "QUJD" * 20, "a" * 65)
    assert not any(map(url_inputs.looks_foreign, names))


def test_long_texts_are_looked_at_quickly():
    began = time.monotonic()
    for text in (" " * 10**6 + "!", "a" * 10**6 + "!", "word " * 10**5):
        assert not url_inputs.looks_foreign(text)
    assert time.monotonic() - began < 1


def test_classes_that_cannot_be_asked_are_left_to_validation(base):
    class Broken:
        @classmethod
        def INPUT_TYPES(cls):
            raise RuntimeError("on purpose")

    nodes.NODE_CLASS_MAPPINGS["Broken"] = Broken
    for prompt in (graph("http://x/", "Broken"), graph("http://x/", "Nothing"), {"1": 7},
                   {"1": {"inputs": 7}}, {"1": {"inputs": {"image": "http://x/"}}}):
        assert list(url_inputs.find_wanted(prompt)) == []


def test_values_in_messages_are_short_and_without_secrets():
    assert shown("https://user:pw@host/a?b#c") == "https://host/a"
    assert len(shown("https://host/" + "a" * 999)) == 201
    wanted = Wanted("1", "Take", "image", "data:image/png;base64," + "A" * 999, frozenset())
    assert len(wanted.shown) == 41


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://u@x", "http://x:0x50/", "http://\ud800/", "x"])
def test_addresses_that_are_none(url):
    with pytest.raises(RefusedError):
        Hosts("--input-hosts").check(url)


def test_https_is_never_left_for_http(monkeypatch):
    class Answer:
        status, headers = 302, {"location": "http://example.com/"}

    class Connection:
        sock = None

        def close(self):
            pass

    monkeypatch.setattr(guarded_http, "_connect", lambda *_: Connection())
    monkeypatch.setattr(guarded_http, "_ask", lambda *_: Answer())
    with pytest.raises(RefusedError, match="without encryption"):
        with guarded_http.request("GET", "https://example.com/", Hosts("x"), seconds=5):
            pass


def test_a_full_disk_is_said(base, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(url_inputs.Receiver, "write", full)
    wanted = Wanted("1", "Take", "image", "data:,x", frozenset({"image"}))
    with pytest.raises(FetchError, match="No space left on device"):
        url_inputs.take(wanted, lambda *_: None)
    assert stored() == []
