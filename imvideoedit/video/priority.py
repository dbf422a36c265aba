"""Scheduling that an encoder must not change: run by root, SVT-AV1 makes itself and the process real-time.

A real-time process that is busy leaves its cores to nobody else, not even to the system.
"""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def same_scheduling() -> Iterator[None]:
    """After the block all threads of this process are scheduled as the calling thread was before it; on Linux only."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in map(int, os.listdir("/proc/self/task")):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, parameter)
