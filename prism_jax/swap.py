"""`tune="background"`: the plans of a function take the place of XLA's version when they are ready.

In: a jitted function of ours, the types of one call, the jobs that plan its regions. Out: nothing;
after the last job, calls of these types run the plans. How: jax's cache of traces forgets the
function while what it has compiled goes on answering; the background thread lowers and compiles the
new version; then the compiled old one is forgotten, and the next call finds the new one ready.

Invariants: no call waits for planning or for compiling a swapped version; the user's function is
not run again (`Traces` keeps what it was traced to); a call costs what a call of `jax.jit` costs,
before and after, since nothing of ours stands in its way. What is not seen: a function inside
another `jax.jit` stays as it was traced there until that is traced anew.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from prism_jax import background, compat, errors
from prism_jax.options import scope_of
from prism_jax.trace import Traced

POLL_SECONDS = 0.02


@dataclass(eq=False)
class Traces:
    """What a function was traced to, by the types of its arguments; the `jax.jit`s around it."""

    jitted: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    _known: dict[Hashable, Traced] = field(default_factory=dict[Hashable, Traced])

    def get(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], make: Callable[[], Traced]
    ) -> Traced:
        """The trace of a call: an earlier one of equal types, or the one that `make` makes."""
        leaves, tree = jax.tree.flatten((tuple(args), dict(kwargs)))
        key = tree, tuple(map(_kind, leaves)), compat.context_key()
        try:
            found = self._known.get(key)
        except TypeError:  # a static argument that cannot be hashed: jax will say so
            return make()
        if found is None:
            found = make()
            if not any(map(compat.is_tracer, compat.constants(found.jaxpr))):
                self._known[key] = Traced(found.jaxpr, (), found.out_tree, found.name)
            return found
        inputs = tuple(leaf for leaf in leaves if compat.is_tracer(leaf))
        return Traced(found.jaxpr, inputs, found.out_tree, found.name)


def _kind(leaf: Any) -> Hashable:
    return compat.aval_of(leaf) if compat.is_tracer(leaf) else (type(leaf), leaf)


def when_ready(
    jobs: Sequence[background.Job], traces: Traces, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Swaps the plans in for calls of these types once all jobs have ended."""
    types = jax.tree.map(_spec, (tuple(args), dict(kwargs)))
    scope, wide = scope_of(), compat.numerics()["jax_enable_x64"]
    left, lock = [len(jobs)], threading.Lock()
    called = _when_over(compat.call_under_way())

    def ended() -> None:
        with lock:
            left[0] -= 1
            if left[0]:
                return
        try:
            called.wait()
            with jax.enable_x64(wide), scope():
                for jitted in list(traces.jitted):
                    _swap(jitted, *types)
        except Exception as error:
            errors.note(f"background: {errors.cause_of(error)}; XLA's version stays", error)

    for job in jobs:
        job.then(ended)


def _when_over(under_way: Callable[[], bool]) -> threading.Event:
    """Set when the call that asked for the plans has returned: what it puts into jax's caches after
    the swap would stay there. Asked from the start, while its frame is certainly that call's.
    """
    over = threading.Event()

    def watch() -> None:
        while under_way() and not background.queue.closed:
            time.sleep(POLL_SECONDS)
        over.set()

    background.queue.follow(watch)
    return over


def _swap(jitted: Any, args: Any, kwargs: Any) -> None:
    if background.queue.closed:
        return
    if compat.forget_traces(jitted):
        jitted.lower(*args, **kwargs).compile()
    compat.forget_compiled(jitted)


def _spec(leaf: Any) -> Any:
    return compat.spec_of(leaf) if compat.is_tracer(leaf) else leaf
