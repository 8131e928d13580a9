"""`prism_call`: one region of the user's program, run by a plan.

In: a plan, the region's original jaxpr, and arrays. Out: the region's outputs. The primitive knows
its original program, and every rule that is not "run the plan" is derived from that: batching vmaps
it and plans the result, differentiation takes its JVP and VJP (see `tangent.py`), lowering falls
back to it. Invariant: output shapes, dtypes and weak types are those of the original.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax

from prism_jax import compat
from prism_jax.launch.region import FrozenJaxpr

prism_call_p = compat.Primitive("prism_call")
prism_call_p.multiple_results = True


class Runnable(Protocol):
    """What `prism_call` needs of a plan: a hashable value, equal exactly if it runs the same."""

    @property
    def backend(self) -> str:
        """Which lowering runs it: "triton", "lax" or "jnp"."""
        ...

    @property
    def call(self) -> Callable[..., Sequence[Any]]:
        """A traceable function of the region's inputs."""
        ...


class Replan(Protocol):
    """Optimises a program that a transformation made of a region; hashable, compared by value."""

    @property
    def on_error(self) -> str:
        """What a failure does: "warn" or "raise"."""
        ...

    def __call__(self, closed: compat.ClosedJaxpr, name: str) -> Callable[..., list[Any]]:
        """A function of arrays that computes the same as `closed`."""
        ...


@dataclass(frozen=True)
class AsWritten:
    """The `Replan` that leaves every program as it is."""

    on_error: str = "warn"

    def __call__(self, closed: compat.ClosedJaxpr, name: str) -> Callable[..., list[Any]]:
        """Evaluate `closed` as jax does."""
        return functools.partial(compat.evaluate, closed)


@dataclass(frozen=True)
class Executable:
    """A plan with the function that the emitter made of it; equal if the plans' digests are.

    >>> Executable("d1", "jnp", lambda x: (x,)) == Executable("d1", "jnp", lambda x: (x,))
    True
    """

    digest: str
    backend: str
    call: Callable[..., Sequence[Any]] = field(compare=False, repr=False)

    def __repr__(self) -> str:
        return f"<{self.backend} {self.digest[:8]}>"


class HasJaxpr(Protocol):
    """A region as `extract` makes it."""

    @property
    def jaxpr(self) -> compat.ClosedJaxpr:
        """The original equations, closed, without constants."""
        ...

    @property
    def name(self) -> str:
        """What to call it in messages, profiles and kernels."""
        ...


_frozen: weakref.WeakKeyDictionary[Any, FrozenJaxpr] = weakref.WeakKeyDictionary()


def freeze(closed: compat.ClosedJaxpr, name: str) -> FrozenJaxpr:
    """The frozen form of a jaxpr, made once per jaxpr.

    Raises:
      OpenRegionError: it closes over values or has effects.
    """
    found = _frozen.get(closed)
    if found is None:
        found = _frozen[closed] = FrozenJaxpr(closed, name)
    return found


def bind(plan: Runnable, region: HasJaxpr, *args: Any, replan: Replan | None = None) -> list[Any]:
    """Run a region by its plan: the `prism_call` primitive.

    Args:
      plan: what runs.
      region: its original jaxpr, the meaning of the call.
      *args: one array per input of the region.
      replan: how programs that transformations derive from the region are optimised.

    Raises:
      OpenRegionError: the region closes over values.
    """
    frozen = freeze(region.jaxpr, region.name)
    return prism_call_p.bind(*args, plan=plan, region=frozen, replan=replan or AsWritten())


def _abstract(*_: Any, region: FrozenJaxpr, **__: Any) -> list[Any]:
    return list(region.closed.out_avals)


@functools.lru_cache(maxsize=1024)
def _eager(primitive: Any, items: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    return jax.jit(functools.partial(primitive.bind, **dict(items)))


def run_eagerly(primitive: Any, *args: Any, **params: Any) -> list[Any]:
    """The implementation of a primitive outside jit: a jit of itself, one per set of parameters."""
    return list(_eager(primitive, tuple(sorted(params.items())))(*args))


prism_call_p.def_abstract_eval(_abstract)
prism_call_p.def_impl(functools.partial(run_eagerly, prism_call_p))


@functools.lru_cache(maxsize=1024)
def vmapped(region: FrozenJaxpr, dims: tuple[Any, ...], avals: tuple[Any, ...], _: Any) -> Any:
    """The original program over a batch: `dims` gives each input's batch dimension or None."""
    return compat.trace_flat(jax.vmap(region, in_axes=dims), avals)


def _batch(
    args: Sequence[Any], dims: Sequence[Any], *, plan: Runnable, region: FrozenJaxpr, replan: Replan
) -> tuple[list[Any], list[int]]:
    avals = tuple(compat.aval_of(arg) for arg in args)
    closed = vmapped(region, tuple(dims), avals, compat.context_key())
    outs = replan(closed, region.name)(*args)
    return outs, [0] * len(outs)


compat.batching.primitive_batchers[prism_call_p] = _batch
