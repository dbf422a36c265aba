"""``python -m imvideoedit.comfy.link COMFYUI_FOLDER``: let ComfyUI find the nodes, the example and the adapters."""

import sys
from pathlib import Path

from imvideoedit.comfy.host import ADAPTERS
from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.files import replacing
from imvideoedit.common.terminal import say

NEEDED = ("nodes.py", "folder_paths.py", "comfy/model_management.py", "custom_nodes")  # of ComfyUI's folder
EXAMPLE = Path(__file__).with_name("edit_video.json")
LOADER = """\
# Written by python -m imvideoedit.comfy.link; the Python that runs ComfyUI must have imvideoedit installed.
from imvideoedit.comfy.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS  # noqa: F401
"""


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m imvideoedit.comfy.link``."""
    parser = CommandLine(prog="python -m imvideoedit.comfy.link", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="COMFYUI_FOLDER", help="that holds ComfyUI's main.py")
    folder = parser.parse_args(argv).folder
    written = link(folder)
    for path in written:
        say(f"wrote {path}")
    if not written:
        say(f"{folder} has the nodes already; nothing to do")
    say(f"restart ComfyUI with a Python that has imvideoedit, such as {sys.executable}")
    say(f"adapters go to {folder / 'models' / ADAPTERS}; the example is among ComfyUI's templates, under imvideoedit")


def link(folder: Path) -> list[Path]:
    """Write what ComfyUI loads into ``custom_nodes/imvideoedit``, and make the folder for adapters.

    Returns:
        The files that were written, and the folder if it was made; nothing where all is there already.

    Raises:
        UserError: the folder is no ComfyUI's, or something else is in the way.
    """
    missing = [name for name in NEEDED if not (folder / name).exists()]
    if missing:
        raise UserError(f"{folder} is no ComfyUI folder: it lacks {', '.join(missing)}; give the one with main.py")
    nodes = folder / "custom_nodes/imvideoedit"
    loader = nodes / "__init__.py"
    mine = loader.is_file() and loader.read_text(errors="replace").startswith(LOADER.splitlines()[0])
    if nodes.exists() and not mine:
        raise UserError(f"{nodes} exists and was not made by this command; move it away")
    adapters, written = folder / "models" / ADAPTERS, []
    files = {loader: LOADER.encode(), nodes / "example_workflows" / EXAMPLE.name: EXAMPLE.read_bytes()}
    for path, content in files.items():
        if not path.is_file() or path.read_bytes() != content:
            with replacing(path) as temporary:
                temporary.write_bytes(content)
            written.append(path)
    if not adapters.is_dir():
        adapters.mkdir(parents=True)
        written.append(adapters)
    return written


if __name__ == "__main__":
    main()
