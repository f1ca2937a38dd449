"""Lines of ours go in and come out again without a trace."""

import pytest

from tests.patches.test_anchors import IMPORT, anchors_of
from weaving import sources, woven
from weaving.errors import Refused, SourceError
from weaving.woven import Insertion

CODE = '''"""A core."""
import os

x = """
depot.x()
"""


class C:
    @staticmethod
    def f(a):
        if a:
            return 1
        y()

    async def g(self):
        return 2
def h():
    pass
'''
SERIES = [
    ("after imports", IMPORT),
    ("before def C.f(a)", "@depot.one"),
    ("before def C.f(a)", "@depot.two"),
    ("enter C.g(self)", "depot.enters()"),
    ("leave C.g(self)", "depot.leaves(self)"),
    ("before def h()", "@depot.h"),
    ("after imports", IMPORT),
    ("end of module", "depot.ends()"),
]
WOVEN = '''"""A core."""
import os
from comfy_depot import hooks as depot

x = """
depot.x()
"""


class C:
    @depot.one
    @depot.two
    @staticmethod
    def f(a):
        if a:
            return 1
        y()

    async def g(self):
        depot.enters()
        depot.leaves(self)
        return 2
@depot.h
def h():
    pass
depot.ends()
'''


def read(text):
    return sources.read("a.py", text.encode())


def weave(text, series=SERIES):
    return woven.weave(read(text), [Insertion(anchors_of(place), (line,)) for place, line in series])


def test_the_lines_go_in_and_come_out():
    made = weave(CODE)
    assert made.text == WOVEN
    assert woven.strip(made).text == CODE


def test_weaving_twice_changes_nothing():
    assert weave(WOVEN).text == WOVEN


def test_lines_of_an_earlier_series_go():
    made = weave(WOVEN, [("after imports", IMPORT), ("before def h()", "@depot.new")])
    assert made.text == CODE.replace("import os\n", f"import os\n{IMPORT}\n").replace(
        "def h", "@depot.new\ndef h"
    )


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_bytes_come_back_whatever_the_line_ends(end, newline):
    code = CODE.rstrip("\n").replace("\n", newline) + end
    made = weave(code)
    assert woven.strip(made).data == code.encode()
    assert weave(made.text).text == made.text


OTHERS = [
    ("a depot of somebody else", "depot = load()\ndepot.x()\n@depot.y\ndef f(): pass\n"),
    ("another import", "from depots import hooks as depot\ndepot.x()\n"),
    ("text", f's = """\n{IMPORT}\ndepot.x()\n"""\n'),
]


@pytest.mark.parametrize("code", [case[1] for case in OTHERS], ids=[case[0] for case in OTHERS])
def test_what_is_not_ours_is_left_alone(code):
    assert woven.strip(read(code)).text == code


def test_a_line_that_does_more_than_call_us_is_the_users_own():
    own = f"{IMPORT}\nx = depot.armed()\ndepot.x(); y()\nif depot.armed(): depot.z()\n"
    assert woven.strip(read(own)).text == own.removeprefix(f"{IMPORT}\n")


def test_two_lines_at_the_end_of_a_file_without_an_end_of_line():
    made = weave(
        "import os\nx = 1",
        [("after imports", IMPORT), ("end of module", "depot.a()"), ("end of module", "depot.b()")],
    )
    assert made.text == f"import os\n{IMPORT}\nx = 1\ndepot.a()\ndepot.b()"
    assert woven.strip(made).text == "import os\nx = 1"


def test_the_end_of_a_method_comes_before_what_follows_it():
    code = "import os\nclass C:\n    def f(self):\n        y()\ndef g():\n    pass\n"
    made = weave(
        code,
        [
            ("before def g()", "@depot.g"),
            ("end of module", "depot.m()"),
            ("leave C.f(self)", "depot.f()"),
            ("leave g()", "depot.h()"),
            ("after imports", IMPORT),
        ],
    )
    assert made.text == (
        "import os\n" + IMPORT + "\nclass C:\n    def f(self):\n        y()\n        depot.f()\n"
        "@depot.g\ndef g():\n    pass\n    depot.h()\ndepot.m()\n"
    )
    assert woven.strip(made).text == code


def test_a_line_without_the_import_is_refused():
    with pytest.raises(Refused, match=r"a\.py: taking our lines out again would not give back"):
        weave(CODE, [("before def h()", "@depot.h")])


def test_what_does_not_compile_with_our_lines_is_refused():
    with pytest.raises(Refused, match="would not compile"):
        weave("import os\ndef f():\n    pass\n", [("after imports", "from __future__ import depot")])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"def f(:\n", r"a\.py:1 is not valid Python"),
        (b"<<<<<<< ours\nx = 1\n=======\n", "Is a conflict left in it"),
        ("# -*- coding: latin-1 -*-\nx = 'ä'\n".encode("latin-1"), "is not UTF-8"),
        (b"x = 1\ry = 2\n", "carriage returns inside"),
        (b"x = 1\0\n", "is not valid Python"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(data, words):
    with pytest.raises(SourceError, match=words):
        woven.weave(sources.read("a.py", data), [Insertion(anchors_of("end of module"), ("depot.x()",))])
