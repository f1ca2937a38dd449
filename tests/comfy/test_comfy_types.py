"""Types that node packs annotate and declare with."""

import pytest

from comfy.comfy_types import IO, CheckLazyMixin, ComfyNodeABC
from comfy_execution.validation import validate_node_input


@pytest.mark.parametrize(("one", "other", "may_link"), [
    (IO.INT, "INT", True), (IO.INT, "FLOAT", False), (IO.ANY, "MODEL", True), ("MODEL", IO.ANY, True),
    (IO.NUMBER, "INT", True), (IO.NUMBER, "IMAGE", False), (IO.PRIMITIVE, IO.NUMBER, True),
    (IO.INT, 5, False),
])  # fmt: skip
def test_types_compare_by_what_may_be_linked(one, other, may_link):
    assert (not one != other) is may_link
    assert validate_node_input(one, other) is may_link


def test_types_are_their_texts():
    assert f"{IO.IMAGE}" == str(IO.IMAGE) == "IMAGE" == IO.IMAGE


def test_the_bases_help_with_declaring():
    class Node(CheckLazyMixin, ComfyNodeABC):
        @classmethod
        def INPUT_TYPES(cls):
            return super().INPUT_TYPES()

    assert Node.INPUT_TYPES() == {"required": {}}
    assert Node().check_lazy_status(a=None, b=0, c=None) == ["a", "c"]
    with pytest.raises(TypeError, match="abstract"):
        ComfyNodeABC()
