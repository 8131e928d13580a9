"""Where the time of instantiation goes: compiling, measuring, verifying.

In: the functions that the stages lend. Out: the same functions, whose time is added up by kind.
XLA's compiler works inside of what measures and verifies; its time counts as compiling.

>>> spent = Spent()
>>> spent.timed("measure", lambda x: x + 1)(2)
3
>>> [kind for kind, _ in spent.so_far()]
['compile', 'measure', 'verify']
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from prism_jax import compat
from prism_jax.instantiate.plan import Plan
from prism_jax.instantiate.tune import Emitter, Function

__all__ = ["Spent"]

P = ParamSpec("P")
T = TypeVar("T")


class Spent:
    """Seconds by kind; one for each choice."""

    def __init__(self) -> None:
        self._seconds = {"compile": 0.0, "measure": 0.0, "verify": 0.0}
        self._running: tuple[str, float, float] | None = None

    def timed(self, kind: str, function: Callable[P, T]) -> Callable[P, T]:
        """The function, with its time counted as of this kind, less what XLA compiled in it."""

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            self._running = kind, time.perf_counter(), compat.compile_seconds()
            try:
                return function(*args, **kwargs)
            finally:
                self._seconds, self._running = dict(self.so_far()), None

        return run

    def so_far(self) -> tuple[tuple[str, float], ...]:
        """The seconds of each kind, with what runs now; any thread may ask."""
        seconds, running = dict(self._seconds), self._running
        if running is not None:
            kind, start, before = running
            took = time.perf_counter() - start
            # What several threads compile at once takes no longer than all of it together.
            compiling = min(took, compat.compile_seconds() - before)
            seconds["compile"] += compiling
            seconds[kind] += took - compiling
        return tuple(seconds.items())

    def emitter(self, emitter: Emitter) -> Emitter:
        """The emitter, whose work counts as compiling."""
        return _Timed(self.timed("compile", emitter.functions))


@dataclass(frozen=True)
class _Timed:
    run: Callable[[Sequence[Plan], float], Sequence[Function | str]]

    def functions(self, plans: Sequence[Plan], deadline: float) -> Sequence[Any]:
        return self.run(plans, deadline)
