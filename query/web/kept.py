"""A value that takes long to compute, such as the size or the counts of a large index."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

_PATIENCE_S = 0.1
_REST = 9
"""After a computation that took longer than the patience, the next one waits as many times that long."""


class Kept(Generic[T]):
    """Computed again, in another thread, when `version` has changed. A caller waits for it only briefly if there is an
    older value, and then gets that one. So a small index is always shown as it is, and a large one costs a tenth of a
    processor at most. Safe to use from several threads.
    """

    def __init__(self, compute: Callable[[], T], version: Callable[[], Hashable]) -> None:
        self._compute = compute
        self._version = version
        self._turn = threading.Condition()
        self._value: tuple[Hashable, T] | None = None
        self._error: Exception | None = None
        self._running = False
        self._next = 0.0

    def get(self) -> T:
        """The value, after the first computation. Raises what the computation raises."""
        found = self._waited(None if self._value is None else _PATIENCE_S)
        assert found is not None
        return found[1]

    def peek(self) -> T | None:
        """The same, but None while the first computation takes long."""
        found = self._waited(_PATIENCE_S)
        return None if found is None else found[1]

    def last(self) -> T | None:
        """The value as it was computed last, at once; None if it never was."""
        return None if self._value is None else self._value[1]

    def _waited(self, patience: float | None) -> tuple[Hashable, T] | None:
        version = self._version()
        until = None if patience is None else time.monotonic() + patience
        with self._turn:
            while self._value is None or self._value[0] != version:
                if not self._running:
                    if time.monotonic() < self._next:
                        break
                    self._begin(version)
                if not self._turn.wait(None if until is None else max(0.0, until - time.monotonic())):
                    break
                if self._error is not None:
                    raise self._error
            return self._value

    def _begin(self, version: Hashable) -> None:
        self._running, self._error = True, None
        threading.Thread(target=self._run, args=(version,), daemon=True).start()

    def _run(self, version: Hashable) -> None:
        started = time.monotonic()
        value: T | None = None
        error: Exception | None = None
        try:
            value = self._compute()
        except Exception as problem:
            error = problem
        took = time.monotonic() - started
        with self._turn:
            self._running, self._error = False, error
            if error is None:
                self._value = version, value  # type: ignore[assignment]
                self._next = time.monotonic() + (_REST * took if took > _PATIENCE_S else 0)
            self._turn.notify_all()
