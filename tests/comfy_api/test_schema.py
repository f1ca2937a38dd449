"""Rules 97, 99 and 101: what a class says of itself, and what the older interface makes of it."""

import json
import subprocess
import sys
from enum import Enum

import pytest
import torch

import nodes
from app.routes.object_info import node_info
from comfy_api import input as old_input
from comfy_api.internal import first_real_override, lock_class
from comfy_api.latest import Input, _input, _io, io
from tests.fakes.source_tree import ROOT


def klass(**schema):
    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(**{"node_id": "Node", **schema})

        @classmethod
        def execute(cls, **inputs):
            return io.NodeOutput()

    return Node


class Old:
    """The same node as `new_twin`, by the older interface."""

    RETURN_TYPES = ("IMAGE", "INT")
    RETURN_NAMES = ("picture", "INT")
    OUTPUT_IS_LIST = [False, True]
    OUTPUT_TOOLTIPS = [None, "how many"]
    FUNCTION = "run"
    CATEGORY = "image/test"
    DESCRIPTION = "Does things."
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    EXPERIMENTAL = True
    DEPRECATED = True
    DEV_ONLY = True
    API_NODE = True
    HAS_INTERMEDIATE_OUTPUT = True
    SEARCH_ALIASES = ["thing"]
    ESSENTIALS_CATEGORY = "Basic"

    @classmethod
    def INPUT_TYPES(cls):
        choice = {"default": "a", "multiselect": False, "options": ["a", "b"]}
        return {
            "required": {"image": ("IMAGE", {}), "mode": ("COMBO", choice)},
            "optional": {"steps": ("INT", {"default": 20, "min": 1, "max": 99, "display": "slider"})},
            "hidden": {
                "unique_id": ("UNIQUE_ID",),
                "auth_token_comfy_org": ("AUTH_TOKEN_COMFY_ORG",),
                "api_key_comfy_org": ("API_KEY_COMFY_ORG",),
                "comfy_usage_source": ("COMFY_USAGE_SOURCE",),
                "prompt": ("PROMPT",),
                "extra_pnginfo": ("EXTRA_PNGINFO",),
            },
        }


def new_twin():
    slider = io.NumberDisplay.slider
    return klass(
        node_id="Twin",
        display_name="A twin",
        category="image/test",
        description="Does things.",
        inputs=[
            io.Image.Input("image"),
            io.Combo.Input("mode", options=["a", "b"], default="a"),
            io.Int.Input("steps", optional=True, default=20, min=1, max=99, display_mode=slider),
        ],
        outputs=[io.Image.Output("picture"), io.Int.Output(tooltip="how many", is_output_list=True)],
        hidden=[io.Hidden.unique_id],
        search_aliases=["thing"],
        is_input_list=True,
        is_output_node=True,
        is_deprecated=True,
        is_experimental=True,
        is_dev_only=True,
        is_api_node=True,
        essentials_category="Basic",
        has_intermediate_output=True,
    )


def test_object_info_of_a_class_and_of_its_twin_by_the_older_interface_are_equal(monkeypatch):
    monkeypatch.setitem(nodes.NODE_DISPLAY_NAME_MAPPINGS, "Twin", "A twin")
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "Twin", Old)
    old = json.loads(json.dumps(node_info("Twin")))
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "Twin", new_twin())
    new = json.loads(json.dumps(node_info("Twin")))
    assert {key: value for key, value in new.items() if value is not None} == old


def test_the_attributes_of_the_older_interface_follow_from_the_schema():
    twin = new_twin()
    names = [
        "CATEGORY",
        "DESCRIPTION",
        "OUTPUT_NODE",
        "INPUT_IS_LIST",
        "EXPERIMENTAL",
        "DEPRECATED",
        "DEV_ONLY",
        "API_NODE",
        "HAS_INTERMEDIATE_OUTPUT",
        "OUTPUT_IS_LIST",
        "OUTPUT_TOOLTIPS",
    ]
    assert {name: getattr(twin, name) for name in names} == {name: getattr(Old, name) for name in names}
    assert (twin.RETURN_TYPES, twin.RETURN_NAMES) == (["IMAGE", "INT"], ["picture", "INT"])
    assert twin().INPUT_TYPES() == Old.INPUT_TYPES()
    assert klass(not_idempotent=True).NOT_IDEMPOTENT and not twin.NOT_IDEMPOTENT
    assert klass(accept_all_inputs=True).ACCEPT_ALL_INPUTS and not twin.ACCEPT_ALL_INPUTS


def test_a_class_that_derives_from_a_node_has_its_own_schema():
    class Child(klass(category="parent", outputs=[io.Int.Output()])):
        @classmethod
        def define_schema(cls):
            schema = super().define_schema()
            schema.category = "child"
            schema.outputs.append(io.Mask.Output())
            return schema

    parent = Child.__mro__[1]
    assert (parent.CATEGORY, parent.RETURN_TYPES) == ("parent", ["INT"])
    assert (Child.CATEGORY, Child.RETURN_TYPES) == ("child", ["INT", "MASK"])


def test_input_types_ask_the_class_each_time_since_lists_of_files_change():
    files = ["a"]

    class Loader(klass()):
        @classmethod
        def define_schema(cls):
            return io.Schema("Loader", inputs=[io.Combo.Input("file", options=list(files))])

    assert Loader.INPUT_TYPES()["required"]["file"][1]["options"] == ["a"]
    files.append("b")
    assert Loader.INPUT_TYPES()["required"]["file"][1]["options"] == ["a", "b"]


class Mode(Enum):
    FAST = "fast"
    GOOD = "good"


TEMPLATE = io.MatchType.Template("t", [io.Image, io.Mask])


@pytest.mark.parametrize(
    ("declared", "kind", "options"),
    [
        (
            io.Boolean.Input("x", default=True, label_on="yes", label_off="no"),
            "BOOLEAN",
            {"default": True, "label_on": "yes", "label_off": "no"},
        ),
        (
            io.Int.Input("x", min=0, max=9, step=3, control_after_generate=io.ControlAfterGenerate.fixed),
            "INT",
            {"min": 0, "max": 9, "step": 3, "control_after_generate": "fixed"},
        ),
        (
            io.Float.Input("x", round=0.1, display_mode=io.NumberDisplay.gradient_slider),
            "FLOAT",
            {"round": 0.1, "display": "gradientslider"},
        ),
        (
            io.String.Input("x", multiline=True, dynamic_prompts=True, placeholder="p"),
            "STRING",
            {"multiline": True, "placeholder": "p", "dynamicPrompts": True},
        ),
        (
            io.Combo.Input("x", options=Mode, default=Mode.GOOD),
            "COMBO",
            {"default": "good", "multiselect": False, "options": ["fast", "good"]},
        ),
        (
            io.Combo.Input(
                "x", options=["a.png"], upload=io.UploadType.image, image_folder=io.FolderType.output
            ),
            "COMBO",
            {"multiselect": False, "options": ["a.png"], "image_upload": True, "image_folder": "output"},
        ),
        (
            io.Combo.Input("x", remote=io.RemoteOptions("/r", True, timeout=9)),
            "COMBO",
            {
                "multiselect": False,
                "remote": {
                    "route": "/r",
                    "refresh_button": True,
                    "control_after_refresh": "first",
                    "timeout": 9,
                },
            },
        ),
        (
            io.MultiCombo.Input("x", ["a", "b"], chip=True),
            "COMBO",
            {"multiselect": True, "options": ["a", "b"], "multi_select": {"chip": True}},
        ),
        (
            io.Image.Input(
                "x",
                display_name="X",
                tooltip="t",
                lazy=True,
                raw_link=True,
                advanced=True,
                extra_dict={"mine": 1},
            ),
            "IMAGE",
            {"display_name": "X", "tooltip": "t", "lazy": True, "rawLink": True, "advanced": True, "mine": 1},
        ),
        (
            io.Int.Input("x", socketless=True, force_input=False),
            "INT",
            {"socketless": True, "forceInput": False},
        ),
        (io.MultiType.Input("x", [io.Image, io.Mask]), "IMAGE,MASK", {}),
        (
            io.MultiType.Input(io.Float.Input("x", default=1.5), [io.Int, io.Float]),
            "FLOAT,INT",
            {"default": 1.5, "widgetType": "FLOAT"},
        ),
        (
            io.MatchType.Input("x", TEMPLATE),
            "COMFY_MATCHTYPE_V3",
            {"template": {"template_id": "t", "allowed_types": "IMAGE,MASK"}},
        ),
        (
            io.Autogrow.Input("x", io.Autogrow.TemplateNames(io.Int.Input("n"), ["a", "b"], min=0)),
            "COMFY_AUTOGROW_V3",
            {
                "template": {
                    "input": {"required": {"n": ("INT", {"forceInput": True})}},
                    "names": ["a", "b"],
                    "min": 0,
                }
            },
        ),
        (
            io.DynamicCombo.Input("x", [io.DynamicCombo.Option("k", [io.Mask.Input("m", optional=True)])]),
            "COMFY_DYNAMICCOMBO_V3",
            {"options": [{"key": "k", "inputs": {"required": {}, "optional": {"m": ("MASK", {})}}}]},
        ),
        (io.Color.Input("x"), "COLOR", {"default": "#ffffff", "socketless": True}),
        (
            io.BoundingBox.Input("x", component="crop"),
            "BOUNDING_BOX",
            {
                "default": {"x": 0, "y": 0, "width": 512, "height": 512},
                "socketless": True,
                "component": "crop",
            },
        ),
        (
            io.Curve.Input("x"),
            "CURVE",
            {
                "socketless": True,
                "default": {"points": [[0.0, 0.0], [1.0, 1.0]], "interpolation": "monotone_cubic"},
            },
        ),
        (
            io.Range.Input("x", value_max=2.0),
            "RANGE",
            {"default": {"min": 0.0, "max": 1.0}, "socketless": True, "value_max": 2.0},
        ),
        (io.ImageCompare.Input("x"), "IMAGECOMPARE", {"socketless": True}),
        (io.Custom("MINE").Input("x"), "MINE", {}),
    ],
)
def test_rule_101_inputs_are_told_in_object_info(declared, kind, options):
    plain = {"multiline": False} if isinstance(declared, io.String.Input) else {}
    assert klass(inputs=[declared]).INPUT_TYPES() == {"required": {"x": (kind, {**plain, **options})}}


def test_rule_101_every_kind_has_its_name_and_can_be_an_input():
    kinds = [getattr(io, name) for name in io.__all__]
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, _io._ComfyType)]
    named = {kind.__name__: kind.io_type for kind in kinds if kind.io_type}
    assert len(named) == 85
    wanted = {
        "Image": "IMAGE",
        "WanCameraEmbedding": "WAN_CAMERA_EMBEDDING",
        "Clip": "CLIP",
        "Vae": "VAE",
        "ClipVisionOutput": "CLIP_VISION_OUTPUT",
        "LossMap": "LOSS_MAP",
        "File3DSplatAny": "FILE_3D_SPLAT_ANY",
        "AnyType": "*",
        "MultiCombo": "COMBO",
        "Load3DAnimation": "LOAD_3D_ANIMATION",
    }
    assert {name: named[name] for name in wanted} == wanted
    for kind in kinds:
        if kind.io_type:
            assert kind.Input.Parent is kind, kind
            assert getattr(kind, "Output", kind.Input).Parent is kind, kind
    assert io.Image.Output().get_io_type() == "IMAGE"


def test_a_kind_of_a_pack_may_bring_its_own_input_and_leaves_others_alone():
    @io.comfytype(io_type="PACK")
    class Pack:
        Type = str
        Input = io.Combo.Input

    assert Pack.Input("x", options=["a"]).get_io_type() == "PACK"
    assert Pack.Output().io_type == "PACK" and Pack.Output().Type is str
    assert io.Combo.Input("x", options=["a"]).get_io_type() == "COMBO"


def test_outputs_have_titles_and_ids():
    node = klass(
        outputs=[
            io.Int.Output(),
            io.Int.Output("n"),
            io.Int.Output(display_name="N"),
            io.MatchType.Output(TEMPLATE),
        ]
    )
    assert node.RETURN_NAMES == ["INT", "n", "N", "MATCHTYPE"]
    assert [output.id for output in node.GET_SCHEMA().outputs][:3] == ["_0_INT_", "n", "_2_INT_"]
    assert node.GET_NODE_INFO_V1()["output_matchtypes"] == [None, None, None, "t"]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            {"inputs": [io.Int.Input("a"), io.Mask.Input("a")]},
            r"Input ids must be unique, but \['a'\] are not",
        ),
        (
            {"outputs": [io.Int.Output("a"), io.Mask.Output("a")]},
            r"Output ids must be unique, but \['a'\] are not",
        ),
        ({"price_badge": io.PriceBadge(" ")}, "PriceBadge.expr is empty"),
        ({"price_badge": io.PriceBadge("1", engine="python")}, "The only one is 'jsonata'"),
        ({"price_badge": io.PriceBadge("1", io.PriceBadgeDepends(widgets="a"))}, "widgets is 'a'"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema, message):
    with pytest.raises(ValueError, match=message):
        klass(**schema).GET_SCHEMA()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: io.Autogrow.TemplatePrefix(io.Int.Input("a"), "a", max=101), "An input can grow to 1..100"),
        (lambda: io.Autogrow.TemplatePrefix(io.Int.Input("a"), "a", min=-1), "min is -1"),
        (lambda: io.Autogrow.TemplateNames(io.DynamicCombo.Input("a", []), ["b"]), "cannot be repeated"),
        (lambda: io.DynamicSlot.Input(io.DynamicCombo.Input("a", []), []), "cannot be a slot"),
        (lambda: io.MatchType.Template("t", int), "is no kind of value"),
    ],
)
def test_dynamic_inputs_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_price_is_told_with_the_types_of_what_it_depends_on():
    depends = io.PriceBadgeDepends(widgets=["steps", "how.factor"], inputs=["image"])
    option = io.DynamicCombo.Option("scale", [io.Float.Input("factor")])
    inputs = [io.Int.Input("steps"), io.DynamicCombo.Input("how", [option])]
    badge = klass(inputs=inputs, price_badge=io.PriceBadge("2", depends)).GET_NODE_INFO_V1()["price_badge"]
    assert badge == {
        "engine": "jsonata",
        "expr": "2",
        "depends_on": {
            "widgets": [{"name": "steps", "type": "INT"}, {"name": "how.factor", "type": "FLOAT"}],
            "inputs": ["image"],
            "input_groups": [],
        },
    }
    with pytest.raises(ValueError, match=r"do not exist: \['steps'\]"):
        klass(price_badge=io.PriceBadge("2", depends.__class__(widgets=["steps"]))).GET_NODE_INFO_V1()


@pytest.mark.parametrize("missing", ["define_schema", "execute"])
def test_a_class_without_one_of_the_two_functions_is_refused(missing):
    names = {
        "define_schema": classmethod(lambda cls: io.Schema("N")),
        "execute": classmethod(lambda cls: None),
    }
    del names[missing]
    with pytest.raises(TypeError, match=f"Half has no {missing}. Write it as a classmethod"):
        type("Half", (io.ComfyNode,), names).VALIDATE_CLASS()


def test_rule_99_only_functions_of_the_class_itself_or_its_parents_count():
    class Parent(klass()):
        @classmethod
        def fingerprint_inputs(cls):
            return cls.__name__

    class Child(Parent):
        pass

    assert first_real_override(Child, "fingerprint_inputs")() == "Child"
    assert first_real_override(Child, "validate_inputs") is None
    with pytest.raises(ValueError, match="is no class of the schema interface"):
        first_real_override(int, "x")


def test_rule_98_a_locked_class_is_a_class_of_its_own_and_leaves_the_first_one_free():
    class Plain:
        values = []

        @classmethod
        def name(cls):
            return cls.__name__, cls.extra

    locked = lock_class(Plain, extra=1)
    assert issubclass(locked, Plain) and locked.name() == ("Plain", 1)
    for change in (lambda: setattr(locked, "values", 1), lambda: delattr(locked, "extra")):
        with pytest.raises(AttributeError, match="cannot be changed while the node runs"):
            change()
    Plain.values = 2
    assert locked.values == 2


def test_the_old_helpers_expand_and_nest():
    inputs = klass(
        inputs=[io.Autogrow.Input("many", io.Autogrow.TemplatePrefix(io.Int.Input("n"), "n", 1, 2))]
    )
    plain, hidden, data = _io.get_finalized_class_inputs(inputs.INPUT_TYPES(), {"many.n0": 3})
    assert (list(plain["required"]), list(plain["optional"]), hidden) == (["many.n0"], ["many.n1"], None)
    assert _io.build_nested_inputs({"many.n0": 3, "b": 1}, data) == {"many": {"n0": 3}, "b": 1}


def test_a_pack_can_be_imported_without_tensors_or_pictures():
    code = (
        "import sys\n"
        "from comfy_api.latest import ComfyAPI, ComfyExtension, Input, InputImpl, Types, io, ui\n"
        "from comfy_api import input, input_impl, util, torch_helpers, version_list, v0_0_1, v0_0_2\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'av', 'aiohttp') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "[]\n", result.stdout + result.stderr


def test_tensors_are_named_without_being_imported_before():
    assert io.Image.Type is io.Mask.Input("x").Type is Input.Mask is old_input.ImageInput is torch.Tensor
    for module in (old_input, _input):
        with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
            module.Nothing  # noqa: B018
