"""Node packs are entered by ComfyUI's conventions, and a broken one stops nothing."""

import logging
import sys

import pytest

from comfy_execution import node_packs
from comfy_execution.node_packs import Registry, describe, find_packs, load_pack, load_packs

PACK = """
class Hello:
    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}
    def run(self):
        return ("hello",)
NODE_CLASS_MAPPINGS = {"Hello": Hello}
NODE_DISPLAY_NAME_MAPPINGS = {"Hello": "Say hello"}
WEB_DIRECTORY = "./js"
"""


@pytest.fixture
def registry():
    return Registry(classes={}, display_names={}, protected=frozenset({"LoadImage"}))


def write_pack(folder, name, source, **files):
    pack = folder / name
    pack.mkdir()
    (pack / "__init__.py").write_text(source)
    for file, text in files.items():
        (pack / file.replace("__", ".")).write_text(text)
    return pack


async def test_a_folder_with_mappings_becomes_nodes_with_their_module_and_web_directory(tmp_path, registry):
    pack = write_pack(tmp_path, "greeter", PACK)
    (pack / "js").mkdir()
    report = await load_pack(str(pack), registry)
    assert report.is_loaded and report.node_names == ("Hello",)
    assert registry.classes["Hello"]().run() == ("hello",)
    assert registry.classes["Hello"].RELATIVE_PYTHON_MODULE == "custom_nodes.greeter"
    assert registry.display_names == {"Hello": "Say hello"}
    assert registry.web_directories == {"greeter": str((pack / "js").resolve())}
    assert registry.module_directories == {"greeter": str(pack)}


async def test_a_single_file_is_a_pack(tmp_path, registry):
    (tmp_path / "one_file.py").write_text(PACK)
    assert (await load_pack(str(tmp_path / "one_file.py"), registry)).node_names == ("Hello",)
    assert registry.classes["Hello"].RELATIVE_PYTHON_MODULE == "custom_nodes.one_file"


async def test_relative_imports_work_inside_a_pack_whose_folder_name_has_a_dot(tmp_path, registry):
    write_pack(tmp_path, "v1.2", "from .parts import NODE_CLASS_MAPPINGS\n", parts__py=PACK)
    report = await load_pack(str(tmp_path / "v1.2"), registry)
    assert report.error is None
    assert any(name.endswith("v1_x_2.parts") for name in sys.modules)


async def test_a_pack_that_raises_is_reported_and_the_next_one_loads(tmp_path, registry, caplog):
    write_pack(tmp_path, "a_broken", "import a_module_that_is_nowhere\n")
    write_pack(tmp_path, "b_good", PACK)
    with caplog.at_level(logging.ERROR):
        broken, good = await load_packs([str(tmp_path)], registry)
    assert broken.error == "ModuleNotFoundError: No module named 'a_module_that_is_nowhere'"
    assert good.is_loaded and "Hello" in registry.classes
    assert "a_broken could not be loaded and is skipped" in caplog.text
    assert "(IMPORT FAILED)" in describe([broken, good]) and str(tmp_path / "a_broken") in describe([broken])


async def test_a_pack_that_exits_the_interpreter_is_skipped(tmp_path, registry):
    report = await load_pack(str(write_pack(tmp_path, "quitter", "import sys; sys.exit(3)\n")), registry)
    assert report.error == "SystemExit: 3"


async def test_a_pack_that_raises_what_is_no_exception_is_skipped(tmp_path, registry):
    """pytest.skip() at the top of a file does, for one."""
    source = "class Skipped(BaseException): ...\nraise Skipped('not here')\n"
    report = await load_pack(str(write_pack(tmp_path, "skipped", source)), registry)
    assert report.error == "Skipped: not here"


EXTENSION = """
from comfy_api.latest import ComfyExtension, io

LOADED = []

class Hello(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema("HelloV3", display_name="Hello!", outputs=[io.Int.Output()])

    @classmethod
    def execute(cls):
        return io.NodeOutput(1)

class Pack(ComfyExtension):
    async def on_load(self):
        LOADED.append("on_load")

    async def get_node_list(self):
        LOADED.append("get_node_list")
        return [Hello]

def comfy_entrypoint():
    return Pack()
"""


@pytest.mark.parametrize("how", ["def", "async def"])
async def test_a_pack_may_give_its_nodes_by_an_entry_point(tmp_path, registry, how):
    source = EXTENSION.replace("def comfy_entrypoint", f"{how} comfy_entrypoint")
    report = await load_pack(str(write_pack(tmp_path, "modern", source)), registry)
    assert (report.error, report.node_names) == (None, ("HelloV3",))
    assert registry.display_names["HelloV3"] == "Hello!"
    node = registry.classes["HelloV3"]
    assert node.GET_NODE_INFO_V1()["python_module"] == "custom_nodes.modern"
    assert sys.modules[node.__module__].LOADED == ["on_load", "get_node_list"]


async def test_an_entry_point_that_fails_leaves_the_start_alone(tmp_path, registry):
    source = EXTENSION.replace("return Pack()", "raise OSError('no network')")
    report = await load_pack(str(write_pack(tmp_path, "sad", source)), registry)
    assert report.error == "OSError: no network"


async def test_a_node_whose_schema_cannot_be_read_is_left_out_and_the_others_are_not(
    tmp_path, registry, caplog
):
    broken = "\nclass Broken(Hello):\n    @classmethod\n    def define_schema(cls):\n        return [][0]\n"
    source = EXTENSION + broken + "\nNODE_CLASS_MAPPINGS = {'Broken': Broken, 'Good': Hello}\n"
    report = await load_pack(str(write_pack(tmp_path, "half", source)), registry)
    assert (report.error, report.node_names) == (None, ("Good",))
    assert "Node Broken of custom_nodes.half is left out" in caplog.text and "IndexError" in caplog.text


async def test_the_old_mapping_counts_before_the_entry_point(tmp_path, registry):
    source = EXTENSION + "\nNODE_CLASS_MAPPINGS = {'Mapped': Hello}\n"
    report = await load_pack(str(write_pack(tmp_path, "both", source)), registry)
    assert report.node_names == ("Mapped",)


@pytest.mark.parametrize("source, reason", [
    ("x = 1\n", "it has neither NODE_CLASS_MAPPINGS nor comfy_entrypoint"),
    ("comfy_entrypoint = 3\n", "comfy_entrypoint is no function"),
    ("def comfy_entrypoint(): ...\n", "returned a NoneType, and no ComfyExtension"),
    (EXTENSION.replace("return [Hello]", "return {'a': Hello}"), "returned a dict, and no list"),
    (EXTENSION.replace("execute(", "exekute("), "Node class Hello has no execute"),
])
async def test_a_module_without_nodes_is_refused_with_the_reason(tmp_path, registry, source, reason):
    assert reason in (await load_pack(str(write_pack(tmp_path, "empty", source)), registry)).error


async def test_a_folder_without_init_is_refused(tmp_path, registry):
    (tmp_path / "just_files").mkdir()
    assert not (await load_pack(str(tmp_path / "just_files"), registry)).is_loaded


async def test_a_pack_cannot_replace_a_built_in_node(tmp_path, registry, caplog):
    registry.classes["LoadImage"] = "the built-in one"
    await load_pack(str(write_pack(tmp_path, "thief", PACK.replace('"Hello"', '"LoadImage"'))), registry)
    assert registry.classes["LoadImage"] == "the built-in one"
    assert "may not replace the built-in node LoadImage" in caplog.text


async def test_of_two_packs_with_a_node_of_one_name_the_later_counts(tmp_path, registry):
    await load_pack(str(write_pack(tmp_path, "one", PACK)), registry)
    await load_pack(str(write_pack(tmp_path, "two", PACK.replace('"hello"', '"later"'))), registry)
    assert registry.classes["Hello"]().run() == ("later",)


def test_disabled_hidden_and_cache_entries_are_no_packs(tmp_path):
    for name in ("off.disabled", "__pycache__", ".git", "good"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "file.py").write_text("")
    assert [node_packs.pack_name(path) for path in find_packs(str(tmp_path))] == ["file", "good"]
    assert find_packs(str(tmp_path / "missing")) == []


async def test_disabling_all_packs_leaves_those_on_the_whitelist(tmp_path, registry):
    write_pack(tmp_path, "one", PACK)
    write_pack(tmp_path, "two", PACK.replace('"Hello"', '"Other"'))
    reports = await load_packs([str(tmp_path)], registry, disabled=True, allowed=["two"])
    assert [report.name for report in reports] == ["two"] and set(registry.classes) == {"Other"}


async def test_the_web_directory_may_come_from_pyproject(tmp_path, registry):
    pack = write_pack(tmp_path, "modern", PACK.replace('WEB_DIRECTORY = "./js"', ""),
                      pyproject__toml='[project]\nname = "x"\n[tool.comfy]\nIcon = "i"\nweb = "web"\n')
    (pack / "web").mkdir()
    await load_pack(str(pack), registry)
    assert registry.web_directories == {"modern": str((pack / "web").resolve())}


async def test_a_web_directory_outside_the_pack_is_not_served(tmp_path, registry):
    pack = write_pack(tmp_path, "escape", PACK.replace("./js", "../.."))
    await load_pack(str(pack), registry)
    assert registry.web_directories == {}


def test_prestartup_scripts_run_and_a_failing_one_is_skipped(tmp_path, caplog):
    write_pack(tmp_path, "a", "", prestartup_script__py="raise ValueError('no')\n")
    marker = tmp_path / "ran"
    write_pack(tmp_path, "b", "", prestartup_script__py=f"open({str(marker)!r}, 'w').close()\n")
    node_packs.run_prestartup_scripts([str(tmp_path)])
    assert marker.exists() and "is skipped" in caplog.text
    marker.unlink()
    node_packs.run_prestartup_scripts([str(tmp_path)], disabled=True)
    assert not marker.exists()
