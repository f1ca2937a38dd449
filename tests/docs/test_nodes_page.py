"""The examples of docs/nodes.md are node packs that load and run."""

import asyncio
import re

import nodes
from comfy_execution.node_packs import Registry, load_pack
from tests.comfy_execution.rig import Rig, make, node
from tests.docs.test_docs import read

EXAMPLES = re.findall(r"```python\n(.*?)```", read("docs/nodes.md"), re.S)


async def load(folder, monkeypatch):
    registry = Registry(classes={}, display_names={})
    for number, source in enumerate(EXAMPLES):
        path = folder / f"example{number}.py"
        path.write_text(source, encoding="utf-8")
        assert (await load_pack(str(path), registry)).error is None
    for name, klass in registry.classes.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, klass)
    return registry


async def test_the_examples_load_under_their_titles(tmp_path, monkeypatch):
    registry = await load(tmp_path, monkeypatch)
    assert sorted(registry.classes) == ["ExampleBlur", "ExampleRepeat", "ExampleReverse", "ExampleShow"]
    assert registry.display_names == {"ExampleRepeat": "Repeat Text", "ExampleReverse": "Reverse Text"}


def test_the_examples_run_in_one_graph(tmp_path, monkeypatch):
    asyncio.run(load(tmp_path, monkeypatch))
    result = Rig().run(
        {
            "1": node("ExampleReverse", text="olleh"),
            "2": node("ExampleRepeat", text=["1", 0], times="3"),
            "3": node("ExampleShow", **{"texts.text0": ["2", 0], "texts.text1": ["1", 0]}),
        }
    )
    assert result.outputs == {"3": {"text": ["hello hello hello / hello"]}}


def test_the_examples_are_refused_where_the_page_says_so(tmp_path, monkeypatch):
    asyncio.run(load(tmp_path, monkeypatch))
    rig = Rig()
    errors = rig.validate({"3": node("ExampleShow")}).node_errors["3"]["errors"]
    assert errors[0]["extra_info"] == {"input_name": "texts.text0"}


def test_the_merged_example_serves_two_prompts_with_one_call(tmp_path, monkeypatch):
    asyncio.run(load(tmp_path, monkeypatch))
    blur, served = nodes.NODE_CLASS_MAPPINGS["ExampleBlur"], []
    original = blur.blur_merged
    counting = staticmethod(lambda calls: served.append(len(calls)) or original(calls))
    monkeypatch.setattr(blur, "blur_merged", counting)
    rig = Rig()

    def graph(colour):
        return {
            "1": node("EmptyImage", color=colour, width=8, height=8, batch_size=1),
            "2": node("ExampleBlur", image=["1", 0], radius=2),
            "3": node("Shown", image=["2", 0]),
        }

    rig.add(Shown=make(lambda self, image: {"ui": {"mean": [image.mean((0, 1, 2)).tolist()]}},
                       {"image": ("IMAGE",)}, returns=(), OUTPUT_NODE=True))  # fmt: skip
    rig.executor.serve_together(4, lambda most: [(0, "p2", graph(0x00FF00), {}, ["3"], {})])
    rig.run(graph(0))  # how long one takes is measured first
    served.clear()
    red = rig.run(graph(0xFF0000))
    assert served == [2] and red.outputs["3"]["mean"] == [[1.0, 0.0, 0.0]]
    green = rig.run(graph(0x00FF00))
    assert served == [2] and green.outputs["3"]["mean"] == [[0.0, 1.0, 0.0]]
