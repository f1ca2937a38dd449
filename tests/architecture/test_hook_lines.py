"""Each hook line stands where `patches/weave.py` would put it, and can be taken out without harm."""

import ast

import pytest

from tests.fakes.source_tree import ROOT, sources, tree_of

IMPORT = "from comfy_depot import hooks as depot"
HOOKED = [path for path in sources() if IMPORT in path.read_text(encoding="utf-8").splitlines()]


def is_hook(node):
    """Is this expression `depot.name` or a call of it?"""
    function = node.func if isinstance(node, ast.Call) else node
    return isinstance(function, ast.Attribute) and ast.unparse(function.value) == "depot"


def body_of(function):
    has_docstring = ast.get_docstring(function) is not None
    return function.body[1:] if has_docstring else function.body


def places_of_calls(function):
    """The statements at which `enter` and `leave` put a line."""
    body = body_of(function)
    return [body[0], body[-2] if isinstance(body[-1], ast.Return) and len(body) > 1 else body[-1]]


@pytest.mark.parametrize("path", HOOKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_import_is_the_last_of_the_first_unbroken_run(path):
    body = tree_of(path).body
    first = next(place for place, node in enumerate(body) if isinstance(node, (ast.Import, ast.ImportFrom)))
    run = []
    for node in body[first:]:
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            break
        run.append(node)
    assert ast.unparse(run[-1]) == IMPORT


@pytest.mark.parametrize("path", HOOKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_use_is_the_outermost_decorator_or_a_call_at_the_start_or_the_end_of_a_function(path):
    allowed = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            allowed.update(id(decorator) for decorator in node.decorator_list[:1] if is_hook(decorator))
            allowed.update(
                id(statement.value) for statement in places_of_calls(node)
                if isinstance(statement, ast.Expr) and is_hook(statement.value)
            )  # fmt: skip
    inside = {id(name) for node in ast.walk(tree_of(path)) if id(node) in allowed for name in ast.walk(node)}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}" for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Name) and node.id == "depot" and id(node) not in inside
    ]  # fmt: skip
    assert not wrong, wrong


@pytest.mark.parametrize("path", HOOKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_left_without_the_lines_is_whole(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    left = [line for line in lines if line != IMPORT and not line.lstrip().startswith(("depot.", "@depot."))]
    assert len(left) < len(lines) - 1
    names = {node.id for node in ast.walk(ast.parse("\n".join(left))) if isinstance(node, ast.Name)}
    assert "depot" not in names
