"""At most so many calls a minute, on a fake clock."""

import math
from concurrent.futures import ThreadPoolExecutor

from imvideoedit.clients.rate_limit import RateLimit


def test_calls_of_all_threads_are_spaced_evenly():
    naps: list[float] = []
    limit = RateLimit(30, sleep=naps.append, clock=lambda: 100.0)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            pool.submit(limit.wait)
    assert sorted(naps) == [2.0, 4.0, 6.0, 8.0]


def test_a_pause_is_not_made_up_for_and_no_limit_means_no_wait():
    naps: list[float] = []
    times = iter([0.0, 0.5, 10.0, 10.1])
    limit = RateLimit(60, sleep=naps.append, clock=lambda: next(times))
    for _ in range(4):
        limit.wait()
    assert all(math.isclose(*pair) for pair in zip(naps, [0.5, 0.9], strict=True))
    RateLimit(None, sleep=naps.append).wait()
    assert len(naps) == 2
