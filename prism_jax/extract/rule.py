"""What a lifting rule is, and the table of them.

A rule answers: *which node is element `index` of this output?* It is a generator: `yield p.ask(x,
i)` asks for element `i` of operand `x` and receives its node, so that jaxprs of any depth need no
deep recursion. The same rule run on markers instead of axes tells which dimensions are one
(`relations`), so adding a primitive is adding one function.

* `kind` says what the equation costs: "layout" (only indices), "pointwise", "reduction" or
  "contraction".
* `check(equation)` refuses, by a sentence, what the rule does not cover; None means that it does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from prism_jax.extract.flat import Atom, Equation, Value
from prism_jax.extract.integers import index_range, inside, mask_of, pointwise
from prism_jax.ir.nodes import FLOATS, INTEGERS, Axis, Const, Index, Load, Node, Within


class Ask(NamedTuple):
    """One element of one operand; the value matters only where the guards hold."""

    atom: Atom
    where: tuple[Index, ...]
    guards: tuple[Within, ...]


Pull: TypeAlias = Generator[Ask, Node, Node]
"""What a rule is while it runs: asks for nodes, returns a node."""


class Binder(Protocol):
    """Who gives axes to reduced dimensions (see `lift.Lifter` and `lift.Relations`)."""

    def bind(
        self, value: Value, dim: int, taken: set[str], whole: bool
    ) -> tuple[Index, tuple[Axis, ...]]:
        """An index over a dimension by axes whose names are not taken; `whole`: by one axis."""
        ...

    def identity_cast(self, equation: Equation) -> bool:
        """Whether a float-to-float cast is the identity over the reals."""
        ...


@dataclass(frozen=True)
class Point:
    """The element that a rule is asked for: output number `position` at `index`."""

    index: tuple[Index, ...]
    guards: tuple[Within, ...]
    position: int
    binder: Binder

    def ask(self, atom: Atom, index: Sequence[Index], guards: Iterable[Within] = ()) -> Ask:
        """A question for an operand's element, under this point's guards and some more."""
        return Ask(atom, tuple(index), tuple(dict.fromkeys((*self.guards, *guards))))

    def bind(
        self, value: Atom, dims: Iterable[int], whole: bool = False
    ) -> tuple[dict[int, Index], tuple[Axis, ...]]:
        """Fresh axes for dimensions that the equation sums away: index per dimension, all axes.

        A name is avoided only where it is free at this very point, so that equal sub-expressions
        under different binders become identical nodes.
        """
        free = [*self.index, *(guard.index for guard in self.guards)]
        taken = {axis.name for index in free for axis in index.axes_free}
        found: dict[int, Index] = {}
        axes: list[Axis] = []
        assert isinstance(value, Value)
        for dim in dims:
            found[dim], new = self.binder.bind(value, dim, taken, whole)
            taken |= {axis.name for axis in new}
            axes.extend(new)
        return found, tuple(axes)


@dataclass(frozen=True)
class Rule:
    """A row of the table."""

    pull: Callable[[Equation, Point], Pull]
    kind: str
    check: Callable[[Equation], str | None] | None = None


RULES: dict[str, Rule] = {}


def rule(
    *names: str, kind: str = "layout", check: Callable[[Equation], str | None] | None = None
) -> Callable[[Callable[[Equation, Point], Pull]], Callable[[Equation, Point], Pull]]:
    """Enters a function into the table under the names of its primitives."""

    def enter(pull: Callable[[Equation, Point], Pull]) -> Callable[[Equation, Point], Pull]:
        for name in names:
            assert name not in RULES, f"two rules for {name}"
            RULES[name] = Rule(pull, kind, check)
        return pull

    return enter


DTYPES = frozenset((*FLOATS, *INTEGERS, "bool"))
_SHARDINGS = ("sharding", "out_sharding")
_MAY_BE_EMPTY = ("slice", "concatenate")
"""`jnp.roll` and others cut off nothing and put it back; what is empty is never asked for."""


def _splits(sharding: Any) -> bool:
    """Whether a sharding says anything: one over a mesh without axes does not."""
    return sharding is not None and not getattr(getattr(sharding, "mesh", None), "empty", False)


def refusal(equation: Equation) -> str | None:
    """Why an equation cannot be lifted, as the end of a sentence; None if it can."""
    name, params = equation.primitive, equation.params
    if name not in RULES:
        return f"{name} has no rule"
    if equation.context is not None:
        return f"{name} stays where it is: {equation.context}"
    for atom in (*equation.inputs, *equation.outputs):
        if atom.dtype not in DTYPES:
            return f"{name} works on {atom.dtype}, which programs do not have"
        sizes: tuple[Any, ...] = atom.shape
        for size in sizes:
            if not isinstance(size, int):
                return f"{name} has a symbolic shape"
            if size == 0 and name not in _MAY_BE_EMPTY:
                return f"{name} has an array without elements"
    if any(_splits(params.get(key)) for key in _SHARDINGS):
        return f"{name} asks for a sharding"
    if params.get("accuracy") is not None:
        return f"{name} asks for an accuracy of its own"
    check = RULES[name].check
    reason = None if check is None else check(equation)
    return None if reason is None else f"{name} {reason}"


def guarded(p: Point, guards: Iterable[Within], within: Ask, outside: Ask | Node) -> Pull:
    """`within` where all guards hold, else `outside`; a load takes guards and fill itself."""
    live = tuple(g for g in guards if not inside(g.index, g.low, g.high))
    for guard in live:
        low, high = index_range(guard.index)
        if high < guard.low or low >= guard.high:
            return (yield outside) if isinstance(outside, Ask) else outside
    inner = yield within._replace(guards=tuple(dict.fromkeys((*within.guards, *live))))
    if not live:
        return inner
    other = (yield outside) if isinstance(outside, Ask) else outside
    if isinstance(inner, Load) and isinstance(other, Const):
        harmless = {*live, *p.guards}
        if inner.fill == other or all(guard in harmless for guard in inner.guard):
            every = tuple(dict.fromkeys((*inner.guard, *live)))
            return Load(inner.tensor, inner.index, every, other)
    return pointwise("where", (mask_of(live), inner, other))
