"""Imports point one way: no module needs, through others, itself."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_no_module_imports_itself_through_others():
    modules = {name(path): path for folder in ("imvideoedit", "data_recipes") for path in (ROOT / folder).rglob("*.py")}
    graph = {module: imported(module, path, modules.keys()) for module, path in modules.items()}
    assert len(graph) > 200 and "imvideoedit.context" in graph["imvideoedit.methods.predict_update"]
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(module: str, path: Path, modules) -> set[str]:
    """Which of ``modules`` are imported anywhere in a file, in its functions and for its types, too."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= names if names <= set(modules) else names | {base}
    return (found & set(modules)) - {module}
