"""Which dimensions of a flat jaxpr are one: every rule is run once, on markers instead of axes.

In: a `Flat`. Out: its dimension classes and a readable name for each. Where a rule asks for an
operand at exactly the marker of an output's dimension, the two dimensions are one class. A reshape
that merges dimensions splits the merged one, and so does one that splits a computed dimension; one
that splits an input's adds its factors where the dimension is split already.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from prism_jax.extract.classes import Classes
from prism_jax.extract.flat import Equation, Flat, Value
from prism_jax.extract.rule import Ask, Point
from prism_jax.extract.rules import RULES
from prism_jax.extract.rules.layout import reshape_groups
from prism_jax.ir.nodes import Axis, Index, Load, Node, Tensor, at

LETTERS = "ijklmnpqrstuvwabcdefgh"


def names() -> Iterator[str]:
    """i, j, k, ..., then ii, jj, ...; never with a digit, which is left to primes."""
    for length in itertools.count(1):
        for letter in LETTERS:
            yield letter * length


class Relations:
    """Dimension classes of a flat jaxpr. It is the `Binder` of the rules' run on markers."""

    def __init__(self, flat: Flat) -> None:
        self.classes = Classes()
        self._dims: dict[Value, list[int]] = {}
        self._markers: dict[Axis, int] = {}
        self._names: dict[int, str] = {}
        self._fresh = names()
        values = [*flat.inputs, *(value for e in flat.equations for value in e.outputs)]
        for value in values:
            self._dims[value] = [self.classes.new(size) for size in value.shape]
        factorings: list[tuple[int, list[int]]] = []
        for equation in flat.equations:
            if equation.primitive == "reshape":
                factorings += self._reshape(equation)
            elif equation.primitive == "tile":
                self._tile(equation)
            else:
                self._observe(equation)
        self._settle(factorings)
        for value in values:
            for dim, size in zip(self._dims[value], value.shape, strict=True):
                if size > 1:
                    for leaf in self.classes.leaves(dim):
                        self.name(leaf)

    def dim(self, value: Value, dim: int) -> int:
        """The number of a value's dimension."""
        return self._dims[value][dim]

    def name(self, root: int) -> str:
        """The base name of a class's axes."""
        root = self.classes.find(root)
        if root not in self._names:
            self._names[root] = next(self._fresh)
        return self._names[root]

    def bind(
        self, value: Value, dim: int, taken: set[str], whole: bool
    ) -> tuple[Index, tuple[Axis, ...]]:
        """A marker for a reduced dimension."""
        marker = self._marker(self._dims[value][dim])
        return at(marker), (marker,)

    def identity_cast(self, equation: Equation) -> bool:
        """Makes no difference to dimensions."""
        return True

    def _marker(self, dim: int) -> Axis:
        axis = Axis(f"?{dim}", self.classes.size[dim])
        self._markers[axis] = dim
        return axis

    def _observe(self, equation: Equation) -> None:
        for position, value in enumerate(equation.outputs):
            index = tuple(
                at(0) if size == 1 else at(self._marker(dim))
                for dim, size in zip(self._dims[value], value.shape, strict=True)
            )
            run = RULES[equation.primitive].pull(equation, Point(index, (), position, self))
            answer: Node | None = None
            while True:
                try:
                    ask = next(run) if answer is None else run.send(answer)
                except StopIteration:
                    break
                answer = self._answer(ask)

    def _answer(self, ask: Ask) -> Node:
        if isinstance(ask.atom, Value):
            for dim, index in zip(self._dims[ask.atom], ask.where, strict=True):
                if index.axis is not None and index.axis in self._markers:
                    self.classes.unite(dim, self._markers[index.axis])
        return Load(Tensor("?", (), ask.atom.dtype), ())

    def _reshape(self, equation: Equation) -> Iterator[tuple[int, list[int]]]:
        operand, result = equation.inputs[0], equation.outputs[0]
        if not isinstance(operand, Value):
            return
        old, new = self._dims[operand], self._dims[result]
        for ins, outs in reshape_groups(operand.shape, result.shape):
            if len(ins) == len(outs) == 1:
                self.classes.unite(old[ins[0]], new[outs[0]])
            elif len(outs) == 1:
                self.classes.split(new[outs[0]], [old[d] for d in ins])
            elif len(ins) == 1 and operand.source is not None:
                # The same computed tensor may be read whole as well: one set of axes for both.
                self.classes.split(old[ins[0]], [new[d] for d in outs])
            elif len(ins) == 1:
                yield old[ins[0]], [new[d] for d in outs]
            else:
                both = self.classes.new(1)
                for dim in ins:
                    self.classes.size[both] *= operand.shape[dim]
                self.classes.split(both, [old[d] for d in ins])
                self.classes.split(both, [new[d] for d in outs])

    def _tile(self, equation: Equation) -> None:
        operand, result = equation.inputs[0], equation.outputs[0]
        if not isinstance(operand, Value):
            return
        for n, (repeats, old, new) in enumerate(
            zip(equation.params["reps"], self._dims[operand], self._dims[result], strict=True)
        ):
            if repeats == 1:
                self.classes.unite(old, new)
            elif operand.shape[n] != 1:
                self.classes.split(new, [self.classes.new(repeats), old])

    def _settle(self, factorings: list[tuple[int, list[int]]]) -> None:
        """Names the factors of dimensions that are split anyway, until nothing changes."""
        waiting = factorings
        while True:
            ready = [f for f in waiting if self.classes.is_split(f[0])]
            if not ready:
                return
            waiting = [f for f in waiting if not self.classes.is_split(f[0])]
            for dim, parts in ready:
                self.classes.split(dim, parts)
