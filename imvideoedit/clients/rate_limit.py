"""At most so many calls a minute."""

import threading
import time
from collections.abc import Callable


class RateLimit:
    """Spaces the calls of all threads evenly.

    Args:
        per_minute: most calls, above 0; None for no limit.
        sleep: waits, in seconds.
        clock: the time, in seconds.
    """

    def __init__(
        self,
        per_minute: float | None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when the next call may be made."""
        with self._lock:
            now = self._clock()
            start = max(self._next, now)
            self._next = start + self._interval
        if start > now:
            self._sleep(start - now)
