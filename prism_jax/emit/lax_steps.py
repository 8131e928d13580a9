"""Accumulators of a loop in blocked lax: how they start, and what one step does to them.

In: accumulators, and what the axes of a step's tile range over. Out: lines in the open scope of
`Terms`, and the names of the new values. Invariants: elements that an earlier tile has had count
as the monoid's identity; a value whose earlier reductions have met nothing is never rescaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from prism_jax.emit import array_dot
from prism_jax.emit.array_terms import Env, Terms, Value, number_text
from prism_jax.ir.nodes import REAL, Axis
from prism_jax.ir.ops import MONOIDS
from prism_jax.ir.product import factors
from prism_jax.ir.sgraph import Accumulator, Loop

__all__ = ["State", "bind", "start", "step"]


@dataclass
class State:
    """An accumulator in the source; `place` is the index of argmax and argmin."""

    accumulator: Accumulator
    value: Value
    place: Value | None

    @property
    def names(self) -> list[str]:
        """The variables that the loop carries for it."""
        return [v.text for v in (self.value, self.place) if v is not None]


def bind(terms: Terms, accumulator: Accumulator, phase: str, env: Env, value: Value) -> None:
    """Says that `value` is the accumulator's in this phase, in the scope that is open."""
    if accumulator.index_sort is not None:
        value = terms.convert(value, accumulator.index_sort)
    terms.bind(accumulator.carried(phase), env, value)


def start(terms: Terms, accumulator: Accumulator, env: Env) -> State:
    """The accumulator at its identity, in the scope that is open."""
    sort, depth = accumulator.summand.sort, terms.scope.depth
    axes = terms.shown(accumulator.axes, env)
    shape = terms.sizes(axes, env)
    monoid = accumulator.monoid.removeprefix("arg")
    identity = MONOIDS[monoid].identity(sort)
    dtype = terms.compute if sort == REAL else sort
    text = f"jnp.full({shape}, {number_text(identity)}, jnp.{dtype.replace('bool', 'bool_')})"
    value = terms.assign(accumulator.name, text, axes, dtype, depth)
    place = None
    if accumulator.index_sort is not None:
        text = f"jnp.zeros({shape}, jnp.int32)"
        place = terms.assign(f"{accumulator.name}_at", text, axes, "int32", depth)
    return State(accumulator, value, place)


def step(terms: Terms, states: Sequence[State], loop: Loop, env: Env) -> list[str]:
    """Updates of all accumulators in order; returns the texts of the new values."""
    depth = terms.scope.depth
    for state in states:
        if state.place is None:
            bind(terms, state.accumulator, "old", env, replace(state.value, depth=depth))
    updates: list[str] = []
    for state in states:
        accumulator, old = state.accumulator, state.value
        if state.place is not None:
            updates += _arg(terms, state, loop.axis, env)
            continue
        part = _part(terms, accumulator, loop.axis, env)
        base = _rescaled(terms, accumulator, old, states, env)
        texts = (base, terms.spread(terms.convert(part, old.dtype), old.axes, env))
        text = MONOIDS[accumulator.monoid].jnp.format(*texts)
        new = terms.assign(f"{accumulator.name}_new", text, old.axes, old.dtype, depth)
        bind(terms, accumulator, "new", env, new)
        updates.append(new.text)
    return updates


def _part(terms: Terms, accumulator: Accumulator, axis: Axis, env: Env) -> Value:
    """The summand reduced over the step's tile, less what the tile before has had."""
    summand = accumulator.summand
    parts = factors(summand) if accumulator.monoid == "sum" else ()
    if len(parts) > 1 and axis in summand.axes_free:
        return array_dot.contraction(
            terms, parts, (axis,), env, accumulator.precision, rounded=False
        )
    body = _body(terms, accumulator, axis, env)
    return terms.fold(accumulator.monoid, body, (axis,), env, body.dtype, None)


def _body(terms: Terms, accumulator: Accumulator, axis: Axis, env: Env) -> Value:
    summand = accumulator.summand
    dtype = terms.compute if summand.sort == REAL else summand.sort
    value = terms.convert(terms.value(summand, env), dtype)
    identity = MONOIDS[accumulator.monoid.removeprefix("arg")].identity(summand.sort)
    return terms.only_live(value, (axis,), env, identity)


def _rescaled(
    terms: Terms, accumulator: Accumulator, old: Value, states: Sequence[State], env: Env
) -> str:
    text = old.text
    if accumulator.rescale is not None:
        factor = terms.convert(terms.value(accumulator.rescale, env), terms.compute)
        sign = {"mul": "*", "add": "+"}[accumulator.action]
        text = f"{text} {sign} {terms.align(factor, old.axes)}"
    if not accumulator.depends:
        return text
    known = {s.accumulator.name: s for s in states}
    tests: list[str] = []
    for name in accumulator.depends:
        other = known[name]
        identity = MONOIDS[other.accumulator.monoid].identity(REAL)
        live = replace(other.value, text=f"({other.value.text} != {number_text(identity)})")
        tests.append(terms.align(live, old.axes))
    identity = MONOIDS[accumulator.monoid].identity(accumulator.summand.sort)
    return f"jnp.where({' & '.join(tests)}, {text}, {number_text(identity)})"


def _arg(terms: Terms, state: State, axis: Axis, env: Env) -> list[str]:
    """The step's best against the best so far: an earlier index wins ties, a NaN wins all."""
    accumulator, old = state.accumulator, state.value
    assert state.place is not None
    depth = terms.scope.depth
    body = _body(terms, accumulator, axis, env)
    body = terms.assign("body", body.text, body.axes, body.dtype, depth)
    kind = accumulator.monoid.removeprefix("arg")
    best = terms.fold(kind, body, (axis,), env, body.dtype, None)
    index = terms.fold(accumulator.monoid, body, (axis,), env, body.dtype, "int32")
    if accumulator.summand.sort == REAL:  # the best may have passed over a NaN, its place has not
        at = body.text
        if axis in body.axes:
            dim = body.axes.index(axis)
            at = f"jnp.take_along_axis({at}, jnp.expand_dims({index.text}, {dim}), {dim})"
            at = f"jnp.squeeze({at}, {dim})"
        at = terms.assign("at_best", at, best.axes, body.dtype, depth).text
        text = f"jnp.where({at} != {at}, {at}, {best.text})"
        best = terms.assign("best", text, best.axes, body.dtype, depth)
    value = terms.assign("best", terms.spread(best, old.axes, env), old.axes, old.dtype, depth)
    begin = terms.range_of(axis, env).start
    place = terms.spread(index, old.axes, env)
    place = f"({place} + {begin})" if begin is not None else place
    sign = ">" if kind == "max" else "<"
    text = f"({value.text} {sign} {old.text})"
    if accumulator.summand.sort == REAL:
        text += f" | (({value.text} != {value.text}) & ({old.text} == {old.text}))"
    better = terms.assign("better", text, old.axes, "bool", depth).text
    return [
        f"jnp.where({better}, {value.text}, {old.text})",
        f"jnp.where({better}, {place}, {state.place.text})",
    ]
