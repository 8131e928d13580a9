"""Which steps of a loop an affine mask leaves without effect, so that they need not run.

In: a loop, and where its other axes' tiles start. Out: a `Cut`: bounds of the steps in which the
mask can be true somewhere, and of those in which it is true everywhere, as source text.

Where the mask is false for a whole tile the step is left out, if that changes nothing: `ir.idle`
decides it, and gives the numbers that the kernel must check where it is not proved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prism_jax.ir.idle import cutting
from prism_jax.ir.masks import Atom
from prism_jax.ir.nodes import Axis, Node, Pointwise
from prism_jax.ir.sgraph import Loop

__all__ = ["Cut", "Extent", "find", "growing"]


@dataclass(frozen=True)
class Extent:
    """The values of an axis in a block: `start` (text; None is 0) and `tile` of them."""

    start: str | None
    tile: int


@dataclass(frozen=True)
class Cut:
    """Bounds of a loop's steps, as positions along its axis (text).

    `low` and `high`: outside, the mask is false everywhere (None: no bound). `full`: below it, and
    from `low` on, whole tiles are true everywhere (None: not known); it is a multiple of the tile.
    `whole`: from it on, and below `high`, all is true everywhere (None: not known); a multiple of
    the tile too. `checks`: running maxima that must be above a number after the other steps; else
    those that were left out must be done. `rows`: terms that must be, or nothing may be left out.
    """

    low: str | None
    high: str | None
    full: str | None
    whole: str | None = None
    checks: tuple[tuple[str, float], ...] = ()
    rows: tuple[tuple[Node, float], ...] = ()


def find(
    loop: Loop, extents: Mapping[Axis, Extent], tile: int, library: str = "tl"
) -> tuple[Pointwise, Cut] | None:
    """The selection by which the loop can be cut, and the cut; None if there is none.

    `extents` has every axis that the kernel splits, except the loop's; other axes are whole. The
    text calls `minimum` and `maximum` of `library`.
    """
    mask = cutting(loop)
    if mask is None:
        return None
    cut = _cut(mask.atoms, loop.axis, extents, tile)
    if cut.low is None and cut.high is None:
        return None
    bounds = (cut.low, cut.high, cut.full, cut.whole)
    low, high, full, whole = (t and t.replace("tl.", f"{library}.") for t in bounds)
    return mask.selection, Cut(low, high, full, whole, mask.idle.checks, mask.idle.rows)


def growing(loops: Sequence[Loop]) -> frozenset[Axis]:
    """Axes along which later blocks have longer loops once these are cut."""
    found: set[Axis] = set()
    for loop in loops:
        mask = cutting(loop)
        for atom in mask.atoms if mask is not None else ():
            if atom.of(loop.axis) < 0:
                found |= {a for a, c in atom.coefficients if a != loop.axis and c > 0}
    return frozenset(found)


# --- bounds as text -------------------------------------------------------------------------------


def _cut(known: Sequence[Atom], axis: Axis, extents: Mapping[Axis, Extent], tile: int) -> Cut:
    size = int(axis.size)
    lows: list[str] = []
    highs: list[str] = []
    fulls: list[str | None] = []
    wholes: list[str | None] = []
    for atom in known:
        step = atom.of(axis)
        if abs(step) != 1:
            fulls.append(None)
            wholes.append(None)
            continue
        most = _bound(atom, axis, extents, largest=True)
        least = _bound(atom, axis, extents, largest=False)
        if step < 0:  # axis <= rest
            text = _sum(most, 1)
            below = _least(most, extents) + 1 < 0
            highs.append(f"tl.maximum(0, {text})" if below else text)
            fulls.append(_down(_sum_parts(least, 1), extents, tile))
            wholes.append(None)
        else:  # axis >= -rest
            text = _negated_down(most, extents, tile)
            beyond = -_least(most, extents) > size
            lows.append(f"tl.minimum({-(-size // tile) * tile}, {text})" if beyond else text)
            fulls.append(None)
            wholes.append(_negated_down(_sum_parts(least, 1 - tile), extents, tile))
    low = f"tl.maximum(0, {lows[0]})" if len(lows) == 1 else None
    high = f"tl.minimum({size}, {highs[0]})" if len(highs) == 1 else None
    full = fulls[0] if len(fulls) == 1 and high is not None and low is None else None
    whole = wholes[0] if len(wholes) == 1 and low is not None and high is None else None
    return Cut(low, high, f"tl.minimum({size // tile * tile}, {full})" if full else None, whole)


Parts = tuple[tuple[tuple[int, str], ...], int]
"""(coefficient, start) pairs and a constant: their sum."""


def _bound(atom: Atom, axis: Axis, extents: Mapping[Axis, Extent], *, largest: bool) -> Parts:
    """The largest or least value of the atom's other terms in a block."""
    starts: list[tuple[int, str]] = []
    constant = atom.constant
    for other, coefficient in atom.coefficients:
        if other == axis:
            continue
        extent = extents.get(other, Extent(None, int(other.size)))
        if extent.start is not None:
            starts.append((coefficient, extent.start))
        if (coefficient > 0) == largest:
            constant += coefficient * (extent.tile - 1)
    return tuple(starts), constant


def _least(parts: Parts, extents: Mapping[Axis, Extent]) -> int:
    """The least that a sum of starts is in any block: a block may be masked as a whole, and
    then the bound is beyond the axis.
    """
    last = {e.start: (-(-int(a.size) // e.tile) - 1) * e.tile for a, e in extents.items()}
    ends = ((0, c * last[start]) for c, start in parts[0])
    return parts[1] + sum(min(e) for e in ends)


def _sum_parts(parts: Parts, more: int) -> Parts:
    return parts[0], parts[1] + more


def _sum(parts: Parts, more: int) -> str:
    constant = parts[1] + more
    texts = [start if c == 1 else f"{c} * {start}" for c, start in parts[0]]
    if constant or not texts:
        texts.append(str(constant))
    return " + ".join(texts).replace("+ -", "- ")


def _down(parts: Parts, extents: Mapping[Axis, Extent], tile: int) -> str:
    """The sum rounded down to a multiple of the tile, not below 0."""
    starts = {e.start: e.tile for e in extents.values() if e.start is not None}
    even = all((c * starts[start]) % tile == 0 for c, start in parts[0])
    if even:  # the starts are multiples already
        constant = parts[1] // tile * tile
        text = _sum((parts[0], constant), 0)
        safe = constant >= 0 and all(c > 0 for c, _ in parts[0])
        return text if safe else f"tl.maximum(0, {text})"
    return f"tl.maximum(0, {_sum(parts, 0)}) // {tile} * {tile}"


def _negated_down(parts: Parts, extents: Mapping[Axis, Extent], tile: int) -> str:
    negated = (tuple((-c, start) for c, start in parts[0]), -parts[1])
    return f"tl.maximum(0, {_sum(negated, 0)}) // {tile} * {tile}"
