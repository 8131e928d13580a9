"""A rewritten program: steps in execution order, some of which run by a plan.

In: the original jaxpr and its steps. Out: a traceable function of the same arrays. Invariant: the
outputs have the shapes, dtypes, weak types and effects of the original; a step without a plan is
evaluated as jax evaluates it, equation by equation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax

from prism_jax import compat
from prism_jax.launch.call import Replan, Runnable, bind


class CutRegion(Protocol):
    """A region with its place in the program it was cut from."""

    @property
    def name(self) -> str: ...
    @property
    def jaxpr(self) -> compat.ClosedJaxpr: ...
    @property
    def invars(self) -> Sequence[Any]: ...
    @property
    def outvars(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Kept:
    """Equations that run as they are; `rewritten`: programs inside some of them are replaced."""

    eqns: tuple[compat.JaxprEqn, ...]
    rewritten: bool = False


@dataclass(frozen=True)
class Cut:
    """A region with the plan that runs it, or with None where its own equations run."""

    region: CutRegion
    runs: Runnable | None


Step = Kept | Cut


@dataclass(frozen=True)
class Rewritten:
    """A function of the inputs of `closed` that returns the list of its outputs."""

    closed: compat.ClosedJaxpr
    steps: tuple[Step, ...]
    replan: Replan

    @property
    def changed(self) -> bool:
        """Whether anything at all is replaced. If not, the original runs: steps may be equations of
        nested functions, which XLA would see inlined.
        """
        return any(
            step.runs is not None if isinstance(step, Cut) else step.rewritten
            for step in self.steps
        )

    def __call__(self, *args: Any) -> list[Any]:
        """The outputs for these inputs."""
        if not self.changed:
            return compat.evaluate(self.closed, *args)
        jaxpr = self.closed.jaxpr
        env = dict(zip(jaxpr.constvars, compat.constants(self.closed), strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        dead = _dead_after(self.steps, jaxpr.outvars)
        with jax.debug_nans(False):  # as `compat.evaluate`
            for number, step in enumerate(self.steps):
                if isinstance(step, Cut):
                    values = [compat.read(env, atom) for atom in step.region.invars]
                    env.update(zip(step.region.outvars, self._run(step, values), strict=True))
                else:
                    for eqn in step.eqns:
                        values = [compat.read(env, atom) for atom in eqn.invars]
                        outs = compat.bind_equation(eqn, values)
                        env.update(zip(eqn.outvars, outs, strict=True))
                for var in dead[number]:
                    del env[var]
        return [compat.read(env, atom) for atom in jaxpr.outvars]

    def _run(self, step: Cut, values: Sequence[Any]) -> list[Any]:
        if step.runs is None:
            return compat.evaluate(step.region.jaxpr, *values)
        return bind(step.runs, step.region, *values, replan=self.replan)


def _dead_after(steps: Sequence[Step], returned: Sequence[Any]) -> dict[int, list[Any]]:
    """The variables that nothing reads after each step: an eager caller needs their memory."""
    last: dict[Any, int] = {}
    for number, step in enumerate(steps):
        for user in step.eqns if isinstance(step, Kept) else (step.region,):
            for atom in (*user.invars, *user.outvars):
                if not isinstance(atom, compat.Literal):
                    last[atom] = number
    alive = {atom for atom in returned if not isinstance(atom, compat.Literal)}
    dead: dict[int, list[Any]] = defaultdict(list)
    for var, number in last.items():
        if var not in alive:
            dead[number].append(var)
    return dead
