"""A trivial optimiser for tests: every run of equations without effects becomes a region whose
plan evaluates the region's own jaxpr. Nothing gets faster, and every rule of ours is exercised.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from prism_jax import compat, extract, pipeline
from prism_jax.launch import Executable, FrozenJaxpr, bind


@dataclass(frozen=True)
class StubProgram:
    digest: str

    def __str__(self) -> str:
        return f"program {self.digest[:8]}"


@dataclass(frozen=True, eq=False)
class StubRegion:
    jaxpr: compat.ClosedJaxpr
    name: str = "region"
    invars: Sequence[Any] = ()
    outvars: Sequence[Any] = ()

    @functools.cached_property
    def program(self) -> StubProgram:
        return StubProgram(FrozenJaxpr(self.jaxpr, self.name).digest)


@dataclass(frozen=True)
class StubPlan:
    digest: str
    call: Callable[..., Any]
    backend: str = "jnp"
    sgraph: StubProgram = StubProgram("the region itself")
    text: str = "plan stub"

    def summary(self) -> str:
        return "stub: evaluates the region"


def stub_plan(closed: compat.ClosedJaxpr) -> Executable:
    digest = FrozenJaxpr(closed, "stub").digest
    return Executable(digest, "jnp", functools.partial(compat.evaluate, closed))


@dataclass(frozen=True)
class StubReplan:
    """Plans every program whole, by the plan that evaluates it."""

    on_error: str = "raise"

    def __call__(self, closed: compat.ClosedJaxpr, name: str) -> Callable[..., list[Any]]:
        closed, consts = compat.to_inputs(closed)
        if closed.effects:
            return lambda *args: compat.evaluate(closed, *consts, *args)
        region = StubRegion(closed, name)
        return lambda *args: bind(stub_plan(closed), region, *consts, *args, replan=self)


def planned(fun: Callable[..., Any]) -> Callable[..., Any]:
    """`fun` of arrays, as one `prism_call`."""

    @functools.wraps(fun)
    def wrapper(*args: Any) -> Any:
        flat, tree = jax.tree.flatten(args)
        closed, out_tree = compat.trace_jit(
            lambda *leaves: fun(*jax.tree.unflatten(tree, leaves)), flat, {}
        )
        return jax.tree.unflatten(out_tree, StubReplan()(closed, fun.__name__)(*flat))

    return wrapper


def _liftable(eqn: compat.JaxprEqn) -> bool:
    atoms = (*eqn.invars, *eqn.outvars)
    ordinary = all(isinstance(getattr(atom.aval, "dtype", None), np.dtype) for atom in atoms)
    return ordinary and not eqn.effects and eqn.primitive.name not in ("prism_call",)


def stub_extract(closed: compat.ClosedJaxpr, options: Any, name: str) -> Any:
    jaxpr = closed.jaxpr
    runs: list[tuple[bool, list[Any]]] = []
    for eqn in jaxpr.eqns:
        if not runs or runs[-1][0] != _liftable(eqn):
            runs.append((_liftable(eqn), []))
        runs[-1][1].append(eqn)
    used_after: set[Any] = {v for v in jaxpr.outvars if not isinstance(v, compat.Literal)}
    steps: list[Any] = []
    for number, (liftable, eqns) in reversed(list(enumerate(runs))):
        reads = [v for eqn in eqns for v in eqn.invars if not isinstance(v, compat.Literal)]
        written = {v for eqn in eqns for v in eqn.outvars}
        if liftable:
            invars = list(dict.fromkeys(v for v in reads if v not in written))
            outvars = [v for eqn in eqns for v in eqn.outvars if v in used_after]
            region = compat.part_of(closed, invars, outvars, eqns)
            steps.append(StubRegion(region, f"{name}_{number}", invars, outvars))
        else:
            steps.append(SimpleNamespace(eqns=tuple(eqns)))
        used_after |= set(reads)
    return SimpleNamespace(steps=tuple(reversed(steps)), refused=("stub: effects",))


def _instantiate(region: StubRegion, found: Any, device: Any, options: Any) -> Any:
    plan = StubPlan(region.program.digest, functools.partial(compat.evaluate, region.jaxpr))
    row = SimpleNamespace(
        plan=plan, why="", axioms=("identity",), bound=1e-6, estimate=2e-6, measured=3e-6,
        error=1.0, refused=None,
    )  # fmt: skip
    return SimpleNamespace(plan=plan, tried=(row,), evidence="none needed", reference=4e-6)


def _emit(outcome: Any) -> Any:
    return SimpleNamespace(call=outcome.plan.call, source="# the region itself")


STUB = pipeline.Stages(
    device=lambda options: SimpleNamespace(name="stub"),
    extract=stub_extract,
    inside=extract.rewrite_subjaxprs,
    explore=lambda program, device, options: SimpleNamespace(
        candidates=(), statistics={"tried": 1}, stop="complete"
    ),
    instantiate=_instantiate,
    emit=_emit,
)
