"""``python -m imvideoedit.evaluation.weights.prepare [--folder DIR] [--download | --tiny]``: the networks' files.

Without an option it lists the hashes of the files, or those that are missing.
"""

import urllib.request
from pathlib import Path

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.files import replacing
from imvideoedit.evaluation.weights.files import NETWORKS, WeightFile, check, default_folder, hash_file

TIMEOUT = 60  # seconds without data
CHUNK = 2**20  # bytes


def download(folder: Path, networks: list[str]) -> None:
    """Download missing files; a file with another hash than the published one is not kept.

    Raises:
        UserError: a file cannot be reached, or is not the published one.
    """
    for file in (file for network in networks for file in NETWORKS[network]):
        if not (folder / file.name).is_file():
            print("downloading", file.url, flush=True)
            _fetch(file, folder / file.name)


def _fetch(file: WeightFile, path: Path) -> None:
    with replacing(path) as temporary:
        try:
            with urllib.request.urlopen(file.url, timeout=TIMEOUT) as reply, temporary.open("wb") as target:
                while chunk := reply.read(CHUNK):
                    target.write(chunk)
        except OSError as error:
            raise UserError(f"{file.url} cannot be read ({error}); download it by other means to {path}") from error
        found = hash_file(temporary)
        if not found.startswith(file.sha256):
            raise UserError(f"{file.url} is not the published file (SHA-256 {found[:16]}…); it was not kept")


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Check, download or randomly generate the files."""
    parser = CommandLine(prog="python -m imvideoedit.evaluation.weights.prepare", description=__doc__)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="of all weights; %(default)s")
    parser.add_argument(
        "--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="all if not given"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--download", action="store_true", help="download missing files from their publishers")
    how.add_argument("--tiny", action="store_true", help="write small random networks, to test the suites")
    args = parser.parse_args(argv)
    if args.tiny:
        from imvideoedit.evaluation.weights.tiny import write_tiny  # slow to import

        write_tiny(args.folder)
    if args.download:
        download(args.folder, args.networks)
    for name, sha256 in check(args.folder, args.networks).items():
        print(sha256, name)


if __name__ == "__main__":
    main()
