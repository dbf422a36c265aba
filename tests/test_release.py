"""A release: its version is the git tag, its wheel is what the commit holds, and it can be cited."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import imvideoedit
from tests.test_packaging import CHECKOUT, PROJECT

SCRIPT = CHECKOUT / ".ci/wheel"
VERSION = PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository of its own with a package of one file, and the script that builds its wheel."""
    folder = tmp_path / "repository"
    (folder / ".ci").mkdir(parents=True)
    (folder / "imvideoedit").mkdir()
    shutil.copy(SCRIPT, folder / ".ci/wheel")
    (folder / "imvideoedit/__init__.py").write_text('"""A package."""\n\n__version__ = "0.1.0"\n')
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "imvideoedit"\ndynamic = ["version"]\n[tool.setuptools]\npackages = ["imvideoedit"]\n'
        f'[tool.setuptools.dynamic]\nversion = {{ attr = "{VERSION}" }}\n'
    )
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def built(repository: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(repository / ".ci/wheel")]
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "PYTHON": sys.executable}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def version_in(repository: Path, wheel: str) -> str:
    text = zipfile.ZipFile(repository / wheel).read("imvideoedit/__init__.py").decode()
    return text.split('__version__ = "')[1].split('"')[0]


@pytest.mark.slow
def test_the_wheels_version_is_the_tag_else_the_commit(repository):
    done = built(repository)
    commit = git(repository, "rev-parse", "--short=9", "HEAD")
    wheel = f"dist/imvideoedit-0.1.0.dev1+g{commit}-py3-none-any.whl"
    assert done.stdout.strip() == wheel, done.stderr
    assert version_in(repository, wheel) == f"0.1.0.dev1+g{commit}"
    git(repository, "tag", "v2.3.0")
    done = built(repository)
    assert done.stdout.strip() == "dist/imvideoedit-2.3.0-py3-none-any.whl", done.stderr
    assert version_in(repository, done.stdout.strip()) == "2.3.0"
    assert git(repository, "status", "--porcelain", "--untracked-files=no") == "", "the checkout is as it was"


def test_a_wheel_of_what_is_not_committed_is_refused(repository):
    (repository / "imvideoedit/__init__.py").write_text('__version__ = "9.9.9"\n')
    done = built(repository)
    assert done.returncode == 2 and "not committed" in done.stderr and not (repository / "dist").exists()


def test_a_tag_that_is_no_version_is_refused(repository):
    git(repository, "tag", "v1-final-really")
    done = built(repository)
    assert done.returncode == 2 and "v1-final-really" in done.stderr and not (repository / "dist").exists()


def test_the_release_workflow_builds_by_the_same_script():
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/release.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["wheel"]["steps"]]
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key "on" as a truth value
    assert "make wheel" in steps and "\t@.ci/wheel\n" in (CHECKOUT / "Makefile").read_text()
    assert any(step.startswith("gh release create") for step in steps)


def test_the_citation_names_this_version_and_licence():
    cited = yaml.safe_load((CHECKOUT / ".github/CITATION.cff").read_text())
    assert cited["version"] == imvideoedit.__version__ and cited["license"] == PROJECT["project"]["license"]
    needed = {"cff-version", "message", "title", "authors"}  # by the format's schema
    assert needed <= cited.keys() and all("name" in author for author in cited["authors"])
    assert all({"type", "title", "authors"} <= reference.keys() for reference in cited["references"])
