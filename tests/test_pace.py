"""Calls that keep to a number a minute, on a clock of their own."""

import math
from concurrent.futures import ThreadPoolExecutor

from imvideoedit.clients.pace import Pace


def test_calls_of_all_threads_are_spaced_evenly():
    naps: list[float] = []
    pace = Pace(30, sleep=naps.append, clock=lambda: 100.0)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            pool.submit(pace.wait)
    assert sorted(naps) == [2.0, 4.0, 6.0, 8.0]


def test_a_pause_is_not_made_up_for_and_no_limit_waits_for_nothing():
    naps: list[float] = []
    times = iter([0.0, 0.5, 10.0, 10.1])
    pace = Pace(60, sleep=naps.append, clock=lambda: next(times))
    for _ in range(4):
        pace.wait()
    assert all(math.isclose(*pair) for pair in zip(naps, [0.5, 0.9], strict=True))
    Pace(None, sleep=naps.append).wait()
    assert len(naps) == 2
