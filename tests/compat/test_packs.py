"""The import run of node packs: which host names it finds in sources, whom it blames, and one whole run."""

from __future__ import annotations

import textwrap

import pytest

from tests.compat import packs

names = packs.pack_names

GOOD_AND_BROKEN = """
    import comfy.utils

    def absent():
        return comfy.utils.no_such_name(1)

    class Works:
        RETURN_TYPES = ("INT",)
        FUNCTION = "run"
        CATEGORY = "made up"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"value": ("INT", {"default": 1})}}

        def run(self, value):
            return (value,)

    class Broken(Works):
        @classmethod
        def INPUT_TYPES(cls):
            raise ValueError("no inputs today")

    NODE_CLASS_MAPPINGS = {"MadeUpWorks": Works, "MadeUpBroken": Broken}
"""


def write(folder, name, text):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file


def uses(tmp_path, text):
    """{name: (needed at import, guarded)} of a pack of one file; a name used twice stands with its last."""
    found = names.names_used(write(tmp_path, "pack.py", text))
    return {use.name: (use.at_import, use.guarded) for use in found}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import folder_paths", {"folder_paths": (True, False)}),
        ("import comfy.utils", {"comfy": (True, False), "comfy.utils": (True, False)}),
        ("from comfy import sample as taken", {"comfy.sample": (True, False)}),
        ("from comfy.utils import *", {"comfy.utils": (True, False)}),
        ("import torch\nfrom . import nodes\nfrom .utils import one", {}),
        ("try:\n    import nodes\nexcept ImportError:\n    pass", {"nodes": (True, True)}),
        ("try:\n    import nodes\nfinally:\n    pass", {"nodes": (True, False)}),
        ("if TYPE_CHECKING:\n    import nodes", {"nodes": (True, True)}),
        ("def late():\n    import nodes", {"nodes": (False, False)}),
        ("class Now:\n    import nodes", {"nodes": (True, False)}),
        ("async def late():\n    import nodes", {"nodes": (False, False)}),
    ],
)
def test_host_names_of_imports(tmp_path, source, expected):
    assert uses(tmp_path, source) == expected


def test_attribute_chains_are_followed_through_aliases(tmp_path):
    found = uses(
        tmp_path,
        """
        import comfy.samplers as s
        from comfy import model_management as mm
        import numpy as np

        DEVICE = mm.unet.dtype
        later = lambda: s.KSampler.SAMPLERS
        OTHER = np.random.rand
        """,
    )
    assert found["comfy.model_management.unet.dtype"] == (True, False)
    assert found["comfy.samplers.KSampler.SAMPLERS"] == (False, False)
    assert "comfy.model_management.unet" not in found, "only the whole chain is a use"
    assert set(found) == {
        "comfy.samplers",
        "comfy.model_management",
        "comfy.model_management.unet.dtype",
        "comfy.samplers.KSampler.SAMPLERS",
    }


def test_a_use_behind_hasattr_is_guarded(tmp_path):
    found = uses(tmp_path, 'import nodes\nif hasattr(nodes, "NEW"):\n    nodes.NEW()\nnodes.OLD()')
    assert found["nodes.NEW"] == (True, True)
    assert found["nodes.OLD"] == (True, False)


@pytest.mark.parametrize(
    ("first_line", "host_names"), [("import sys; sys.path.append(HERE)", set()), ("", {"utils.one"})]
)
def test_own_modules_are_of_the_pack_only_if_it_changes_the_search_path(tmp_path, first_line, host_names):
    write(tmp_path, "__init__.py", f"{first_line}\nfrom utils import one")
    write(tmp_path, "utils/__init__.py", "one = 1")
    assert {use.name for use in names.names_used(tmp_path)} == host_names


def test_tests_of_a_pack_and_files_that_do_not_parse_are_left_out(tmp_path):
    write(tmp_path, "__init__.py", "import nodes")
    write(tmp_path, "tests/test_it.py", "import server")
    write(tmp_path, "template.py", "import {{ name }}")
    assert {use.name for use in names.names_used(tmp_path)} == {"nodes"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, None),
        ("ModuleNotFoundError: No module named 'insightface'", "own dependency"),
        ("ModuleNotFoundError: No module named 'comfy.no_such'", "ours"),
        ("ImportError: cannot import name 'pad' from 'kornia.geometry' (x.py)", "own dependency"),
        ("ImportError: cannot import name 'pad' from 'comfy.utils' (x.py)", "ours"),
        ("AttributeError: module 'nodes' has no attribute 'x'", "ours"),
    ],
)
def test_blame(tmp_path, error, expected):
    assert packs.blame(error, tmp_path) == expected


def test_the_summary_counts_only_packs_whose_packages_are_here():
    def report(error, blame, nodes):
        return {"error": error, "blame": blame, "nodes": nodes}

    reports = [report(None, None, 7), report("x", "ours", 0), report("y", "own dependency", 0)]
    reports.append(report(None, None, 2))
    expected = "2 of 3 packs are imported (67%), 9 nodes; 1 more lack packages of others."
    assert packs.summary(reports) == expected
    assert packs.summary(reports[2:3]).startswith("0 of 0 packs are imported (100%)")


def test_packs_in_a_folder(tmp_path):
    one = write(tmp_path, "one.py", "")
    two = write(tmp_path, "two/__init__.py", "").parent
    write(tmp_path, "notes.txt", "")
    assert packs.packs_in(tmp_path) == [one, two]
    assert packs.packs_in(two) == [two]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"has no pack in it: no \.py file and no folder"):
        packs.packs_in(tmp_path / "empty")


def test_a_run_reports_nodes_broken_nodes_and_missing_names(tmp_path):
    pack = write(tmp_path, "made_up/__init__.py", GOOD_AND_BROKEN).parent
    report = packs.try_pack(pack)
    assert report["error"] is None, report
    assert report["blame"] is None
    assert report["nodes"] == 2
    assert report["broken_nodes"] == {"MadeUpBroken": "ValueError: no inputs today"}
    assert report["missing"] == ["comfy.utils.no_such_name"]
    assert report["missing_at_import"] == [], "it is used in a function only"
    lines = packs.describe(report).splitlines()
    assert lines[0].split() == ["made_up", "2", "nodes", "imported"]
    assert lines[1:] == [
        "      cannot describe itself: MadeUpBroken: ValueError: no inputs today",
        "      missing: comfy.utils.no_such_name",
    ]
