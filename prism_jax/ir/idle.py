"""Whether steps of a loop in which a mask selects its constant throughout may be left out.

In: a loop and one of its selections `where(mask, value, constant)`. Out: an `Idle` that says under
which condition those steps change nothing, or None if they may matter.

This is the floating-point lemma "a masked constant is absorbed" (design, section 5), decided by
interval arithmetic. Let `floor` be a number below the final value of every row of a running
maximum. A step whose mask is false throughout changes nothing if, with the constant in the place of
the selection and every running maximum at `floor` or more,

* what it adds to a maximum is at most `floor`,
* what it adds to a sum is exactly zero (exp underflows: an end point of -1e29 leaves no doubt),
* and what it left in a sum before the row met its first element is multiplied by exactly zero.

`floor` is known at once where every row provably has an element (`every_row`) and the range of the
values bounds it from below: float16 products cannot come near -1e30. Where it is not, it is a
number half way to the constant, and the kernel looks, once it has done the other steps, whether
its maxima are above it; if one is not, it does the steps that it left out. So a row that is masked
throughout, where a finite constant gives equal weights, comes out as the program says.

A maximum that another kernel or an earlier loop found is a term that is subtracted from the
selection: the kernel looks at all its elements before the loop. Where the constant itself adds
nothing, as a gradient's zero, no maximum is needed.

Factors of products are assumed to be finite (zero times infinity is not zero), and divisors not to
be zero; other loads, such as a bias that holds minus infinity, are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from prism_jax.ir.masks import Atom, atoms
from prism_jax.ir.nodes import REAL, Axis, Carried, Const, Load, Node, Pointwise, Reduce
from prism_jax.ir.program import walk
from prism_jax.ir.ranges import Range, full, of_monoid, point
from prism_jax.ir.sgraph import Accumulator, Loop
from prism_jax.ir.term_ranges import LARGEST, clipped, step

__all__ = ["Idle", "Mask", "cutting", "every_row", "idle"]

FAR = -1e9
"""A constant at most this stands in for minus infinity."""


@dataclass(frozen=True)
class Idle:
    """Steps without effect. `checks`: maxima that must end above a number for that; none where it
    is proved that they do. `rows`: terms all elements of which must be, known before the loop.
    """

    checks: tuple[tuple[str, float], ...] = ()
    rows: tuple[tuple[Node, float], ...] = ()


@dataclass(frozen=True)
class Mask:
    """A selection by which a loop can be cut, its mask as inequalities, and when that is right."""

    selection: Pointwise
    atoms: tuple[Atom, ...]
    idle: Idle


@lru_cache(maxsize=256)
def cutting(loop: Loop) -> Mask | None:
    """The selection `where(mask, value, constant)` by which a loop of numbers can be cut; None if
    there is none.
    """
    if loop.stores or not loop.accumulators:
        return None
    masks: list[Mask] = []
    for node in walk([a.summand for a in loop.accumulators]):
        if not (isinstance(node, Pointwise) and node.op == "where"):
            continue
        fill = node.args[2]
        if not (isinstance(fill, Const) and (float(fill.value) <= FAR or fill.value == 0)):
            continue
        known = atoms(node.args[0])
        if known is None or not any(abs(a.of(loop.axis)) == 1 for a in known):
            continue
        found = idle(loop, node, known)
        if found is not None:
            masks.append(Mask(node, known, found))
    return min(masks, key=lambda m: (len(m.idle.checks), len(m.idle.rows)), default=None)


def idle(loop: Loop, mask: Pointwise, known: Sequence[Atom]) -> Idle | None:
    """When the steps in which `mask` (the conjunction of `known`) selects its constant throughout
    have no effect; None: not at all.
    """
    if loop.split is None and _of_rows(loop, known) and every_row(known, loop.axis):
        lemma = _Lemma(loop, mask, proved=True)
        if lemma.holds():
            return Idle()
    lemma = _Lemma(loop, mask, proved=False)
    if lemma.holds():
        return Idle(tuple(sorted(lemma.floors.items())))
    lemma = _Lemma(loop, mask, proved=False, rows=True)
    checks = tuple(sorted(lemma.floors.items()))
    return Idle(checks, tuple(lemma.rows.items())) if lemma.rows and lemma.holds() else None


def _of_rows(loop: Loop, known: Sequence[Atom]) -> bool:
    """Whether all axes of a mask are rows' or the loop's. One that a reduction in a step binds is
    none: the least of what it binds may be masked at every position of a row.
    """
    terms = walk([a.summand for a in loop.accumulators])
    inside = {axis for node in terms if isinstance(node, Reduce) for axis in node.axes}
    return inside.isdisjoint(axis for atom in known for axis, _ in atom.coefficients)


def every_row(known: Sequence[Atom], axis: Axis) -> bool:
    """Whether every row has a position along `axis` at which all inequalities hold.

    A row is a choice of all other axes. The bounds of `axis` are integers, so that there is such a
    position if no lower bound is above an upper one, which is linear in the other axes.
    """
    lower: list[Atom] = [Atom(((axis, 1),), 0)]
    upper: list[Atom] = [Atom(((axis, -1),), int(axis.size) - 1)]
    for atom in known:
        step = atom.of(axis)
        if step == 0:
            if _least(atom) < 0:
                return False
        elif abs(step) != 1:
            return False
        else:
            (lower if step > 0 else upper).append(atom)
    return all(_least(_sum(a, b)) >= 0 for a in lower for b in upper)


def _sum(left: Atom, right: Atom) -> Atom:
    """The sum of two inequalities, in which opposite terms vanish."""
    total = dict(left.coefficients)
    for axis, coefficient in right.coefficients:
        total[axis] = total.get(axis, 0) + coefficient
    kept = tuple(sorted((axis, c) for axis, c in total.items() if c))
    return Atom(kept, left.constant + right.constant)


def _least(atom: Atom) -> int:
    return atom.constant + sum(c * (int(a.size) - 1) for a, c in atom.coefficients if c < 0)


class _Lemma:
    """The three conditions of the module's text, for one mask. `rows`: what is subtracted from the
    selection is above a number.
    """

    def __init__(self, loop: Loop, mask: Pointwise, *, proved: bool, rows: bool = False) -> None:
        self.loop, self.mask = loop, mask
        fill = mask.args[2]
        assert isinstance(fill, Const)
        self.fill = point(fill.value)
        self.rows: dict[Node, float] = {}
        if rows and float(fill.value) <= FAR:
            floor = -LARGEST if float(fill.value) == -math.inf else float(fill.value) / 2
            self.rows = dict.fromkeys(self._subtracted(), floor)
        self.inner = {
            (a.name, "final"): self._final(a, int(x.axis.size))
            for x in loop.inner
            for a in x.accumulators
        }
        self.masked = {a.name: self._range(a.summand, self.fill, {}) for a in loop.accumulators}
        self.floors: dict[str, float] = {}
        for accumulator in loop.accumulators:
            if accumulator.monoid == "max" and accumulator.summand.sort == REAL:
                floor = self._floor(accumulator.name, accumulator.summand, proved)
                if floor is not None:
                    self.floors[accumulator.name] = floor

    def _floor(self, name: str, summand: Node, proved: bool) -> float | None:
        """A number below the maximum of every row that the lemma speaks of."""
        if proved:
            found = self._range(summand, None, {})
            return found.low if not found.nan and found.low > -math.inf else None
        low = self.masked[name].high
        return -LARGEST if low == -math.inf else low / 2 if low < 0 else None

    def _final(self, accumulator: Accumulator, count: int) -> Range:
        """What an inner loop leaves, of finite numbers."""
        known: dict[Node, Range] = {}
        if accumulator.rescale is not None or accumulator.monoid != "sum":
            return full(accumulator.summand.sort)
        for node in walk([accumulator.summand]):
            known[node] = step(node, known, {}, True)
        body = known[accumulator.summand]
        return clipped(of_monoid("sum", accumulator.summand.sort, body, count), REAL)

    def _subtracted(self) -> list[Node]:
        """Terms that are subtracted from something with the selection, and that can be looked at
        before the loop: they have fewer axes, and what is known then.
        """
        found: dict[Node, None] = {}
        inner = {a.name for x in self.loop.inner for a in x.accumulators}
        for node in walk([a.summand for a in self.loop.accumulators]):
            if not (isinstance(node, Pointwise) and node.op == "sub" and node.sort == REAL):
                continue
            left, right = node.args
            early = self.loop.axis not in right.axes_free or not any(
                isinstance(n, Reduce) for n in walk([right])
            )
            early = early and not any(
                isinstance(n, Carried) and (n.phase != "final" or n.accumulator in inner)
                for n in walk([right])
            )
            fewer = set(right.axes_free) < set(self.mask.axes_free)
            if early and fewer and not isinstance(right, Const) and self.mask in walk([left]):
                found[right] = None
        return list(found)

    def holds(self) -> bool:
        if not self.floors and any(a.rescale is not None for a in self.loop.accumulators):
            return False
        new = {(name, "new"): Range(floor, math.inf) for name, floor in self.floors.items()}
        return all(self._unchanged(a, new) for a in self.loop.accumulators)

    def _unchanged(self, accumulator: Accumulator, new: Mapping[tuple[str, str], Range]) -> bool:
        """Whether a step that is masked throughout leaves an accumulator as it is."""
        part = self._range(accumulator.summand, self.fill, new)
        match accumulator.monoid:
            case "max" if accumulator.name in self.floors:
                neutral = part.high <= self.floors[accumulator.name]
            case "any":
                neutral = part.high <= 0.0
            case "sum" if accumulator.summand.sort == REAL:
                neutral = (part.low, part.high) == (0.0, 0.0)
            case _:
                neutral = False
        forgets = accumulator.rescale is None or self._forgets(accumulator, new)
        return neutral and not part.nan and forgets

    def _forgets(self, accumulator: Accumulator, new: Mapping[tuple[str, str], Range]) -> bool:
        """Whether the factor by which a row's first element changes what was there is zero."""
        assert accumulator.rescale is not None
        if accumulator.action != "mul" or accumulator.monoid != "sum":
            return False
        old = {(name, "old"): self.masked[name] for name in self.floors}
        if any(old[name, "old"] == Range(-math.inf, -math.inf) for name in accumulator.depends
               if name in self.floors):  # fmt: skip
            return True  # not live: what was there is dropped
        found = self._range(accumulator.rescale, self.fill, {**new, **old})
        return not found.nan and (found.low, found.high) == (0.0, 0.0)

    def _range(
        self, root: Node, selection: Range | None, carried: Mapping[tuple[str, str], Range]
    ) -> Range:
        """The range of a term; `selection` stands for the mask's selection (None: its value)."""
        known: dict[Node, Range] = {}
        carried = {**self.inner, **carried}
        factors = _factors(root)
        for node in walk([root]):
            if node in self.rows:
                known[node] = Range(self.rows[node], math.inf)
            elif node is self.mask:
                known[node] = known[self.mask.args[1]] if selection is None else selection
            else:
                known[node] = step(node, known, carried, node in factors)
        return known[root]


def _factors(root: Node) -> frozenset[Node]:
    """Loads and quotients that are factors of products that are summed."""
    found: set[Node] = set()
    bodies = [root, *(n.body for n in walk([root]) if isinstance(n, Reduce))]
    stack: list[Node] = [b for b in bodies if isinstance(b, Pointwise) and b.op in ("mul", "div")]
    while stack:
        node = stack.pop()
        if isinstance(node, Load):
            found.add(node)
        elif isinstance(node, Pointwise) and node.op == "div":
            found.add(node)
            stack.append(node.args[0])
        elif isinstance(node, Pointwise) and node.op == "mul":
            stack.extend(node.args)
    return frozenset(found)
