"""A trivial optimiser for tests: a plan whose call evaluates the region's own jaxpr."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prism_jax import compat
from prism_jax.launch import Executable, FrozenJaxpr, bind


@dataclass(frozen=True)
class StubRegion:
    jaxpr: compat.ClosedJaxpr
    name: str = "region"


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
    import jax

    @functools.wraps(fun)
    def wrapper(*args: Any) -> Any:
        flat, tree = jax.tree.flatten(args)
        closed, out_tree = compat.trace_jit(
            lambda *leaves: fun(*jax.tree.unflatten(tree, leaves)), flat, {}
        )
        return jax.tree.unflatten(out_tree, StubReplan()(closed, fun.__name__)(*flat))

    return wrapper
