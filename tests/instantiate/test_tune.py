"""Tuning within its time: every kernel of a plan gets its turn, and what is hopeless gets none."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from prism_jax import device, explore
from prism_jax.emit import compile as toolchain
from prism_jax.emit.binary import KernelSource
from prism_jax.explore import Candidate, Form, search
from prism_jax.extract import lift
from prism_jax.instantiate import Judge, Plan, choose, rank, tune
from prism_jax.instantiate.rank import Ranking
from prism_jax.instantiate.shortlist import shortlist
from prism_jax.instantiate.tune import Trials
from prism_jax.ir.sgraph import SGraph
from prism_jax.launch import build
from prism_jax.options import Options
from tests.instantiate.tuned import tuned

H100 = device.row("H100")


@pytest.fixture(scope="module")
def candidates() -> Sequence[Candidate]:
    """Ways to compute a gated product."""

    def gated(x: Any, a: Any, b: Any) -> Any:
        return jax.nn.silu(x @ a) * (x @ b)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float16) for s in ((64, 512), (512, 512), (512, 512))]
    program = lift(jax.make_jaxpr(gated)(*shapes), "gated")
    return search(program, [Form(program)], H100).candidates


@pytest.fixture
def candidate(candidates: Sequence[Candidate]) -> Candidate:
    """The structure of the most kernels."""
    return max(candidates, key=lambda c: len(c.sgraph.kernels))


def another(candidate: Candidate) -> Candidate:
    """One with kernels of its own: it computes in another dtype."""
    graph = replace(candidate.sgraph, compute="float64")
    return replace(candidate, make=lambda: (graph, candidate.form))


class Compiler:
    """Compiles so many plans and no more, as one whose time is over."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, list[Plan]()

    def functions(self, plans: Sequence[Plan], deadline: float) -> Iterable[Any]:
        self.asked += plans
        return [p if n < self.most else "not compiled: no time left" for n, p in enumerate(plans)]


def clock(functions: Sequence[Any], sgraph: SGraph, deadline: float) -> list[float | str]:
    return [1.0] * len(functions)


def soon() -> float:
    return time.monotonic() + 60.0


def test_every_kernel_gets_its_turn(candidate: Candidate) -> None:
    kernels = candidate.sgraph.kernels
    assert len(kernels) > 1
    compiler = Compiler(len(kernels))
    plan = tuned(candidate, H100, compiler, clock, soon(), Trials())
    assert plan is not None
    assert len(plan.schedules) == len(kernels)
    first = [p.sgraph.kernels[0].name for p in compiler.asked[: len(kernels)]]
    assert sorted(first) == sorted(k.name for k in kernels)
    assert tuned(candidate, H100, Compiler(len(kernels) - 1), clock, soon(), Trials()) is None


def test_compiling_leaves_time_to_measure(candidate: Candidate) -> None:
    deadlines: list[float] = []

    class Watch(Compiler):
        def functions(self, plans: Sequence[Plan], deadline: float) -> Iterable[Any]:
            deadlines.append(deadline)
            return super().functions(plans, deadline)

    end = soon()
    tuned(candidate, H100, Watch(10), clock, end, Trials())
    assert all(deadline < end - 8.0 for deadline in deadlines)


def test_measuring_does_not_wait_for_the_last_kernel(candidate: Candidate) -> None:
    """What is compiled is timed while the next is being compiled; who tried what stays in order."""
    timed, early = threading.Event(), list[bool]()
    lock, at_once = threading.Lock(), [0]

    class Slow(Compiler):
        def functions(self, plans: Sequence[Plan], deadline: float) -> Iterator[Any]:
            self.asked += plans
            for n, plan in enumerate(plans):
                if n == len(plans) - 1:
                    early.append(timed.wait(20.0))
                yield plan

    def watching(functions: Sequence[Any], sgraph: SGraph, deadline: float) -> list[float | str]:
        with lock:
            at_once[0] += 1
            assert at_once[0] == 1, "two are timed at once"
        timed.set()
        names = {kernel.name for plan in functions for kernel in plan.sgraph.kernels}
        assert names == {kernel.name for kernel in sgraph.kernels}
        time.sleep(0.01)
        with lock:
            at_once[0] -= 1
        return [1.0 + n for n in range(len(functions))]

    trials = Trials()
    compiler = Slow(10**6)
    (tuning,) = tune.survey([candidate], H100, compiler, watching, soon(), trials, {})
    assert early
    assert all(early)
    assert trials.measured == trials.compiled == len(compiler.asked) == len(trials.rows)
    expected = {name: 0.0 for name, *_ in trials.rows}
    for name, *_, seconds in trials.rows:  # a kernel's tries in their order, kernel after kernel
        assert seconds in (1.0, expected[name] + 1.0)
        expected[name] = seconds
    assert tuning.seconds == len(candidate.sgraph.kernels)


def test_the_first_candidate_is_timed_before_the_second_is_compiled(candidate: Candidate) -> None:
    """Where the time ends early, the best by the model has run as a whole."""
    kernels = len(candidate.sgraph.kernels)
    choices = len(tune.shared_values(candidate.sgraph, dict(candidate.sizes)))
    enough, timed = kernels * tune.LEAST_FIRST, threading.Semaphore(0)
    waited: list[bool] = []

    class Ending(Compiler):
        def functions(self, plans: Sequence[Plan], deadline: float) -> Iterator[Any]:
            if waited:
                return (yield from ["not compiled: no time left"] * len(plans))
            self.asked += plans
            yield from plans[:enough]
            waited.append(all(timed.acquire(timeout=20.0) for _ in range(kernels)))
            yield from ["not compiled: no time left"] * (len(plans) - enough)

    def telling(functions: Sequence[Any], sgraph: SGraph, deadline: float) -> list[float | str]:
        timed.release()
        return [1.0] * len(functions)

    both, compiler = [candidate, another(candidate)], Ending(0)
    first, second = tune.survey(both, H100, compiler, telling, soon(), Trials(), {})
    assert waited == [True]
    assert len(compiler.asked) >= 2 * choices * enough
    assert first.plan() is not None
    assert second.plan() is None


def test_the_models_choice_of_what_is_shared_comes_first(candidate: Candidate) -> None:
    """Of all candidates, before any other number of parts; a ranking is made once for each."""
    shared = tune.shared_values(candidate.sgraph, dict(candidate.sizes))
    [symbol] = shared[0]
    compiler = Compiler(0)
    both = [candidate, another(candidate)]
    tune.survey(both, H100, compiler, clock, soon(), Trials(), {})
    order = [(p.sgraph.compute, dict(p.sizes)[symbol]) for p in compiler.asked]
    first = [key for n, key in enumerate(order) if key not in order[:n]]
    assert first == [(c, s[symbol]) for s in shared for c in ("float32", "float64")]


def test_a_kernel_is_ranked_once(candidate: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Counted(Ranking):
        def __init__(self, *given: Any) -> None:
            made.append(given)
            super().__init__(*given)

    monkeypatch.setattr(tune, "Ranking", Counted)
    tune.survey([candidate] * 3, H100, Compiler(0), clock, soon(), Trials(), {})
    shared = tune.shared_values(candidate.sgraph, dict(candidate.sizes))
    assert len(made) == len(shared) * len(candidate.sgraph.kernels)


def test_refining_measures_while_it_compiles(
    candidates: Sequence[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a single kernel too: a few of its tries are timed before the last is compiled."""
    alone = next(c for c in candidates if c.kernels == len(c.sgraph.nodes) == 1)
    (tuning,) = tune.survey([alone], H100, Compiler(10**6), clock, soon(), Trials(), {})
    monkeypatch.setattr(rank, "NEAR", math.inf)
    timed, early = threading.Event(), list[bool]()

    class Slow(Compiler):
        def functions(self, plans: Sequence[Plan], deadline: float) -> Iterator[Any]:
            assert len(plans) > tune.LEAST_FIRST
            for n, plan in enumerate(plans):
                if n == len(plans) - 1:
                    early.append(timed.wait(20.0))
                yield plan

    def telling(functions: Sequence[Any], sgraph: SGraph, deadline: float) -> list[float | str]:
        timed.set()
        return [1.0] * len(functions)

    tuning.refine(Slow(0), telling, soon(), math.inf)
    assert early == [True]


def test_what_is_refused_is_tried_on(candidate: Candidate) -> None:
    """A candidate of which nothing runs at first is not forgotten for another that runs."""

    class Refusing(Compiler):
        """Refuses the first tries of one candidate's kernels."""

        def functions(self, plans: Sequence[Plan], deadline: float) -> Iterable[Any]:
            few = not self.asked
            self.asked += plans
            return [
                "registers" if few and plan.sgraph.compute == "float64" else plan for plan in plans
            ]

    both = [candidate, another(candidate)]
    tunings = tune.survey(both, H100, Refusing(0), clock, soon(), Trials(), {})
    assert all(tuning.plan() is not None for tuning in tunings)


def test_what_is_far_from_the_best_gets_a_few_tries_only(candidate: Candidate) -> None:
    asked: dict[str, list[int]] = {}

    def watch(
        slower: float, functions: Sequence[Any], sgraph: SGraph, deadline: float
    ) -> list[float | str]:
        return [slower if sgraph.compute == "float64" else 1.0] * len(functions)

    for slower in (tune.PROMISING - 0.01, tune.PROMISING + 0.01):
        compiler = Compiler(10**6)
        both, seen = [another(candidate), candidate], functools.partial(watch, slower)
        tune.survey(both, H100, compiler, seen, soon(), Trials(), {})
        for compute in ("float32", "float64"):
            mine = sum(plan.sgraph.compute == compute for plan in compiler.asked)
            asked.setdefault(compute, []).append(mine)
    most, choices = tune.LEAST_FIRST, tune.shared_values(candidate.sgraph, dict(candidate.sizes))
    near, far = asked["float64"]
    assert near > far
    assert far <= most * len(choices) * len(candidate.sgraph.kernels)
    assert asked["float32"] == [near, near]


def test_a_clock_that_fails_is_an_error(candidate: Candidate) -> None:
    def broken(functions: Sequence[Any], sgraph: SGraph, deadline: float) -> list[float | str]:
        raise RuntimeError("no clock")

    with pytest.raises(RuntimeError, match="no clock"):
        tune.survey([candidate], H100, Compiler(10**6), broken, soon(), Trials(), {})


def test_many_kernels_share_the_tries(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "ROUNDS", 0)
    choices = len(tune.shared_values(candidate.sgraph, dict(candidate.sizes)))
    studies = choices * len(candidate.sgraph.kernels)
    asked: list[int] = []
    for each in (1, tune.LEAST_FIRST + 1, 10**3):
        monkeypatch.setattr(tune, "ALL_FIRST", each * studies)
        compiler = Compiler(10**6)
        tuned(candidate, H100, compiler, clock, soon(), Trials())
        most = max(tune.LEAST_FIRST, min(tune.FIRST // choices, each))
        assert len(compiler.asked) <= studies * most
        asked.append(len(compiler.asked))
    assert asked[0] < asked[1] < asked[2]


def test_a_kernel_of_two_candidates_is_measured_once(candidate: Candidate) -> None:
    compiler, trials = Compiler(10**6), Trials()
    both = [candidate, candidate]
    first, second = tune.survey(both, H100, compiler, clock, soon(), trials, {})
    assert first.seconds == second.seconds == len(candidate.sgraph.kernels)
    assert len(set(compiler.asked)) == len(compiler.asked) == trials.measured
    compiler.asked.clear()
    again = tune.survey(both, H100, compiler, clock, soon(), trials, {})
    assert not compiler.asked
    assert [tuning.seconds for tuning in again] == [first.seconds] * 2


@pytest.mark.parametrize(("rows", "streams"), [(2**10, False), (2**16, True)])
def test_hints_are_for_what_the_cache_does_not_hold(rows: int, streams: bool) -> None:
    """Where it does, they are seen to gain only as long as nothing else runs."""
    shape = jax.ShapeDtypeStruct((rows, 1024), jnp.float16)
    program = lift(jax.make_jaxpr(lambda x: jax.nn.softmax(x, -1))(shape), "softmax")
    found = search(program, [Form(program)], H100)
    [kernel] = next(c for c in found.candidates if c.kernels == 1).sgraph.kernels
    ranking = Ranking(kernel, H100, {})
    _, sizes, schedule = ranking.first(1)[0]
    hinted = [s.hints for _, _, s in ranking.around(sizes, schedule)]
    assert any(hinted) == ranking.streams == streams


def test_what_is_near_has_as_many_elements_for_each_warp(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "NEAR", math.inf)
    ranking = Ranking(candidate.sgraph.kernels[0], H100, {})
    _, sizes, schedule = ranking.first(1)[0]
    near = ranking.around(sizes, replace(schedule, num_warps=4))
    for symbol, value in sizes:
        for factor in (2.0, 0.5):
            other = tuple((s, int(n * factor) if s == symbol else n) for s, n in sizes)
            warps = {s.num_warps for _, found, s in near if found == other}
            assert not warps or {4, int(4 * factor)} <= warps, (symbol, value, factor)
    assert any(found != sizes for _, found, _ in near)


def test_the_hopeless_is_tried_once(candidate: Candidate) -> None:
    going, stopping = Compiler(10**6), Compiler(10**6)
    slow = len(candidate.sgraph.kernels) * 1.0
    assert tuned(candidate, H100, going, clock, soon(), Trials(), slow)
    assert tuned(candidate, H100, stopping, clock, soon(), Trials(), slow / 2)
    assert len(stopping.asked) < len(going.asked)


def test_what_had_no_time_may_compile_later() -> None:
    """A deadline that passed says nothing about a kernel: it is not remembered against it."""
    text = "import triton\n\n\n@triton.jit\ndef hurried(x_ptr):\n    pass\n"
    source = KernelSource(name="hurried", text=text, signature=(("x_ptr", "*fp32"),))
    builder = build.Builder(H100, workers=1)
    toolchain.close_workers()
    hurry = time.monotonic() + 0.02  # time to begin, none to end: no worker starts so fast
    assert list(builder._compile([source], hurry)) == ["not compiled: no time left"]
    (binary,) = builder._compile([source], soon())
    assert not isinstance(binary, str)


def test_plans_are_built_while_others_are_being_compiled(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, equal kernels once; what is known already is not compiled again."""
    compiled: list[str] = []

    def compile_each(sources: Iterable[KernelSource], *_: Any, **__: Any) -> Iterator[Any]:
        for source in dict.fromkeys(sources):
            compiled.append(source.name)
            yield source, toolchain.CompileError(source.name, f"number {len(compiled)}")

    monkeypatch.setattr(toolchain, "compile_each", compile_each)
    monkeypatch.setattr(build, "_binaries", {})
    kernels = [tune.alone(kernel, candidate.sgraph) for kernel in candidate.sgraph.kernels]
    plans = [
        Plan(one, "triton", "H100", attempt[1], (attempt[2],))
        for one in kernels
        for attempt in [Ranking(one.kernels[0], H100, {}).first(1)[0]]
    ]
    assert len(plans) > 1
    builder = build.Builder(H100, workers=1)
    functions = builder.functions([plans[0], *plans], soon())
    said = f"kernel {plans[0].sgraph.name} does not compile: number 1"
    assert [next(functions), next(functions)] == [said, said]
    assert len(compiled) == 1
    assert len(list(functions)) == len(plans) - 1
    assert compiled == [plan.sgraph.name for plan in plans]
    whole = Plan(candidate.sgraph, "triton", "H100", candidate.sizes, ())
    library = Plan(candidate.sgraph, "jnp", "H100", candidate.sizes)
    unable = list(builder.functions([library, plans[-1], whole, plans[0]], soon()))
    assert unable[1] == f"kernel {plans[-1].sgraph.name} does not compile: number {len(plans)}"
    assert unable[3] == said
    assert list(builder.functions([], soon())) == []


def test_all_candidates_get_first_tries_and_the_fastest_is_considered_first() -> None:
    """What the model ranks last may be the best: it does not wait behind the others' tuning."""

    def gated(x: Any, a: Any, b: Any) -> Any:
        return jax.nn.silu(x @ a) * (x @ b)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float16) for s in ((64, 512), (512, 512), (512, 512))]
    program = lift(jax.make_jaxpr(gated)(*shapes), "gated")
    found = search(program, [Form(program)], H100)
    considered: list[Plan] = []

    def measured(functions: Sequence[Any], sgraph: SGraph, deadline: float) -> list[float | str]:
        split = "split" in str(sgraph) or "_combine" in sgraph.name
        return [0.2 if split else 0.7] * len(functions)

    def pair(reference: Any, plan: Any) -> tuple[float, float, float, float]:
        considered.append(plan)
        took = 0.4 if len(plan.sgraph.kernels) == 2 else 0.7
        return 1.0, took, 1.0 / took, 1.0 / took

    def verified(plan: Plan, function: Any) -> tuple[bool, float, str, object]:
        return True, 0.5, "", "evidence"

    judge, options = Judge(measured, pair, verified), Options()
    chosen = choose(program, found, H100, options, Compiler(10**6), lambda *_: (), judge)
    assert chosen.plan is not None
    ours = [plan for plan in considered if plan.backend == "triton"]
    assert "_combine" in str(ours[0].sgraph)
    first = next(c for c in found.candidates if c.kernels == len(c.sgraph.nodes))
    assert first.sgraph.digest != ours[0].sgraph.digest  # the model prefers another


def test_a_library_call_is_counted_by_the_model() -> None:
    shapes = [jax.ShapeDtypeStruct(s, jnp.float16) for s in ((16, 512), (512, 16), (16, 512))]
    program = lift(jax.make_jaxpr(lambda x, a, b: x @ (a @ b))(*shapes), "lowrank")
    found = explore.explore(program, H100, Options())
    mixed = next(c for c in found.candidates if 0 < c.kernels < len(c.sgraph.nodes))
    (tuning,) = tune.survey([mixed], H100, Compiler(10**6), clock, soon(), Trials(), {})
    kernels = float(len(mixed.sgraph.kernels))
    assert kernels < tuning.seconds < kernels + mixed.estimate
    (none,) = tune.survey([mixed], H100, Compiler(0), clock, soon(), Trials(), {})
    assert none.seconds == float("inf")
    assert none.plan() is None


def test_a_split_that_keeps_the_memory_busy_is_tried() -> None:
    """The search's model, which counts bytes, ranks it behind structures of fewer kernels; the one
    that ranks tries knows that 64 blocks do not fetch 8 MB as fast as the cache can give them.
    """

    def normed(x: Any, w: Any) -> Any:
        y = x.astype(jnp.float32)
        return (y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-6)).astype(x.dtype) @ w

    shapes = [jax.ShapeDtypeStruct(s, jnp.float16) for s in ((8, 2048), (2048, 2048))]
    program = lift(jax.make_jaxpr(normed)(*shapes), "normed")
    found = explore.explore(program, H100, Options())
    ours = [c for c in found.candidates if c.kernels == len(c.sgraph.nodes)]
    assert all("split" not in c.why for c in ours[:3])
    chosen = shortlist(program, found, H100, Options(), {})
    assert any("split" in c.why for c in chosen)
    assert ours[0].sgraph.digest in {c.sgraph.digest for c in chosen}
