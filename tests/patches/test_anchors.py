"""Places are found by what the syntax says, exactly once, or refused with file, name and line."""

import pytest

from weaving import anchors, sources, woven
from weaving.errors import Ambiguous, Changed, Missing, Unsuited
from weaving.patch_files import parse_patch
from weaving.woven import Insertion

HEADERS = "Subject: s\nWhy: w\nDrop-when: d\nUpstream: v0..\n--- a.py\n"
IMPORT = "from comfy_depot import hooks as depot"


def anchors_of(text):
    line = {"after imports": IMPORT}.get(text, "@depot.x" if "before def" in text else "depot.x()")
    return parse_patch(f"{HEADERS}@@ {text}\n+{line}\n", "try").hunks[0].anchors


def put(code, place, line=None):
    """The code with a line at a place. The import that makes it ours comes first, and is taken off again."""
    source = sources.read("a.py", code.encode())
    found = anchors_of(place)
    if line is None:
        line = "@depot.x" if "before def" in place else "depot.x()"
    _, spot = anchors.find_first(source, found)
    lines = list(source.lines)
    woven._insert(lines, spot, line, source.newline)
    return "".join(lines)


PLACES = [
    (
        "above a function",
        "before def f(a)",
        "x = 1\n\ndef f(a):\n    pass\n",
        "x = 1\n\n@depot.x\ndef f(a):\n    pass\n",
    ),
    (
        "above its decorators",
        "before def f()",
        "@one\n@two(\n  1)\ndef f(): pass\n",
        "@depot.x\n@one\n@two(\n  1)\ndef f(): pass\n",
    ),
    ("above an async one", "before def f(a)", "async def f(a): pass\n", "@depot.x\nasync def f(a): pass\n"),
    (
        "above a method",
        "before def C.f(self)",
        "class C:\n    y = 1\n    def f(self, *, k=1): pass\n",
        "class C:\n    y = 1\n    @depot.x\n    def f(self, *, k=1): pass\n",
    ),
    (
        "above one with tabs",
        "before def C.f(self)",
        "class C:\n\tdef f(self): pass\n",
        "class C:\n\t@depot.x\n\tdef f(self): pass\n",
    ),
    (
        "inside of an elif",
        "before def f()",
        "if a:\n  x = 1\nelif b:\n  def f(): pass\n",
        "if a:\n  x = 1\nelif b:\n  @depot.x\n  def f(): pass\n",
    ),
    (
        "keyword-only and positional-only parameters",
        "before def f(a, b, c)",
        "def f(a, /, b, *, c): pass\n",
        "@depot.x\ndef f(a, /, b, *, c): pass\n",
    ),
    (
        "the first statement",
        "enter f()",
        "def f():\n    return 1\n",
        "def f():\n    depot.x()\n    return 1\n",
    ),
    (
        "after a docstring",
        "enter f()",
        'def f():\n    """D\n    d"""\n\n    # why\n    y()\n',
        'def f():\n    """D\n    d"""\n\n    # why\n    depot.x()\n    y()\n',
    ),
    (
        "a docstring is all",
        "enter f()",
        'def f():\n  """D"""\nx = 1\n',
        'def f():\n  """D"""\n  depot.x()\nx = 1\n',
    ),
    (
        "before a nested decorated function",
        "enter f()",
        "def f():\n    @g\n    def h(): pass\n",
        "def f():\n    depot.x()\n    @g\n    def h(): pass\n",
    ),
    (
        "before the final return",
        "leave f()",
        "def f():\n    y()\n    return (1,\n      2)\n",
        "def f():\n    y()\n    depot.x()\n    return (1,\n      2)\n",
    ),
    (
        "at the end",
        "leave f()",
        "def f():\n    if y:\n        return 1\n    # end\n\ndef g(): pass\n",
        "def f():\n    if y:\n        return 1\n    depot.x()\n    # end\n\ndef g(): pass\n",
    ),
    (
        "after imports",
        "after imports",
        '"""D"""\nfrom __future__ import annotations\nimport a\nfrom b import (\n  c)\n'
        "\nif x:\n    import d\n",
        '"""D"""\nfrom __future__ import annotations\nimport a\nfrom b import (\n  c)\n'
        f"{IMPORT}\n\nif x:\n    import d\n",
    ),
    (
        "the first run of imports only",
        "after imports",
        "import a\nx = 1\nimport b\n",
        f"import a\n{IMPORT}\nx = 1\nimport b\n",
    ),
    (
        "after an assignment",
        "after parser",
        "parser = P(\n  1)\nx = 2\n",
        "parser = P(\n  1)\ndepot.x()\nx = 2\n",
    ),
    ("before an annotated assignment", "before y", "x = 1\ny: int = 2\n", "x = 1\ndepot.x()\ny: int = 2\n"),
    (
        "the end, above the main guard",
        "end of module",
        'def f(): pass\n\nif __name__ == "__main__":\n    f()\n',
        'def f(): pass\n\ndepot.x()\nif __name__ == "__main__":\n    f()\n',
    ),
    ("the end, without one", "end of module", "x = 1\n", "x = 1\ndepot.x()\n"),
    ("a file without an end of line", "end of module", "x = 1", "x = 1\ndepot.x()"),
    (
        "Windows line ends",
        "enter f()",
        "def f():\r\n    return 1\r\n",
        "def f():\r\n    depot.x()\r\n    return 1\r\n",
    ),
    (
        "text that looks like code",
        "before def f()",
        's = """\ndef f(): pass\n"""\ndef f(): pass\n',
        's = """\ndef f(): pass\n"""\n@depot.x\ndef f(): pass\n',
    ),
    (
        "letters of several bytes",
        "enter f()",
        "def f():\n    ä = 'ö'\n    return ä\n",
        "def f():\n    depot.x()\n    ä = 'ö'\n    return ä\n",
    ),
    (
        "the second name, where the first is gone",
        "before def f() | before def g(a)",
        "def g(a): pass\n",
        "@depot.x\ndef g(a): pass\n",
    ),
    (
        "the first name, where both are there",
        "before def f() | before def g()",
        "def g(): pass\ndef f(): pass\n",
        "def g(): pass\n@depot.x\ndef f(): pass\n",
    ),
    (
        "a method of the same name elsewhere",
        "before def f()",
        "class C:\n    def f(self): pass\ndef f(): pass\n",
        "class C:\n    def f(self): pass\n@depot.x\ndef f(): pass\n",
    ),
    (
        "a local name elsewhere",
        "before def f()",
        "def g():\n    f = 1\n    def f(): pass\ndef f(): pass\n",
        "def g():\n    f = 1\n    def f(): pass\n@depot.x\ndef f(): pass\n",
    ),
]


@pytest.mark.parametrize(
    ("place", "before", "after"), [case[1:] for case in PLACES], ids=[case[0] for case in PLACES]
)
def test_a_line_stands_where_its_anchor_says(place, before, after):
    assert put(before, place, IMPORT if place == "after imports" else None) == after


REFUSED = [
    ("gone", "before def f()", "def ff(): pass\n", Missing, "Near: ff"),
    ("nothing like it", "before def load_model()", "x = 1\n", Missing, "Nothing has a similar name"),
    (
        "a method of another class",
        "before def C.f(self)",
        "class D:\n    def f(self): pass\n",
        Missing,
        "Near: D.f",
    ),
    ("a class of that name", "before def f()", "class f: pass\n", Missing, "is not there"),
    ("nested functions", "before def f()", "def g():\n    def f(): pass\n", Missing, "is not there"),
    (
        "a lost parameter",
        "before def f(a, b)",
        "def f(a, *rest): pass\n",
        Changed,
        r"`f\(a\)` has no parameter b",
    ),
    ("two definitions", "before def f()", "def f(): pass\n\ndef f(): pass\n", Ambiguous, r"lines 1, 3"),
    (
        "two in if and else",
        "before def f()",
        "if a:\n  def f(): pass\nelse:\n  def f(): pass\n",
        Ambiguous,
        "lines 2, 4",
    ),
    ("a name that is bound again", "before def f()", "def f(): pass\nf = wrap(f)\n", Ambiguous, "lines 1, 2"),
    (
        "a name that is imported as well",
        "enter f()",
        "from a import f\ndef f(): pass\n",
        Ambiguous,
        "lines 1, 2",
    ),
    (
        "two classes",
        "before def C.f(self)",
        "class C: pass\nclass C:\n    def f(self): pass\n",
        Ambiguous,
        "lines 1, 2",
    ),
    (
        "two in try and except",
        "before def f()",
        "try:\n  def f(): pass\nexcept E:\n  def f(): pass\n",
        Ambiguous,
        "2, 4",
    ),
    (
        "a body on the line of its definition",
        "enter f()",
        "def f(): return 1\n",
        Unsuited,
        "does not begin its line",
    ),
    (
        "a return behind a semicolon",
        "leave f()",
        "def f():\n    a(); return 1\n",
        Unsuited,
        "does not begin its line",
    ),
    ("an end that is never reached", "leave f()", "def f():\n    raise E\n", Unsuited, "would never run"),
    ("a statement behind the imports", "after imports", "import a; x = 1\n", Unsuited, "stands behind"),
    ("no imports", "after imports", "x = 1\n", Missing, "is not there"),
    ("an assignment in a block", "after args", "if a:\n    args = 1\n", Unsuited, "inside of a block"),
    (
        "an assignment in both branches",
        "after args",
        "if a:\n    args = 1\nelse:\n    args = 2\n",
        Ambiguous,
        "2, 4",
    ),
    ("no assignment", "after args", "args.x = 1\n", Missing, "is not there"),
]


@pytest.mark.parametrize(
    ("place", "code", "error", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_is_not_exactly_there_is_refused(place, code, error, words):
    with pytest.raises(error, match=words) as caught:
        put(code, place)
    assert "a.py" in str(caught.value)


def test_a_line_goes_behind_the_mark_of_byte_order():
    source = sources.read("a.py", b"\xef\xbb\xbfimport os\ndef f():\n    pass\n")
    made = woven.weave(
        source,
        [
            Insertion(anchors_of("after imports"), (IMPORT,)),
            Insertion(anchors_of("before def f()"), ("@depot.x",)),
        ],
    )
    assert made.data == b"\xef\xbb\xbfimport os\n" + IMPORT.encode() + b"\n@depot.x\ndef f():\n    pass\n"
    assert woven.strip(made).data == source.data
