"""The stages in order: jaxpr, regions, sGraphs, a plan that is proved, tested and fastest, kernels.

In: a closed jaxpr and options. Out: a `Rewritten`, a function of the same arrays. Invariant: it
computes what the jaxpr computes, in the same shapes, dtypes and weak types; whatever stage fails,
the equations concerned run as jax would run them, and one warning says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import threading
from collections import defaultdict
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prism_jax import compat, errors
from prism_jax.launch import Cut, Executable, Kept, Rewritten, Step
from prism_jax.options import Options
from prism_jax.report import Decision, RegionReport, StageFailure, StageLog


def rewrite(closed: compat.ClosedJaxpr, name: str, optimizer: Optimizer) -> Rewritten:
    """Cut a program into regions and plan each of them."""
    stages, options, log = optimizer.stages, optimizer.options, StageLog()
    steps: tuple[Step, ...] = (Kept(tuple(closed.eqns)),)
    if closed.eqns and all(map(compat.is_local, closed.in_avals)):
        try:
            with compat.outside_trace():
                device = log.run("device", stages.device, options)
                cut = log.run("extract", stages.extract, closed, options, name)
                _note(device, cut)
                steps = tuple(_step(step, name, device, optimizer) for step in cut.steps)
        except StageFailure as failure:
            errors.fallback(failure.stage, name, failure.error, options.on_error)
        except (errors.PrismError, errors.PrismWarning):  # a region's own failure, to be raised
            raise
        except Exception as error:
            errors.fallback("pipeline", name, error, options.on_error)
    return Rewritten(closed, steps, optimizer)


def plan(region: Any, device: Any, options: Options, stages: Stages) -> Decision:
    """Decide what runs for one region: from its program to its kernels."""
    program, log, runs, chosen = region.program, StageLog(), None, None
    try:
        found = log.run("explore", stages.explore, program, device, options)
        chosen = log.run("instantiate", stages.instantiate, region, found, device, options)
        if (best := chosen.plan) is not None:
            built: Any = log.run("emit", stages.emit, chosen)
            runs = Executable(best.digest, best.backend, built.call)
    except StageFailure as failure:
        return Decision(None, log.report(region.name, program, failure), failure)
    return Decision(runs, log.report(region.name, program), chosen=chosen)


# -- what goes through the two functions above -----------------------------------------------------


@dataclass(frozen=True)
class Stages:
    """The rooms that the pipeline calls, so that a test can put others in their place.

    `extract` returns steps: what has a `program` is a region, what has `eqns` is left alone.
    `instantiate` builds, verifies and measures candidates; it returns the `plan` that won, or None.
    `cache` answers for a region with what it holds, or by planning, for which it is given a
    function of the settings.
    """

    device: Callable[[Options], Any]  # -> Device
    extract: Callable[[compat.ClosedJaxpr, Options, str], Any]  # -> Extraction
    inside: Callable[[compat.JaxprEqn, Callable[..., Any]], compat.JaxprEqn]
    explore: Callable[[Any, Any, Options], Any]  # Program, Device -> SearchResult
    instantiate: Callable[[Any, Any, Any, Options], Any]  # Region, SearchResult, Device -> Outcome
    emit: Callable[[Any], Any]  # instantiate's Outcome -> Built: a function, and its source
    cache: Callable[[Any, Any, Options, Callable[[Options], Decision]], Decision] = (
        lambda region, device, options, plan: plan(options)
    )


@dataclass(frozen=True)
class Optimizer:
    """Settings and stages. As a value it is the `replan` of a `prism_call`: what batching and
    differentiation make of a region goes through the same stages.
    """

    options: Options
    stages: Stages

    @property
    def on_error(self) -> str:
        """What a failure does: "warn" or "raise"."""
        return self.options.on_error

    def __call__(self, closed: compat.ClosedJaxpr, name: str) -> Rewritten:
        """`closed` with its regions planned."""
        return rewrite(closed, name, self)

    def __repr__(self) -> str:  # it is printed in every jaxpr that holds a `prism_call`
        return "<prism_jax>"


# -- one step of a program -------------------------------------------------------------------------


def _step(step: Any, name: str, device: Any, optimizer: Optimizer) -> Step:
    journal = _journal.get() or Journal()
    if not hasattr(step, "program"):
        journal.untouched += len(step.eqns)
        inner = functools.partial(_inner, name, optimizer)
        eqns = tuple(optimizer.stages.inside(eqn, inner) for eqn in step.eqns)
        changed = any(new is not old for new, old in zip(eqns, step.eqns, strict=True))
        return Kept(eqns, changed)
    outcome = _planned(step, device, optimizer)
    number = journal.note(step.name, outcome.report, step.program.digest)
    if outcome.failure is not None:
        failure = outcome.failure
        errors.fallback(failure.stage, step.name, failure.error, optimizer.on_error)
    asked = journal.only is None or number in journal.only
    return Cut(step, outcome.runs if asked else None)


def _inner(name: str, optimizer: Optimizer, inner: compat.ClosedJaxpr) -> compat.ClosedJaxpr:
    """A program inside an equation (a loop's body, a branch, ...), rewritten if that changes it."""
    rewritten = rewrite(inner, name, optimizer)
    return compat.trace_flat(rewritten, inner.in_avals) if rewritten.changed else inner


def _note(device: Any, cut: Any) -> None:
    journal = _journal.get()
    if journal is not None:
        journal.device = device.name
        journal.refused.update(dict.fromkeys(cut.refused))


_memo: dict[Any, Decision] = {}
_working: defaultdict[Any, threading.Lock] = defaultdict(threading.Lock)
_memo_lock = threading.Lock()


def _planned(region: Any, device: Any, optimizer: Optimizer) -> Decision:
    """What the cache holds, or `plan`: once per program, device and settings in this process,
    whichever thread asks.
    """
    options, stages = optimizer.options, optimizer.stages
    key = (region.program.digest, options.key(), device.name, stages)
    with _memo_lock:
        working = _working[key]
    with working:
        if (known := _memo.get(key)) is None:
            known = stages.cache(region, device, options, lambda o: plan(region, device, o, stages))
            if known.lasting:
                _memo[key] = known
        return known


def forget() -> None:
    """Forget every plan of this process (for tests and measurements)."""
    with _memo_lock:
        _memo.clear()
        _working.clear()


# -- listening -------------------------------------------------------------------------------------


@dataclass
class Journal:
    """What was found while functions were rewritten, in the order of their regions.

    `only` limits replacement to the regions of these numbers; None: all may be replaced.
    """

    only: frozenset[int] | None = None
    regions: list[RegionReport] = field(default_factory=list[RegionReport])
    untouched: int = 0
    refused: dict[str, None] = field(default_factory=dict[str, None])
    device: str = ""
    _seen: set[str] = field(default_factory=set[str])

    def note(self, name: str, report: RegionReport, digest: str) -> int:
        """Append a region and return its number. Equal programs are planned once, so that the time
        it took is the first one's.
        """
        stages = report.stages if digest not in self._seen else ()
        self._seen.add(digest)
        self.regions.append(dataclasses.replace(report, name=name, stages=stages))
        return len(self.regions) - 1


_journal: ContextVar[Journal | None] = ContextVar("prism_jax_journal", default=None)


@contextlib.contextmanager
def listening(only: frozenset[int] | None = None) -> Generator[Journal]:
    """Everything that is rewritten inside the block, also by transformations and nested calls.

    Args:
      only: the numbers of the regions that may be replaced; None: all.
    """
    journal = Journal(only)
    token = _journal.set(journal)
    try:
        yield journal
    finally:
        _journal.reset(token)


# -- the rooms -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _uncollected() -> Generator[None]:
    """No garbage collection inside: what imports allocate stays, and looking through all objects of
    jax for garbage takes 50 ms, a third of what a process with a warm cache may lose.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@functools.cache
def default_stages() -> Stages:
    """The rooms of this package, imported when the first function is rewritten."""
    with _uncollected():
        from prism_jax import extract
        from prism_jax.cache import remembered
        from prism_jax.launch import rooms

    return Stages(
        device=rooms.target,
        extract=extract.extract,
        inside=extract.rewrite_subjaxprs,
        explore=rooms.explore,
        instantiate=rooms.choose,
        emit=lambda outcome: outcome.function,
        cache=remembered,
    )
