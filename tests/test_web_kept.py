"""Values that take long to compute: fresh while that is quick, else the last one, and seldom computed."""

import threading
import time

import pytest

from diffsim.query.web.kept import Kept


class Slow:
    """Counts how often it is computed; `seconds`: how long that takes."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.version = 0
        self.times = 0
        self.error: Exception | None = None
        self.kept = Kept(self.compute, lambda: self.version)

    def compute(self) -> int:
        version = self.version
        self.times += 1
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return version


def test_what_is_quick_is_always_fresh():
    slow = Slow()
    for slow.version in range(20):
        assert slow.kept.get() == slow.version
        assert slow.kept.get() == slow.version
    assert slow.times == 20


def test_who_asks_for_what_is_slow_gets_the_last_one_soon():
    slow = Slow(0.5)
    assert slow.kept.last() is None and slow.times == 0
    assert slow.kept.peek() is None
    assert slow.kept.get() == 0  # the first one is waited for
    slow.version = 1
    assert slow.kept.last() == 0 and slow.times == 1
    started = time.monotonic()
    assert slow.kept.get() == 0 and time.monotonic() - started < 0.4
    time.sleep(0.6)
    assert slow.kept.get() == 0 and slow.times == 1  # it rests as long as nine computations


def test_after_its_rest_it_is_computed_again():
    slow = Slow(0.15)
    assert slow.kept.get() == 0
    slow.version = 1
    end = time.monotonic() + 20
    while slow.kept.get() == 0:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert slow.kept.get() == 1 and slow.times == 2


def test_many_at_once_are_served_by_one_computation():
    slow = Slow(0.3)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(slow.kept.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [0] * 8 and slow.times == 1


def test_an_error_is_raised_and_tried_again():
    slow = Slow()
    slow.error = ValueError("broken")
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            slow.kept.get()
    slow.error = None
    assert slow.kept.get() == 0
    slow.error, slow.version = ValueError("broken"), 1
    with pytest.raises(ValueError, match="broken"):
        slow.kept.get()
