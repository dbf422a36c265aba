"""Kills a command at a point that is counted in its writes and its model's calls, not in seconds."""

import atexit
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("writes", "steps")
WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


@dataclass
class Meter:
    """Called in a command's process first.

    Args:
        folder: where writes are counted: files that are opened, synced, renamed and removed; each before it happens.
        report: a file that gets the counts at the end of the process, or ``killed`` just before the signal.
        kind: what is counted for the kill: ``writes``, or ``steps``, which are calls of modules and frames written.
        at: the count at which it is killed, from 1; 0 for never.
        number: of the signal.
        shard: entries in a shard of encoded pairs; 0 for as many as usual.
        torn: plant a fault: a rename leaves half of the file under the final name for a moment, which is counted alone.
    """

    folder: str
    report: str
    kind: str = "writes"
    at: int = 0
    number: int = 9
    shard: int = 0
    torn: bool = False

    def __call__(self) -> None:
        import torch

        import imvideoedit.training.encoding as encoding
        from imvideoedit.video.writer import VideoWriter

        self._counts = dict.fromkeys(KINDS, 0)
        self._busy = False
        if self.shard:
            encoding.SHARD = self.shard
        if self.torn:
            self._tear()
        else:
            sys.addaudithook(self._hear)
            _before(os, "fsync", lambda *_: self._count("writes"))
        torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: self._count("steps"))
        _before(VideoWriter, "add", lambda *_: self._count("steps"))
        atexit.register(self._tell)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_write = event in WRITES or (event == "open" and _writes(arguments))
        if is_write and os.path.abspath(str(arguments[0])).startswith(self.folder):
            self._count("writes")

    def _count(self, kind: str) -> None:
        if self._busy:
            return
        self._counts[kind] += 1
        if kind == self.kind and self._counts[kind] == self.at:
            self._busy = True
            Path(self.report).write_text('"killed"')
            self._busy = False
            os.kill(os.getpid(), self.number)

    def _tell(self) -> None:
        if not Path(self.report).exists():
            self._busy = True
            Path(self.report).write_text(json.dumps(self._counts))

    def _tear(self) -> None:
        whole = os.replace

        def replace(old: Any, new: Any, **rest: Any) -> None:
            if os.path.isfile(old) and os.path.abspath(new).startswith(self.folder):
                shutil.copyfile(old, new)
                os.truncate(new, os.path.getsize(new) // 2)
                self._count("writes")
            whole(old, new, **rest)

        os.replace = replace  # type: ignore[assignment]


def _writes(arguments: tuple[Any, ...]) -> bool:
    """Whether an ``open`` is to write, by its mode or its flags."""
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


def _before(owner: Any, name: str, call: Any) -> None:
    """Have ``call`` called before a function."""
    own = getattr(owner, name)

    def both(*args: Any, **kwargs: Any) -> Any:
        call(*args)
        return own(*args, **kwargs)

    setattr(owner, name, both)
