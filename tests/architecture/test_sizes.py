"""Clarity is in the tail: the longest function, the longest file, and how many hook lines the core carries.
"""

import ast
import re

from tests.fakes.source_tree import ROOT, sources, tree_of

LONGEST_FUNCTION = 60
LONGEST_SAMPLER = 80
LONGEST_FILE = 500
LONGEST_COMPATIBILITY_FILE = 900
COMPATIBILITY = ["model_management", "samplers", "sd", "utils", "model_patcher"]
CORE = ["folder_paths.py", "execution.py", "server.py", "nodes.py"]
CORE += [f"comfy/{name}.py" for name in COMPATIBILITY]
HOOK_LINE = re.compile(r"^\s*@?(depot|fleet)\.[a-z_]+")


def length(node):
    docstring = ast.get_docstring(node, clean=False)
    return node.end_lineno - node.lineno + 1 - (len(docstring.splitlines()) if docstring else 0)


def test_no_function_is_longer_than_a_screen():
    wrong = []
    for path in sources():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                is_numeric = node.name == "forward" or node.name.startswith("sample_")
                if length(node) > (LONGEST_SAMPLER if is_numeric else LONGEST_FUNCTION):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length(node)} lines")
    assert not wrong, "\n".join(wrong)


def test_no_file_is_longer_than_its_room_allows():
    wrong = []
    for path in sources():
        is_compatibility = path.parent == ROOT or path.relative_to(ROOT).parts[0] == "comfy"
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > (LONGEST_COMPATIBILITY_FILE if is_compatibility else LONGEST_FILE):
            wrong.append(f"{path.relative_to(ROOT)}: {lines} lines")
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is():
    silent = [str(path.relative_to(ROOT)) for path in sources()
              if path.stat().st_size and not ast.get_docstring(tree_of(path))]
    assert not silent, silent


def test_no_bare_except_and_every_broad_one_says_why_in_its_line():
    wrong = []
    for path in sources():
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if not isinstance(node, ast.ExceptHandler):
                continue
            names = (
                {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
                if node.type
                else {"bare"}
            )
            is_rethrown = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if (
                names & {"bare", "Exception", "BaseException"}
                and "#" not in lines[node.lineno - 1]
                and not is_rethrown
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {lines[node.lineno - 1].strip()}")
    assert not wrong, "\n".join(wrong)


def hook_lines(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines() if HOOK_LINE.match(line)]


def test_the_core_files_stay_within_the_hook_budget():
    counts = {name: len(hook_lines(ROOT / name)) for name in CORE}
    assert all(count <= 4 for count in counts.values()), counts
    assert 1 <= sum(counts.values()) <= 25, counts
