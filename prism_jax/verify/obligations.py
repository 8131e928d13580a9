"""The obligations of an accumulator that other accumulators stabilise: acc_t = (+)_{k<=t} f(k,
r_t).

In: the accumulator, its summand f over symbols for the running values r ("new r"), its rescaling g
over symbols for old and new ones. Out: the assumptions made. Raises `Illegal` (or `Unproven`).

* Initial. An empty (+) is the identity. Where the old value is dropped because an accumulator in
  `depends` is still at its identity, every summand so far was neutral: for a maximum, its body can
  be -inf only where f has a factor that is 0 there; sums never qualify, because a signed prefix can
  be 0 by accident.
* Step. g(old, new) (.) f(k, old) = f(k, new), and (.) distributes over (+): products over sums,
  products with nonnegative factors and sums over maxima.
* Final. The value after the last step is (+)_k f(k, r) with r final: by `translate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prism_jax.ir.sgraph import Accumulator
from prism_jax.verify.algebra import minus, plus, times
from prism_jax.verify.binders import replace
from prism_jax.verify.bounded import running
from prism_jax.verify.functions import indicator
from prism_jax.verify.signs import factors_nonnegative, infinities, nonnegative
from prism_jax.verify.terms import UNIT, Atom, Illegal, Mono, Poly, element, of

FINITE = "inputs are finite, and what is divided by or taken a logarithm of is not zero"


@dataclass(frozen=True)
class Symbol:
    """An earlier accumulator of the same loop, and its summand."""

    accumulator: Accumulator
    summand: Poly


def check_cascade(
    acc: Accumulator,
    summand: Poly,
    rescale: Poly | None,
    earlier: Mapping[str, Symbol],
    where: str,
) -> Iterator[str]:
    """Checks the initial and the step obligation; yields what was assumed."""
    used = sorted(set(_running(summand, "new ")))
    unknown = [n for n in (*used, *acc.depends) if n not in earlier]
    if unknown:
        raise Illegal(f"{where}: {acc.name} depends on {unknown[0]}, which does not run before it")
    if rescale is None:
        if used:
            raise Illegal(
                f"{where}: {acc.name} depends on the running value of {used[0]} and is not rescaled"
            )
    else:
        _step(acc, summand, rescale, where)
        moved = {*_running(rescale, "old "), *_running(rescale, "new ")}
        for name in sorted(moved - set(acc.depends)):
            if earlier[name].accumulator.monoid not in ("sum", "prod"):
                raise Illegal(
                    f"{where}: {acc.name} is rescaled by {name} while {name} may still be infinite"
                )
            raise Illegal(
                f"{where}: {acc.name} is rescaled by a running {earlier[name].accumulator.monoid}, "
                "which may be zero by accident"
            )
    for name in acc.depends:
        _initial(acc, summand, earlier[name], where)
        yield FINITE


def _step(acc: Accumulator, summand: Poly, rescale: Poly, where: str) -> None:
    before = replace(summand, _old)
    if acc.action == "mul":
        if acc.monoid != "sum" and not (acc.monoid in ("max", "min") and nonnegative(rescale)):
            raise Illegal(f"{where}: products do not distribute over {acc.monoid}")
        after = times(rescale, before)
    elif acc.action == "add":
        if acc.monoid not in ("max", "min"):
            raise Illegal(f"{where}: sums do not distribute over {acc.monoid}")
        after = plus(rescale, before)
    else:
        raise Illegal(f"{where}: {acc.action} distributes over nothing")
    if after != summand:
        raise Illegal(
            f"{where}: the rescaling of {acc.name} does not turn a summand under the old values "
            "into one under the new"
        )


def _old(atom: Atom) -> Poly | None:
    name = running(atom, "new ")
    if name is None:
        return None
    indices = atom.fields[1]
    assert isinstance(indices, tuple)
    return element(f"old {name}", indices)


def _running(poly: Poly, prefix: str) -> list[str]:
    """Accumulators of which a running value occurs."""
    found: list[str] = []

    def look(atom: Atom) -> Poly | None:
        name = running(atom, prefix)
        if name is None:
            return None
        found.append(name)
        return of(atom)

    replace(poly, look)
    return found


def _initial(acc: Accumulator, summand: Poly, other: Symbol, where: str) -> None:
    monoid = other.accumulator.monoid
    if monoid not in ("max", "min"):
        raise Illegal(
            f"{where}: while {other.accumulator.name} is at the identity of {monoid}, "
            f"{acc.name} need not be"
        )
    for condition in _unmasked(other.summand, -1 if monoid == "max" else 1):
        outside = minus(UNIT, indicator(condition))
        if acc.monoid != "sum" or times(summand, outside).terms:
            raise Illegal(
                f"{where}: {acc.name} has summands where {other.accumulator.name} saw nothing"
            )


def _unmasked(body: Poly, sign: int) -> list[Poly]:
    """Conditions without which the body is the identity; none where it is finite.

    Raises `Illegal` where the body may be the identity in a way that is no plain mask.
    """
    found: list[Poly] = []
    for mono, c in body.terms:
        way = sign if c > 0 else -sign
        masks = [a for a, e in mono.factors if a.kind == "masked" and e == 1]
        rest = Mono(tuple(f for f in mono.factors if f[0] not in masks))
        if len(masks) == 1 and factors_nonnegative(rest) and not infinities(rest):
            condition, inner, which = masks[0].fields
            assert isinstance(condition, Poly)
            assert isinstance(inner, Poly)
            found += [*([condition] if which in (way, 0) else []), *_unmasked(inner, way)]
        elif infinities(mono):
            raise Illegal("a running extreme may be at its identity without a mask that says where")
    return found
