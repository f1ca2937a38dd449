"""What node packs add to the web page, and the descriptions of their nodes."""

import asyncio
import json
import time
from types import SimpleNamespace

import folder_paths
import nodes
from app.routes import object_info
from comfy_api.latest import ComfyAPI, io


def add_pack(base, name="pack"):
    folder = base / "custom_nodes" / name
    folder.mkdir()
    return folder


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


async def test_every_script_of_the_page_and_of_the_packs_is_listed_and_served(connect, base):
    web = add_pack(base) / "js"
    (web / "deep").mkdir(parents=True)
    (web / "a.js").write_text("let a = 1;")
    (web / "deep" / "b.js").write_text("")
    (web / "style.css").write_text("")
    nodes.EXTENSION_WEB_DIRS["my pack"] = str(web)
    client = await connect()
    scripts = await (await client.get("/api/extensions")).json()
    assert {"/extensions/core/widgetInputs.js", "/extensions/depot/depot.js"} <= set(scripts)
    assert [script for script in scripts if "pack" in script] == [
        "/extensions/my%20pack/a.js",
        "/extensions/my%20pack/deep/b.js",
    ]
    assert await (await client.get("/extensions/my%20pack/a.js")).text() == "let a = 1;"
    assert (await client.get("/extensions/my%20pack/none.js")).status == 404
    assert (await client.get("/extensions/core/widgetInputs.js")).status == 200
    assert (await client.get("/extensions/depot/depot.js")).status == 200
    assert (await client.get("/extensions/my%20pack/..%2F..%2Fsecret")).status == 404


async def test_translations_of_all_packs_are_merged(client, base):
    first, second = add_pack(base, "a"), add_pack(base, "b")
    write_json(first / "locales/en/main.json", {"title": "A", "menu": {"x": 1}})
    write_json(first / "locales/en/nodeDefs.json", {"Node": {"display_name": "N"}})
    write_json(second / "locales/en/main.json", {"menu": {"y": 2}})
    write_json(second / "locales/fr/commands.json", {"go": "va"})
    (second / "locales/en/settings.json").write_text("{broken")
    assert await (await client.get("/api/i18n")).json() == {
        "en": {"title": "A", "menu": {"x": 1, "y": 2}, "nodeDefs": {"Node": {"display_name": "N"}}},
        "fr": {"commands": {"go": "va"}},
    }


async def test_example_workflows_are_listed_and_served(connect, base):
    pack = add_pack(base)
    write_json(pack / "example_workflows/one.json", {"nodes": []})
    write_json(pack / "examples/two.json", {})
    nodes.LOADED_MODULE_DIRS["pack"] = str(pack)
    client = await connect()
    assert await (await client.get("/workflow_templates")).json() == {"pack": ["one", "two"]}
    assert await (await client.get("/api/workflow_templates/pack/one.json")).json() == {"nodes": []}
    assert (await client.get("/api/workflow_templates/pack/two.json")).status == 200
    assert (await client.get("/api/workflow_templates/pack/none.json")).status == 404
    assert (await client.get("/api/workflow_templates/other/one.json")).status == 404


async def test_subgraphs_are_listed_without_and_fetched_with_their_data(client, base):
    pack = add_pack(base)
    write_json(pack / "subgraphs/blur.json", {"id": 1})
    (pack / "subgraphs/empty.json").write_text("")
    listed = await (await client.get("/api/global_subgraphs")).json()
    ((key, entry),) = [(k, e) for k, e in listed.items() if e["source"] == "custom_node"]
    assert entry == {"source": "custom_node", "name": "blur", "info": {"node_pack": "custom_nodes.pack"}}
    full = await (await client.get(f"/api/global_subgraphs/{key}")).json()
    assert full == {**entry, "data": '{"id": 1}'}
    answer = await client.get("/api/global_subgraphs/unknown")
    assert (answer.status, await answer.json()) == (200, None)


def replacement(**fields):
    entry = {"new_node_id": "New", "old_node_id": "Old", "old_widget_ids": None, "input_mapping": None,
             "output_mapping": None, **fields}  # fmt: skip
    return SimpleNamespace(**entry, as_dict=lambda: entry)


async def test_replaced_nodes_are_told_and_replaced_in_prompts(client, echo):
    manager = client.prompt_server.node_replace_manager
    entry = replacement(
        new_node_id="Echo",
        input_mapping=[{"new_id": "text", "old_id": "words"}, {"new_id": "loud", "set_value": True}],
        output_mapping=[{"old_idx": 1, "new_idx": 0}],
    )
    manager.register(entry)
    manager.register(entry)
    assert await (await client.get("/api/node_replacements")).json() == {"Old": [entry.as_dict()]}
    prompt = {
        "1": {"class_type": "Old", "inputs": {"words": "hi", "gone": 3}, "_meta": {"title": "T"}},
        "2": {"class_type": "Echo", "inputs": {"text": ["1", 1]}},
    }
    manager.apply_replacements(prompt)
    assert prompt == {
        "1": {"class_type": "Echo", "inputs": {"text": "hi", "loud": True}, "_meta": {"title": "T"}},
        "2": {"class_type": "Echo", "inputs": {"text": ["1", 0]}},
    }


async def test_nodes_that_exist_or_have_no_successor_stay(client, echo):
    manager = client.prompt_server.node_replace_manager
    manager.register(replacement(old_node_id="Echo", new_node_id="Echo"))
    manager.register(replacement(old_node_id="Old", new_node_id="Missing"))
    assert manager.has_replacement("Old") and not manager.has_replacement("Other")
    prompt = {
        "1": {"class_type": "Echo", "inputs": {}},
        "2": {"class_type": "Old", "inputs": {}},
        "3": "rubbish",
        "4": {"class_type": {}, "inputs": {}},
    }
    before = json.loads(json.dumps(prompt))
    manager.apply_replacements(prompt)
    assert prompt == before


async def test_a_node_is_described_as_clients_expect(client, echo):
    echo.RELATIVE_PYTHON_MODULE = "custom_nodes.pack"
    described = await (await client.get("/api/object_info/Echo")).json()
    assert described == {
        "Echo": {
            "input": {"required": {"text": ["STRING", {"default": ""}]}, "hidden": {"id": "UNIQUE_ID"}},
            "input_order": {"required": ["text"], "hidden": ["id"]},
            "is_input_list": False,
            "output": ["STRING"],
            "output_is_list": [False],
            "output_name": ["STRING"],
            "name": "Echo",
            "display_name": "Echo a text",
            "description": "Says its text.",
            "python_module": "custom_nodes.pack",
            "category": "test",
            "output_node": True,
            "has_intermediate_output": False,
            "search_aliases": [],
        }
    }
    del echo.RELATIVE_PYTHON_MODULE
    assert await (await client.get("/object_info/Unknown")).json() == {}


async def test_the_optional_marks_of_a_node_are_told(client, base):
    class Marked:
        INPUT_TYPES = classmethod(lambda cls: {"required": {}})
        RETURN_TYPES = ("A", "B")
        RETURN_NAMES = ("first", "second")
        OUTPUT_IS_LIST = (True, False)
        OUTPUT_TOOLTIPS = ("one", "two")
        DEPRECATED = EXPERIMENTAL = DEV_ONLY = API_NODE = True
        SEARCH_ALIASES = ["alias"]

    nodes.NODE_CLASS_MAPPINGS["Marked"] = Marked
    info = (await (await client.get("/object_info/Marked")).json())["Marked"]
    assert info["output_name"] == ["first", "second"] and info["output_is_list"] == [True, False]
    assert info["output_tooltips"] == ["one", "two"] and info["search_aliases"] == ["alias"]
    assert info["category"] == "sd" and info["output_node"] is False
    assert all(info[key] is True for key in ("deprecated", "experimental", "dev_only", "api_node"))


async def test_a_node_that_describes_itself_is_asked(client, base):
    nodes.NODE_CLASS_MAPPINGS["V3"] = type(
        "V3", (), {"GET_NODE_INFO_V1": classmethod(lambda cls: {"name": "V3"})}
    )
    assert await (await client.get("/object_info/V3")).json() == {"V3": {"name": "V3"}}


async def test_a_node_that_cannot_describe_itself_is_left_out_and_logged(client, echo, caplog):
    def raising(cls):
        raise RuntimeError("no such folder")

    def bad(name, inputs):
        nodes.NODE_CLASS_MAPPINGS[name] = type(name, (echo,), {"INPUT_TYPES": classmethod(inputs)})

    bad("Raises", raising)
    bad("NotJson", lambda cls: {"required": {"x": ("INT", {"default": object()})}})
    bad("Infinite", lambda cls: {"required": {"x": ("FLOAT", {"max": float("inf")})}})
    answer = await client.get("/api/object_info")
    described = await answer.json()
    assert answer.headers["Content-Type"].startswith("application/json")
    assert "Echo" in described and not {"Raises", "NotJson", "Infinite"} & set(described)
    for name in ("Raises", "NotJson", "Infinite"):
        assert f"Node class {name} is left out of /object_info." in caplog.text


async def test_packs_register_successors_by_the_node_interface(client):
    await ComfyAPI().node_replacement.register(io.NodeReplace("NewOne", "OldOne"))
    told = await (await client.get("/api/node_replacements")).json()
    assert told["OldOne"][0]["new_node_id"] == "NewOne"


LONG = [f"model {number:05} \"ü\".safetensors" for number in range(3000)]


async def test_long_lists_are_told_exactly_wherever_they_stand(client, echo):
    declared = {
        "required": {
            "plain": (LONG,), "with_options": (LONG, {"default": LONG[1]}), "longer": (["None", *LONG],),
            "v3": ("COMBO", {"options": LONG, "tooltip": "t"}), "numbers": (list(range(3000)),),
            "mixed": ([*LONG, 1, None],), "text": ("STRING", {"default": "x"}), "odd": LONG, "none": (),
        },
        "optional": {}, "hidden": {"prompt": "PROMPT"},
    }  # fmt: skip
    nodes.NODE_CLASS_MAPPINGS["Long"] = type("Long", (echo,), {
        "INPUT_TYPES": classmethod(lambda cls: declared), "RETURN_TYPES": (LONG, "STRING"),
    })  # fmt: skip
    for turn in range(2):
        text = await (await client.get("/object_info/Long")).text()
        assert text == json.dumps({"Long": object_info.node_info("Long")})
        declared["required"]["plain"] = ([*LONG[:7], f"added in turn {turn}", *LONG[7:]],)
    assert json.loads(await (await client.get("/object_info")).text())["Long"]["output"] == [LONG, "STRING"]


async def test_other_requests_are_served_while_nodes_are_described(client, echo):
    def slow(cls):
        time.sleep(0.01)
        return {"required": {}}

    for number in range(40):
        name = f"Slow{number}"
        nodes.NODE_CLASS_MAPPINGS[name] = type(name, (echo,), {"INPUT_TYPES": classmethod(slow)})
    asked = asyncio.create_task(client.get("/object_info"))
    answers = 0
    while not asked.done():
        assert (await client.get("/features")).status == 200
        answers += 1
    assert len(await (await asked).json()) >= 40 and answers > 5


async def test_a_folder_type_that_a_pack_has_broken_hides_no_node(client, echo, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "broken", None)
    assert "Echo" in await (await client.get("/object_info")).json()
