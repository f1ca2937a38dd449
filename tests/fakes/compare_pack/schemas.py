"""Nodes of the V3 interface, which describe themselves in a schema."""

from comfy_api.latest import io

from .declare import CLASSES, PREFIX, describe, watched

KINDS = ["constant", "nan", "value", "raises"]


def schema(name, inputs, outputs=(), **more):
    """The schema of a node of this pack."""
    return io.Schema(
        node_id=PREFIX + name, category="compare", inputs=list(inputs), outputs=list(outputs), **more
    )


def v3(node_class):
    """Put a class into the pack; its calls are noted."""
    for kind in ("execute", "fingerprint_inputs", "validate_inputs", "check_lazy_status"):
        if kind in vars(node_class):
            function = vars(node_class)[kind].__func__
            noted = "run" if kind == "execute" else kind
            setattr(node_class, kind, classmethod(watched(node_class.__name__, noted, function)))
    node_class.GET_SCHEMA()
    CLASSES[PREFIX + node_class.__name__] = node_class
    return node_class


@v3
class V3Add(io.ComfyNode):
    """A number, within limits, and one that may be missing."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Int.Input("a", min=0, max=99), io.Int.Input("b", default=5, optional=True)]
        return schema("V3Add", inputs, [io.Int.Output()])

    @classmethod
    def execute(cls, a, b=1):
        return io.NodeOutput(a + b)


@v3
class V3Async(io.ComfyNode):
    """The same as a coroutine."""

    @classmethod
    def define_schema(cls):
        return schema("V3Async", [io.Int.Input("a")], [io.Int.Output()])

    @classmethod
    async def execute(cls, a):
        return io.NodeOutput(a + 1)


@v3
class V3Show(io.ComfyNode):
    """An output node."""

    @classmethod
    def define_schema(cls):
        return schema("V3Show", [io.AnyType.Input("value")], is_output_node=True)

    @classmethod
    def execute(cls, value):
        return io.NodeOutput(ui={"text": [describe(value)]})


@v3
class V3Sum(io.ComfyNode):
    """Takes lists, gives a list and a value."""

    @classmethod
    def define_schema(cls):
        outputs = [io.Int.Output("all", is_output_list=True), io.Int.Output("sum")]
        return schema("V3Sum", [io.Int.Input("values")], outputs, is_input_list=True)

    @classmethod
    def execute(cls, values):
        return io.NodeOutput(values[::-1], sum(values))


@v3
class V3Switch(io.ComfyNode):
    """Lazy inputs."""

    @classmethod
    def define_schema(cls):
        branches = [io.AnyType.Input("if_true", lazy=True), io.AnyType.Input("if_false", lazy=True)]
        return schema("V3Switch", [io.Boolean.Input("on"), *branches], [io.AnyType.Output()])

    @classmethod
    def check_lazy_status(cls, on, if_true=None, if_false=None):
        return ["if_true"] if on and if_true is None else ["if_false"] if not on and if_false is None else []

    @classmethod
    def execute(cls, on, if_true=None, if_false=None):
        return io.NodeOutput(if_true if on else if_false)


@v3
class V3Changed(io.ComfyNode):
    """Says itself whether it changed."""

    @classmethod
    def define_schema(cls):
        return schema(
            "V3Changed", [io.Combo.Input("kind", options=KINDS), io.Int.Input("value")], [io.Int.Output()]
        )

    @classmethod
    def fingerprint_inputs(cls, kind, value=None):
        if kind == "raises":
            raise ValueError("nobody knows")
        return {"constant": 1, "nan": float("nan"), "value": describe(value)}[kind]

    @classmethod
    def execute(cls, kind, value):
        return io.NodeOutput(value)


@v3
class V3Judged(io.ComfyNode):
    """Validates itself."""

    @classmethod
    def define_schema(cls):
        return schema("V3Judged", [io.String.Input("text")], [io.String.Output()])

    @classmethod
    def validate_inputs(cls, text):
        return True if text == "good" else f"{text} is not good"

    @classmethod
    def execute(cls, text):
        return io.NodeOutput(text)


@v3
class V3Expand(io.ComfyNode):
    """Expands, as its schema says."""

    @classmethod
    def define_schema(cls):
        return schema("V3Expand", [io.Int.Input("value")], [io.Int.Output()], enable_expand=True)

    @classmethod
    def execute(cls, value):
        from comfy_execution.graph_utils import GraphBuilder

        graph = GraphBuilder()
        inner = graph.node(PREFIX + "V3Add", a=value, b=10)
        return io.NodeOutput(inner.out(0), expand=graph.finalize())


@v3
class V3Block(io.ComfyNode):
    """Blocks with a message."""

    @classmethod
    def define_schema(cls):
        return schema("V3Block", [io.Int.Input("value")], [io.Int.Output()])

    @classmethod
    def execute(cls, value):
        return io.NodeOutput(block_execution="blocked") if value else io.NodeOutput(value)


@v3
class V3Hidden(io.ComfyNode):
    """Hidden values."""

    @classmethod
    def define_schema(cls):
        hidden = [io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo]
        return schema("V3Hidden", [io.Int.Input("value")], hidden=hidden, is_output_node=True)

    @classmethod
    def execute(cls, value):
        found = [cls.hidden.unique_id, sorted(cls.hidden.prompt), cls.hidden.extra_pnginfo]
        return io.NodeOutput(ui={"text": [describe(found)]})


@v3
class V3Assigns(io.ComfyNode):
    """Tries to keep something on its class."""

    @classmethod
    def define_schema(cls):
        return schema("V3Assigns", [io.Int.Input("value")], [io.Int.Output()])

    @classmethod
    def execute(cls, value):
        cls.kept = value
        return io.NodeOutput(value)


@v3
class V3Each(io.ComfyNode):
    """Runs for each node of it."""

    @classmethod
    def define_schema(cls):
        return schema("V3Each", [io.Int.Input("value")], [io.Int.Output()], not_idempotent=True)

    @classmethod
    def execute(cls, value):
        return io.NodeOutput(value)


@v3
class V3Grow(io.ComfyNode):
    """As many inputs as are linked."""

    @classmethod
    def define_schema(cls):
        template = io.Autogrow.TemplatePrefix(io.Int.Input("number"), prefix="number", min=1, max=4)
        return schema("V3Grow", [io.Autogrow.Input("numbers", template=template)], [io.Int.Output()])

    @classmethod
    def execute(cls, numbers):
        return io.NodeOutput(sum(numbers.values()))


@v3
class V3Mode(io.ComfyNode):
    """Other inputs for each choice."""

    @classmethod
    def define_schema(cls):
        options = [
            io.DynamicCombo.Option("one", [io.Int.Input("x")]),
            io.DynamicCombo.Option("two", [io.Int.Input("x"), io.String.Input("y")]),
        ]
        return schema("V3Mode", [io.DynamicCombo.Input("mode", options=options)], [io.String.Output()])

    @classmethod
    def execute(cls, mode):
        return io.NodeOutput(str(sorted(mode.items())))
