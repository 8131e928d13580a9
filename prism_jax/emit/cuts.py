"""Which steps of a loop an affine mask leaves without effect, so that they need not run.

In: a loop, and where its other axes' tiles start. Out: a `Cut`: bounds of the steps in which the
mask can be true somewhere, and of those in which it is true everywhere, as source text.

A step has no effect where the mask is false for the whole tile and every accumulator's part is
then its monoid's identity: that is decided here, by following the masked value as minus infinity
through the summands. Two things are not decided here and are why cuts happen only on request: that
a finite stand-in for minus infinity is far enough below every row's maximum, and that every row
has an element that is not masked.

>>> from prism_jax.ir.nodes import Axis, Iota
>>> i, j = Axis("i", 8), Axis("j", 8)
>>> (atom,) = atoms(Pointwise("le", (Iota(j), Iota(i)))) or ()
>>> atom.coefficients, atom.constant
(((Axis(name='i', size=8), 1), (Axis(name='j', size=8), -1)), 0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prism_jax.ir.nodes import Axis, Carried, Const, Iota, Load, Node, Pointwise, Reduce
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Loop

__all__ = ["Atom", "Cut", "Extent", "atoms", "find", "growing", "masks"]

FAR = -1e9
"""A constant at most this stands in for minus infinity."""


@dataclass(frozen=True)
class Atom:
    """The predicate `sum(coefficient * axis) + constant >= 0`."""

    coefficients: tuple[tuple[Axis, int], ...]
    constant: int

    def of(self, axis: Axis) -> int:
        """The coefficient of an axis."""
        return dict(self.coefficients).get(axis, 0)


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
    """

    low: str | None
    high: str | None
    full: str | None


def masks(loop: Loop) -> tuple[Pointwise, ...]:
    """The selections `where(mask, value, very small constant)` in a loop whose masks are affine."""
    roots = [a.summand for a in loop.accumulators]
    found: list[Pointwise] = []
    for node in walk(roots):
        if isinstance(node, Pointwise) and node.op == "where":
            fill = node.args[2]
            small = isinstance(fill, Const) and float(fill.value) <= FAR
            if small and loop.axis in node.axes_free and atoms(node.args[0]) is not None:
                found.append(node)
    return tuple(found)


def find(
    loop: Loop, extents: Mapping[Axis, Extent], tile: int, library: str = "tl"
) -> tuple[Pointwise, Cut] | None:
    """The mask by which the loop can be cut, and the cut; None if there is none.

    `extents` has every axis that the kernel splits, except the loop's; other axes are whole. The
    text calls `minimum` and `maximum` of `library`.
    """
    if loop.stores or not loop.accumulators:
        return None
    for mask in masks(loop):
        if all(_neutral(a.summand, a.monoid, mask) for a in loop.accumulators):
            known = atoms(mask.args[0])
            assert known is not None
            cut = _cut(known, loop.axis, extents, tile)
            if cut.low is not None or cut.high is not None:
                texts = (cut.low, cut.high, cut.full)
                return mask, Cut(*(t and t.replace("tl.", f"{library}.") for t in texts))
    return None


def growing(loops: Sequence[Loop]) -> frozenset[Axis]:
    """Axes along which later blocks have longer loops once these are cut."""
    found: set[Axis] = set()
    for loop in loops:
        for mask in masks(loop):
            for atom in atoms(mask.args[0]) or ():
                if atom.of(loop.axis) < 0:
                    found |= {a for a, c in atom.coefficients if a != loop.axis and c > 0}
    return frozenset(found)


# --- masks as inequalities --------------------------------------------------------------------


def atoms(mask: Node) -> tuple[Atom, ...] | None:
    """The inequalities that a mask is the conjunction of, or None."""
    if not isinstance(mask, Pointwise):
        return None
    if mask.op == "and":
        left, right = (atoms(arg) for arg in mask.args)
        return None if left is None or right is None else (*left, *right)
    if mask.op not in ("le", "lt", "ge", "gt", "eq"):
        return None
    left, right = (_affine(arg) for arg in mask.args)
    if left is None or right is None:
        return None
    if mask.op == "eq":
        return (_atom(left, right, 0), _atom(right, left, 0))
    if mask.op in ("ge", "gt"):
        left, right = right, left
    return (_atom(right, left, -1 if mask.op in ("lt", "gt") else 0),)


Affine = tuple[dict[Axis, int], int]


def _atom(larger: Affine, smaller: Affine, slack: int) -> Atom:
    total = dict(larger[0])
    for axis, coefficient in smaller[0].items():
        total[axis] = total.get(axis, 0) - coefficient
    kept = sorted((axis, c) for axis, c in total.items() if c)
    return Atom(tuple(kept), larger[1] - smaller[1] + slack)


def _affine(node: Node) -> Affine | None:
    match node:
        case Iota():
            return {node.axis: 1}, 0
        case Const() if node.sort not in ("real", "bool"):
            return {}, int(node.value)
        case Pointwise("cast") if node.sort.startswith("int"):
            return _affine(node.args[0])
        case Pointwise("neg"):
            found = _affine(node.args[0])
            return None if found is None else _scaled(found, -1)
        case Pointwise("add" | "sub"):
            left, right = (_affine(arg) for arg in node.args)
            if left is None or right is None:
                return None
            right = _scaled(right, -1) if node.op == "sub" else right
            total = dict(left[0])
            for axis, coefficient in right[0].items():
                total[axis] = total.get(axis, 0) + coefficient
            return total, left[1] + right[1]
        case Pointwise("mul"):
            for one, other in (node.args, node.args[::-1]):
                found = _affine(other)
                if isinstance(one, Const) and found is not None:
                    return _scaled(found, int(one.value))
            return None
        case _:
            return None


def _scaled(value: Affine, factor: int) -> Affine:
    return {axis: c * factor for axis, c in value[0].items()}, value[1] * factor


# --- what a masked value does to a summand ------------------------------------------------------


def _neutral(summand: Node, monoid: str, mask: Pointwise) -> bool:
    """Whether the summand is the monoid's identity where `mask` selects its constant."""
    known: dict[Node, str] = {}
    for node in walk([summand]):
        known[node] = "low" if node is mask else _limit(node, known)
    return {"max": "low", "sum": "zero", "any": "false"}.get(monoid) == known[summand]


def _limit(node: Node, known: Mapping[Node, str]) -> str:
    """One of "low" (minus infinity), "zero", "false", "plain" (any finite number) or "unknown"."""
    match node:
        case Const() | Iota() | Load() | Carried():
            return "plain"
        case Reduce():
            return "plain" if known[node.body] == "plain" else "unknown"
        case Pointwise():
            return _limit_of(node, [known[a] for a in node.args])
        case _:
            return "unknown"


def _limit_of(node: Pointwise, parts: Sequence[str]) -> str:
    if all(part == "plain" for part in parts):
        return "plain"
    match node.op, list(parts):
        case ("add", ["low", "plain" | "low"] | ["plain", "low"]) | ("sub", ["low", "plain"]):
            return "low"
        case ("mul", ["low", "plain"] | ["plain", "low"]):
            other = node.args[1] if parts[0] == "low" else node.args[0]
            return "low" if isinstance(other, Const) and float(other.value) > 0 else "unknown"
        case ("div", ["low", "plain"]):
            other = node.args[1]
            return "low" if isinstance(other, Const) and float(other.value) > 0 else "unknown"
        case ("exp" | "exp2", ["low"]):
            return "zero"
        case ("mul", [*found]) if "zero" in found and set(found) <= {"zero", "plain"}:
            return "zero"
        case ("div", ["zero", "plain"]):
            return "zero"
        case ("where", [_, "zero" | "plain" as a, "zero" | "plain" as b]):
            # A guard against rows that have met nothing yet: neutral if both branches are.
            zeros = [p == "zero" or _is_zero(x) for p, x in zip((a, b), node.args[1:], strict=True)]
            return "zero" if all(zeros) else "unknown"
        case ("where", [_, "low", "plain"]):
            return "low" if _is_low(node.args[2]) else "unknown"
        case _:
            return "unknown"


def _is_zero(node: Node) -> bool:
    return isinstance(node, Const) and float(node.value) == 0.0


def _is_low(node: Node) -> bool:
    return isinstance(node, Const) and float(node.value) <= FAR


# --- bounds as text -------------------------------------------------------------------------------


def _cut(known: Sequence[Atom], axis: Axis, extents: Mapping[Axis, Extent], tile: int) -> Cut:
    size = int(axis.size)
    lows: list[str] = []
    highs: list[str] = []
    fulls: list[str | None] = []
    for atom in known:
        step = atom.of(axis)
        if abs(step) != 1:
            fulls.append(None)
            continue
        most = _bound(atom, axis, extents, largest=True)
        least = _bound(atom, axis, extents, largest=False)
        if step < 0:  # axis <= rest
            highs.append(_sum(most, 1))
            fulls.append(_down(_sum_parts(least, 1), extents, tile))
        else:  # axis >= -rest
            lows.append(_negated_down(most, extents, tile))
            fulls.append(None)
    low = f"tl.maximum(0, {lows[0]})" if len(lows) == 1 else None
    high = f"tl.minimum({size}, {highs[0]})" if len(highs) == 1 else None
    full = fulls[0] if len(fulls) == 1 and high is not None and low is None else None
    return Cut(low, high, f"tl.minimum({size // tile * tile}, {full})" if full else None)


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
