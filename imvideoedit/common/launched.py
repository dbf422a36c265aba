"""Processes that a launcher such as torchrun started for one run of a command."""

import os
import sys
from typing import Any

from imvideoedit.common.owner import is_first_process


def process_count() -> int:
    """How many processes run this command together, by the environment that torchrun gives each; 1 without it."""
    count = os.environ.get("WORLD_SIZE", "")
    return int(count) if count.isdecimal() and "MASTER_ADDR" in os.environ else 1


def hush_others() -> Any:
    """From now on only the first of the processes is heard; returns this process's own ``sys.stderr``."""
    own = sys.stderr
    if not is_first_process():
        sys.stdout = sys.stderr = open(os.devnull, "w")
    return own
