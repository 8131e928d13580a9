"""Where the time of instantiation goes: compiling, measuring, verifying.

In: the functions that the stages lend. Out: the same functions, whose time is added up by kind.
XLA's compiler works inside of what measures and verifies; its time counts as compiling. What goes
on at the same time counts once, so that the kinds add up to the time that passes.

>>> spent = Spent()
>>> spent.timed("measure", lambda x: x + 1)(2)
3
>>> [kind for kind, _ in spent.so_far()]
['compile', 'measure', 'verify']
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from prism_jax import compat
from prism_jax.instantiate.plan import Plan
from prism_jax.instantiate.tune import Emitter, Function

__all__ = ["Spent"]

P = ParamSpec("P")
T = TypeVar("T")


KINDS = ("compile", "verify", "measure")
"""What a moment counts as, where several go on: the first of these."""


class Spent:
    """Seconds by kind; one for each choice. Any thread may do timed work, or ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {"compile": 0.0, "measure": 0.0, "verify": 0.0}
        self._active: dict[str, int] = dict.fromkeys(KINDS, 0)
        self._since = 0.0, 0.0
        """The last change: when, and what XLA had compiled by then."""

    def timed(self, kind: str, function: Callable[P, T]) -> Callable[P, T]:
        """The function, with its time counted as of this kind, less what XLA compiled in it."""

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            self._change(kind, 1)
            try:
                return function(*args, **kwargs)
            finally:
                self._change(kind, -1)

        return run

    def _change(self, kind: str, by: int) -> None:
        with self._lock:
            self._settle()
            self._active[kind] += by

    def _settle(self) -> None:
        """Counts the time since the last change."""
        before, compiled = self._since
        self._since = time.perf_counter(), compat.compile_seconds()
        kind = next((kind for kind in KINDS if self._active[kind]), None)
        if kind is not None:
            took = self._since[0] - before
            # What several threads compile at once takes no longer than all of it together.
            compiling = min(took, self._since[1] - compiled)
            self._seconds["compile"] += compiling
            self._seconds[kind] += took - compiling

    def so_far(self) -> tuple[tuple[str, float], ...]:
        """The seconds of each kind, with what runs now."""
        with self._lock:
            self._settle()
            return tuple(self._seconds.items())

    def emitter(self, emitter: Emitter) -> Emitter:
        """The emitter, whose work counts as compiling."""
        return _Timed(self, emitter)


@dataclass(frozen=True)
class _Timed:
    spent: Spent
    emitter: Emitter

    def functions(self, plans: Sequence[Plan], deadline: float) -> Iterator[Function | str]:
        made = iter(self.spent.timed("compile", self.emitter.functions)(plans, deadline))
        more = self.spent.timed("compile", lambda: list(itertools.islice(made, 1)))
        while found := more():
            yield from found
