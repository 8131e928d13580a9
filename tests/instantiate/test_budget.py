"""Budgets: tuning ends on time with the best so far, however long a candidate takes."""

from __future__ import annotations

import itertools
import math
import threading
import time
from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import pytest

from prism_jax import device, instantiate
from prism_jax.explore import Form, search
from prism_jax.extract import extract
from prism_jax.instantiate import Choice, Judge, Plan, Schedule, choice, host, spent
from prism_jax.instantiate.shortlist import shortlist
from prism_jax.launch import build, rooms
from prism_jax.measure import pairs as pairs_room
from prism_jax.options import Options

H100 = device.row("H100")
HOST = device.row("CPU")


def scores(x: Any, y: Any) -> Any:
    return jax.nn.softmax(x @ y, axis=-1)


SHAPES = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((512, 64), (64, 512))]
(REGION,) = extract(jax.make_jaxpr(scores)(*SHAPES), name="scores").regions
FOUND = search(REGION.program, [Form(REGION.program)], H100, 5.0)
ON_HOST = search(REGION.program, [Form(REGION.program)], HOST, 5.0)
assert min(len(FOUND.candidates), len(ON_HOST.candidates)) > 3


class Clock:
    """A clock that only moves when somebody works, so that a second is a second on any machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(choice, "time", self)
        monkeypatch.setattr(host, "time", self)
        monkeypatch.setattr(spent, "time", self)

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


class Tuned:
    """Stands for the tuning of kernels: the model's choice, at once."""

    def __init__(self, candidate: Any, row: Any) -> None:
        self.candidate, self.row, self.seconds = candidate, row, candidate.estimate
        self.whole = candidate.kernels == len(candidate.sgraph.nodes)

    def refine(self, *_: Any) -> None:
        pass

    def plan(self) -> Plan:
        schedules = tuple(Schedule() for _ in self.candidate.sgraph.kernels)
        sizes = self.candidate.sizes
        return Plan(self.candidate.sgraph, "triton", self.row.name, sizes, schedules)


def surveyed(candidates: Any, row: Any, *_: Any) -> list[Tuned]:
    return [Tuned(candidate, row) for candidate in candidates]


@pytest.mark.parametrize("compiling", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("budget", [0.0, 1.0, 5.0, 60.0])
def test_no_candidate_is_begun_that_would_end_late(
    budget: float, compiling: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(choice, "survey", surveyed)
    ends: list[float] = []

    class Slow:
        def functions(self, plans: Any, deadline: float) -> list[Any]:
            clock.now += compiling
            return [lambda *_: () for _ in plans]

    def pair(reference: Any, candidate: Any) -> Any:
        clock.now += 0.5
        return 1.0, 0.5 - 0.01 * len(ends), 1.9, 2.1

    def verify(plan: Any, function: Any) -> Any:
        clock.now += 0.1
        ends.append(clock.now)
        return True, 0.5, "", "evidence"

    unused: Any = None
    options = Options(tune_seconds=budget)
    judge = Judge(unused, pair, verify)
    made = Choice(REGION.program, FOUND, H100, options, Slow(), unused, judge)
    outcome = made.run()
    one = compiling + 0.6
    # The first candidate's time is not known before: it alone may end late.
    assert clock.now - 100.0 <= max(budget * 1.1, one if budget else 0.0)
    assert (outcome.plan is not None) == (budget > 0.0)
    if budget and len(ends) < len(outcome.tried):
        assert any(row.refused for row in outcome.tried)
    assert dict(outcome.split) == pytest.approx(
        {"compile": compiling * len(ends), "measure": 0.5 * len(ends), "verify": 0.1 * len(ends)}
    )


class AtOnce:
    def functions(self, plans: Any, deadline: float) -> list[Any]:
        return [lambda *_: () for _ in plans]


def pair_faster_each_time() -> Any:
    times = itertools.count()
    return lambda *_: (1.0, 0.5 - 0.01 * next(times), 1.9, 2.1)


def accept(plan: Any, function: Any) -> Any:
    return True, 0.5, "", "evidence"


@pytest.mark.parametrize("ran", [True, False])
def test_what_was_measured_goes_before_the_bound(
    ran: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is of operands that come from memory; what was measured may be faster."""

    def surveyed_or_not(candidates: Any, row: Any, *_: Any) -> list[Tuned]:
        tunings = surveyed(candidates, row)
        for tuning in tunings:
            tuning.seconds = tuning.seconds if ran else math.inf
        return tunings

    monkeypatch.setattr(choice, "survey", surveyed_or_not)
    unlikely = tuple(replace(c, bound=1.0) if c.kernels else c for c in FOUND.candidates)
    found, unused = replace(FOUND, candidates=unlikely), cast(Any, None)
    judge = Judge(unused, pair_faster_each_time(), accept)
    options = Options(tune_seconds=60.0)
    outcome = Choice(REGION.program, found, H100, options, AtOnce(), unused, judge).run()
    refused = [row.refused for row in outcome.tried if row.plan.backend == "triton"]
    assert len(refused) > 1
    assert ("its bound is no better than the plan chosen" in refused) != ran


def test_the_reference_is_compiled_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def listed(*given: Any) -> Any:
        calls.append("shortlist")
        return shortlist(*given)

    def watched(*given: Any) -> Any:
        calls.append("survey")
        return surveyed(*given)

    monkeypatch.setattr(choice, "shortlist", listed)
    monkeypatch.setattr(choice, "survey", watched)
    unused = cast(Any, None)
    prepare: Any = lambda expected_s: calls.append("prepare")  # noqa: E731
    judge = Judge(unused, pair_faster_each_time(), accept, prepare)
    options = Options(tune_seconds=60.0)
    Choice(REGION.program, FOUND, H100, options, AtOnce(), unused, judge).run()
    assert calls == ["prepare", "shortlist", "survey"]
    calls.clear()
    own = tuple(c for c in FOUND.candidates if c.why == "XLA")
    alone = replace(FOUND, candidates=own)
    Choice(REGION.program, alone, H100, options, AtOnce(), unused, judge).run()
    assert calls == ["shortlist"]  # there is nothing to compare


@pytest.mark.parametrize("compiling", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("budget", [0.0, 1.0, 5.0, 60.0])
def test_a_contest_on_a_host_leaves_time_to_check(
    budget: float, compiling: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    checked: list[float] = []

    def measure(functions: Any, sgraph: Any, deadline: float) -> list[float | str]:
        found: list[float | str] = []
        for function in functions:
            if clock.now >= deadline:
                found.append("not measured: no time left")
                continue
            clock.now += compiling
            found.append(1.0 if function is reference else 0.5)
        return found

    def reference(*_: Any) -> Any:
        raise AssertionError("not run here")

    def pair(_: Any, candidate: Any) -> Any:
        clock.now += 0.5
        return 1.0, 0.5, 1.9, 2.1

    def verify(plan: Any, function: Any) -> Any:
        clock.now += 0.1
        checked.append(clock.now)
        return True, 0.5, "", "evidence"

    class Quick:
        def functions(self, plans: Any, deadline: float) -> list[Any]:
            return [lambda *_: () for _ in plans]

    options, judge = Options(tune_seconds=budget), Judge(measure, pair, verify)
    made = Choice(REGION.program, ON_HOST, HOST, options, Quick(), reference, judge)
    outcome = made.run()
    # One compilation may end after the contest's share; then there is one check.
    assert clock.now - 100.0 <= (host.SHARES[-1] * budget + compiling + 0.6 if budget else 0.0)
    if (
        compiling < host.SHARES[0] * budget * host.CHECK_SHARE / host.SHARES[1]
    ):  # beside the reference, one plan at least is measured
        assert outcome.plan is not None
    assert len(checked) == (outcome.plan is not None)

    checked.clear()
    stopped = Choice(REGION.program, ON_HOST, HOST, options, Quick(), reference, judge)
    stopped.stop()
    assert stopped.run().plan is None
    assert not checked


def test_the_best_so_far_is_returned_when_a_candidate_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second candidate hangs: the first is the answer, within a tenth of the budget."""
    began, release = [0], threading.Event()

    class Builder:
        def __init__(self, row: Any) -> None:
            del row

        def functions(self, plans: Any, deadline: float) -> list[Any]:
            began[0] += 1
            if began[0] == 2:
                release.wait(30.0)
            return [lambda *_: () for _ in plans]

    class Pairs:
        def __init__(self, *_: Any) -> None: ...

        def against(self, candidate: Any) -> Any:
            return 1.0, 0.5, 1.9, 2.1

    monkeypatch.setattr(choice, "survey", surveyed)
    monkeypatch.setattr(build, "Builder", Builder)
    monkeypatch.setattr(pairs_room, "Pairs", Pairs)
    monkeypatch.setattr(rooms, "_check", lambda *_: (True, 0.5, "", "evidence"))
    target = rooms.Target("H100", {}, lambda: H100)
    assert instantiate.Choice is Choice
    start = time.monotonic()
    try:
        outcome = rooms.choose(REGION, FOUND, target, Options(tune_seconds=1.0))
        seconds = time.monotonic() - start
    finally:
        release.set()
    assert outcome.plan is not None
    assert began[0] == 2
    assert 0.9 < seconds < 1.35  # 1.05 x the budget + 0.05 s, and what a busy machine adds


def test_on_a_host_a_candidate_that_does_not_end_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """XLA's compiler is stuck in one plan of the contest: the others decide, within the budget."""
    release, built = threading.Event(), list[Plan]()

    class Builder:
        def __init__(self, row: Any) -> None:
            del row

        def functions(self, plans: Any, deadline: float) -> list[Any]:
            built.extend(plans)
            return [hangs if plan == built[0] else quick for plan in plans]

    def hangs(x: Any, y: Any) -> tuple[Any]:
        release.wait(30.0)
        return (x @ y,)

    def quick(x: Any, y: Any) -> tuple[Any]:
        return (x[:, :1] @ y[:1],)

    monkeypatch.setattr(build, "Builder", Builder)
    monkeypatch.setattr(rooms, "_check", lambda *_: (True, 0.5, "", "evidence"))
    target = rooms.Target("CPU", {}, lambda: HOST)
    start = time.monotonic()
    try:
        outcome = rooms.choose(REGION, ON_HOST, target, Options(tune_seconds=4.0))
        seconds = time.monotonic() - start
    finally:
        release.set()
    assert built.count(built[0]) == 1, "what did not end is not tried again"
    assert [n for why, n in outcome.trials.refusals.items() if "did not end" in why] == [1]
    assert outcome.plan is not None
    assert outcome.plan != built[0]
    assert seconds < 4.4


def test_where_the_time_goes_is_known_while_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of what is cut off; XLA's compiling is not counted as measuring."""
    clock, compiled = Clock(monkeypatch), [0.0]
    monkeypatch.setattr(spent.compat, "compile_seconds", lambda: compiled[0])
    mine = spent.Spent()

    def measure() -> dict[str, float]:
        clock.now += 3.0
        compiled[0] += 2.0
        return dict(mine.so_far())

    assert mine.timed("measure", measure)() == {"compile": 2.0, "measure": 1.0, "verify": 0.0}
    with pytest.raises(ZeroDivisionError):
        mine.timed("verify", lambda: measure() and 1 / 0)()
    assert dict(mine.so_far()) == {"compile": 4.0, "measure": 1.0, "verify": 1.0}
    compiled[0] += 50.0  # by others
    assert dict(mine.so_far()) == {"compile": 4.0, "measure": 1.0, "verify": 1.0}


def test_what_goes_on_at_the_same_time_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring beside compiling is hidden by it; the kinds add up to the time that passes."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(spent.compat, "compile_seconds", lambda: 0.0)
    mine = spent.Spent()
    began, go = threading.Event(), threading.Event()

    def measure() -> None:
        began.set()
        assert go.wait(20.0)

    class Compiler:
        def functions(self, plans: Any, deadline: float) -> Any:
            clock.now += 1.0
            yield "first"
            beside.start()
            assert began.wait(20.0)
            clock.now += 2.0
            yield "second"

    beside = threading.Thread(target=mine.timed("measure", measure))
    made = mine.emitter(Compiler()).functions([], 0.0)
    assert next(iter(made)) == "first"
    clock.now += 10.0  # nothing of either goes on
    assert list(made) == ["second"]
    assert dict(mine.so_far()) == {"compile": 3.0, "measure": 0.0, "verify": 0.0}
    clock.now += 4.0
    go.set()
    beside.join(20.0)
    clock.now += 5.0
    assert dict(mine.so_far()) == {"compile": 3.0, "measure": 4.0, "verify": 0.0}


@pytest.mark.parametrize("budget", [0.5, 2.0, 4.0])
def test_a_real_call_keeps_to_its_budgets(budget: float) -> None:
    """Search, compiler, clocks and checks as they are; sizes at which all of them take long."""
    import prism_jax as prism
    from prism_jax import pipeline

    def kernel_sum(x: Any, y: Any, v: Any) -> Any:
        squares = jnp.sum(x * x, -1)[:, None] + jnp.sum(y * y, -1)[None, :] - 2 * x @ y.T
        return jnp.exp(-squares / 2) @ v

    pipeline.forget()
    options = Options(cache="off", search_seconds=1.0, tune_seconds=budget, on_error="raise")
    shapes = [jax.ShapeDtypeStruct((4096, n), jnp.float32) for n in (16, 16, 8)]
    (region,) = prism.explain(prism.jit(kernel_sum, options=options), *shapes).regions
    seconds = dict(region.stages)
    busy = 0.3  # what a machine with other work adds to any wait, whatever is waited for
    assert seconds["explore"] < 1.1 + busy
    assert seconds["instantiate"] < 1.1 * budget + busy
    assert region.candidates


@pytest.mark.parametrize(("checking", "checks"), [(0.2, 2), (9.0, 1)])
def test_on_a_host_in_a_hurry_there_is_an_answer_before_sizes_are_improved(
    checking: float, checks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What neighbours gain is checked too if there is time; if not, the first answer stands."""
    clock = Clock(monkeypatch)
    checked: list[Plan] = []
    batches: list[list[Any]] = []

    def reference(*_: Any) -> Any:
        raise AssertionError("not run here")

    def measure(functions: Any, sgraph: Any, deadline: float) -> list[float | str]:
        batches.append(list(functions))
        found: list[float | str] = []
        for function in functions:
            if clock.now >= deadline:
                found.append("not measured: no time left")
                continue
            clock.now += 1.5
            first = function is reference or function in batches[0]
            found.append(0.1 if function is reference else 0.05 if first else 0.025)
        return found

    def verify(plan: Any, function: Any) -> Any:
        clock.now += checking
        checked.append(plan)
        return True, 0.5, "", "evidence"

    class Quick:
        def functions(self, plans: Any, deadline: float) -> list[Any]:
            return list(plans)

    def pair(_: Any, candidate: Any) -> Any:
        seconds = 0.05 if candidate in batches[0] else 0.025
        return 0.1, seconds, 0.1 / seconds, 0.1 / seconds

    options, judge = Options(tune_seconds=14.0), Judge(measure, pair, verify)
    made = Choice(REGION.program, ON_HOST, HOST, options, Quick(), reference, judge)
    outcome = made.run()
    assert outcome.trials.refusals["not measured: no time left"] > 0, "there is a hurry"
    assert len(checked) == checks
    assert outcome.plan == checked[-1]
    assert (outcome.gain or 0.0) == pytest.approx(2.0 * checks)
    assert checked[0] in batches[0]
    assert len(outcome.tried) == len({row.plan for row in outcome.tried}), "none is told twice"
