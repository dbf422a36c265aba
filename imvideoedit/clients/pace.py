"""No more calls a minute than an endpoint allows."""

import threading
import time
from collections.abc import Callable


class Pace:
    """Spaces calls of all threads evenly.

    Args:
        per_minute: calls at most, above 0; None for no limit.
        sleep: how to wait, in seconds.
        clock: the time, in seconds.
    """

    def __init__(
        self,
        per_minute: float | None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when the next call may be made."""
        if not self._gap:
            return
        with self._lock:
            now = self._clock()
            start = max(self._next, now)
            self._next = start + self._gap
        if start > now:
            self._sleep(start - now)
