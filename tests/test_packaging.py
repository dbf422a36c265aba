"""The project file is true, and the wheel works from any folder, with its settings and weights inside."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from imvideoedit.video.reader import read_video, write_video

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
WEIGHTS = CHECKOUT / "imvideoedit/nano/weights"
WORKFLOWS = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))
HASHES = r" *\\\n    --hash=sha256:[0-9a-f]{64}"
ADAPTER = CHECKOUT / "imvideoedit/nano/adapter.safetensors"
NODES = sorted((CHECKOUT / "imvideoedit/comfy").glob("*.json"))

COMPOSE = """
import importlib.resources
from hydra import compose, initialize_config_module
conf = importlib.resources.files("imvideoedit.conf")
stems = lambda folder: sorted(path.name[:-5] for path in folder.iterdir() if path.name.endswith(".yaml"))
with initialize_config_module("imvideoedit.conf", version_base="1.3"):
    for name in stems(conf):
        print(name, len(compose(name)))
    for name in stems(conf / "experiment"):
        print("experiment", name, len(compose("train", [f"+experiment={name}"])))
"""


def test_every_package_is_listed():
    inits = [path for package in ("imvideoedit", "data_recipes") for path in CHECKOUT.glob(f"{package}/**/__init__.py")]
    found = {".".join(path.parent.relative_to(CHECKOUT).parts) for path in inits}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"imvideoedit.conf"}


def pins(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = dict(line.split(";")[0].strip().split("==") for line in lines)
    return {canonicalize_name(name): version for name, version in found.items()}


def test_pins_satisfy_every_requirement():
    own = pins((CHECKOUT / "requirements.txt").read_text())
    for text in PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(own[requirement.name]), text


def test_the_lock_holds_the_pins_and_hashes_of_each():
    folder, own = CHECKOUT / ".ci/locked", pins((CHECKOUT / "requirements.txt").read_text())
    texts = {path.stem: path.read_text() for path in folder.glob("*.txt")}
    assert set(texts) == {"wheels", "cpu", "cuda", "sources", "tools"}
    locked = {name: pins(re.sub(HASHES, "", text)) for name, text in texts.items()}
    torch = {"torch": locked["cuda"].pop("torch")}
    assert locked["wheels"] | locked["sources"] | torch == own
    assert locked["cpu"] == {"torch": f"{torch['torch']}+cpu"}
    assert not locked["wheels"].keys() & locked["sources"].keys()
    assert not locked["cuda"].keys() & own.keys() and "triton" in locked["cuda"]
    for text in texts.values():
        blocks = re.split(r"\n(?=[A-Za-z])", text.strip())
        assert all(re.fullmatch(rf"[^\n]+?(?:{HASHES})+", block) for block in blocks) and "://" not in text


def test_actions_are_pinned_by_commit():
    used = [line.strip() for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert used and all(re.fullmatch(r"- uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in used), used


def test_bundled_binaries_have_a_stated_licence():
    tracked = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, text=True, capture_output=True).stdout.splitlines()
    if not tracked:
        pytest.skip("this is no git checkout")
    told = (CHECKOUT / ".github/SECURITY.md").read_text().split("## Licences of bundled files")[1]
    stated = [each.removesuffix("*.png").removesuffix("*.csv") for each in re.findall(r"`([^`]+[/s*gvn])`", told)]
    kept = [path for path in tracked if Path(path).suffix in (".safetensors", ".png", ".csv", ".json", ".ttf", ".mp4")]
    assert kept and [path for path in kept if not path.startswith(tuple(stated))] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: in the checkout, leftovers of an older build would get into it."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    for name in ("imvideoedit", "data_recipes", "conf"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    _run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, copy, cwd=folder
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The scripts folder of a fresh environment that holds the wheel and sees this one's other packages."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment)
    paths = sysconfig.get_paths(vars={"base": str(environment), "platbase": str(environment)}, scheme="venv")
    own = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    Path(paths["purelib"], "others.pth").write_text("\n".join(own))
    python = Path(paths["scripts"], "python")
    _run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, cwd=environment)
    return Path(paths["scripts"])


def _run(*command: Path | str, cwd: Path) -> str:
    """Run a command away from the checkout; its output, or a failure that shows it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_wheel_carries_settings_weights_and_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    settings = {f"imvideoedit/{path.relative_to(CHECKOUT)}" for path in CHECKOUT.glob("conf/**/*.yaml")}
    bundled = {str(path.relative_to(CHECKOUT)) for path in [*WEIGHTS.rglob("*"), ADAPTER, *NODES] if path.is_file()}
    code = [*CHECKOUT.glob("imvideoedit/**/*.py"), *CHECKOUT.glob("data_recipes/**/*.py")]
    modules = {str(path.relative_to(CHECKOUT)) for path in code}
    templates = {str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("imvideoedit/**/*.j2")}
    assert settings and templates and settings | bundled | modules | templates <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"data_recipes", "imvideoedit"}


@pytest.mark.slow
def test_wheel_imports_and_composes_its_settings_elsewhere(installed, tmp_path):
    where = _run(installed / "python", "-c", "import imvideoedit; print(imvideoedit.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    composed = _run(installed / "python", "-c", COMPOSE, cwd=tmp_path)
    for path in CHECKOUT.glob("conf/*.yaml"):
        assert f"{path.stem} " in composed
    for path in CHECKOUT.glob("conf/experiment/*.yaml"):
        assert f"experiment {path.stem} " in composed


@pytest.mark.slow
def test_wheel_has_the_edit_command(installed, tmp_path):
    assert "usage: imvideoedit-edit" in _run(installed / "imvideoedit-edit", "--help", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not (WEIGHTS.is_dir() and ADAPTER.is_file()), reason="this checkout bundles no nano weights")
def test_wheel_edits_a_video_elsewhere(installed, tmp_path):
    frames = np.full((6, 64, 64, 3), (40, 60, 120), dtype=np.uint8)
    for index, frame_HWC in enumerate(frames):
        frame_HWC[24:40, 8 + 4 * index : 24 + 4 * index] = (210, 40, 40)
    write_video(tmp_path / "in.mp4", frames, Fraction(12))
    command = (
        installed / "imvideoedit-edit",
        "in.mp4",
        "make the red box green",
        "--steps",
        "4",
        "--output",
        "out.mp4",
    )
    _run(*command, cwd=tmp_path)
    edited, info = read_video(tmp_path / "out.mp4")
    assert edited.shape == frames.shape and info.fps == 12
    assert np.abs(edited.astype(int) - frames).mean() > 2, "the output is the input"
