"""The command that links the nodes into a ComfyUI folder, and what ComfyUI then loads."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from imvideoedit.comfy.link import EXAMPLE, LOADER, NEEDED, main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path) -> Path:
    """What the command takes for a ComfyUI."""
    folder = tmp_path / "my ComfyUI"
    (folder / "custom_nodes").mkdir(parents=True)
    (folder / "models").mkdir()
    for name in NEEDED[:-1]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


def linked(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imvideoedit.comfy.link", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_command_writes_what_comfyui_loads_and_says_so(folder):
    done = linked(folder)
    nodes = folder / "custom_nodes/imvideoedit"
    assert done.returncode == 0 and done.stderr == ""
    for path in (nodes / "__init__.py", nodes / f"example_workflows/{EXAMPLE.name}", folder / "models/imvideoedit"):
        assert f"wrote {path}\n" in done.stdout and path.exists()
    assert (nodes / "__init__.py").read_text() == LOADER and len(LOADER.splitlines()) == 2
    assert (nodes / "example_workflows" / EXAMPLE.name).read_bytes() == EXAMPLE.read_bytes()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = linked(folder)
    assert again.returncode == 0 and "nothing to do" in again.stdout and "wrote" not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_comfyui_loads_the_nodes_from_the_folder_without_its_modules(folder):
    main([str(folder)])
    code = f"""
import importlib.util, sys
place = {str(folder / "custom_nodes/imvideoedit")!r}
spec = importlib.util.spec_from_file_location(place.replace(".", "_x_"), place + "/__init__.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(sorted(module.NODE_CLASS_MAPPINGS), module.NODE_DISPLAY_NAME_MAPPINGS["ImVideoEdit"])
print([name for name in sys.modules if name.split(".")[0] in ("comfy", "folder_paths", "nodes")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    names = ["ImVideoEdit", "ImVideoEditLoadAdapter", "ImVideoEditLoadBase", "ImVideoEditSave", "ImVideoEditSettings"]
    assert done.stdout.splitlines() == [f"{names} Edit Video", "[]"]
    assert importlib.util.find_spec("comfy") is None, "this test needs a Python without ComfyUI"


def test_an_older_link_is_written_anew_and_an_interrupted_one_completed(folder):
    nodes = folder / "custom_nodes/imvideoedit"
    nodes.mkdir()
    (nodes / "__init__.py").write_text(f"{LOADER.splitlines()[0]}\nfrom imvideoedit.comfy.old import NODES\n")
    main([str(folder)])
    assert (nodes / "__init__.py").read_text() == LOADER and (nodes / "example_workflows" / EXAMPLE.name).exists()


def test_other_folders_are_refused_in_one_line(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    theirs = folder / "custom_nodes/imvideoedit"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    refusals = {
        tmp_path / "empty": "is no ComfyUI folder: it lacks nodes.py, folder_paths.py, comfy/model_management.py",
        tmp_path / "nowhere": "is no ComfyUI folder",
        folder: f"{theirs} exists and was not made by this command; move it away",
    }
    for place, words in refusals.items():
        with pytest.raises(SystemExit) as ended:
            main([str(place)])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and words in error and error.count("\n") == 1
    assert (theirs / "__init__.py").read_text() == "NODE_CLASS_MAPPINGS = {}\n"
    assert not (folder / "models/imvideoedit").exists()
