"""Imports point down: by file, by room, and to no room above."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Bottom to top: a room imports rooms before it, never one behind it.
ROOMS = (
    *("common", "world", "layers", "flow", "video", "edit_batch", "clients", "wan", "data", "methods"),
    *("editing", "training", "fitting", "nano"),
    *("evaluation.reporting", "evaluation.nano", "evaluation.weights", "evaluation.edits", "evaluation.metrics"),
    *("evaluation.judge", "evaluation.published", "evaluation.page", "evaluation.vbench", "evaluation.study"),
    *("evaluation.suites", "benchmark", "app", "comfy", "commands", "data_recipes"),
)
COMMANDS = {"demo", "edit", "evaluate", "fit", "train"}


def modules() -> dict[str, Path]:
    return {name(path): path for folder in ("imvideoedit", "data_recipes") for path in (ROOT / folder).rglob("*.py")}


def name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The room of a module; the package itself counts as none."""
    parts = module.split(".")
    if parts[0] == "data_recipes":
        return "data_recipes"
    if len(parts) < 2:
        return ""
    if parts[1] in COMMANDS:
        return "commands"
    return ".".join(parts[1:3]) if parts[1] == "evaluation" and len(parts) > 2 else parts[1]


def imported(module: str, path: Path, known: set[str]) -> set[str]:
    """Which modules a file imports anywhere, in its functions and for its types, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import; one style: absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names <= known else names | {node.module}
    return (found & known) - {module}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    found = modules()
    return {module: imported(module, path, found.keys()) for module, path in found.items()}


def test_no_file_imports_itself_through_others(graph):
    assert len(graph) > 200 and "imvideoedit.wan.context" in graph["imvideoedit.methods.predict_update"]
    own = {module: needs - {"imvideoedit"} for module, needs in graph.items() if module != "imvideoedit"}
    TopologicalSorter(own).prepare()  # raises CycleError, which names the modules


def test_no_room_imports_a_room_above(graph):
    place = {name: level for level, name in enumerate(ROOMS)} | {"evaluation": -1}
    wrong = [
        f"{module} -> {needed}"
        for module, needs in graph.items()
        for needed in needs
        if room(module) and room(needed) and place[room(needed)] > place[room(module)]
    ]
    assert not wrong


def test_the_package_holds_commands_and_at_most_three_other_files():
    files = {path.stem for path in (ROOT / "imvideoedit").glob("*.py")}
    assert COMMANDS < files and len(files - COMMANDS) <= 3


def test_every_room_says_what_belongs_there():
    for path in (*(ROOT / "imvideoedit").glob("*/**/__init__.py"), ROOT / "data_recipes/__init__.py"):
        doc = ast.get_docstring(ast.parse(path.read_text()))
        assert doc and len(doc.splitlines()) >= 2, f"{path} says nothing"


def test_files_and_functions_are_short():
    for path in modules().values():
        text = path.read_text()
        assert len(text.splitlines()) <= 250, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # The docstring does not count: it says what a caller must know.
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                assert node.end_lineno - body[0].lineno < 50, f"{path}:{node.lineno} {node.name}"


def test_the_world_needs_no_torch():
    code = "import sys, imvideoedit.world.edits, imvideoedit.world.grammar; print('torch' in sys.modules)"
    blocked = "import sys; sys.modules['torchvision'] = None; " + code  # its fix-up is what would import torch
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"
