"""Contractions as `lax.dot_general`: the order of pairwise products, and each product's text.

In: the factors of a summand and the axes summed over. Out: one value. The order with the least
arithmetic is found exactly for up to `EXACT` factors, greedily beyond.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prism_jax.ir.nodes import FLOATS, REAL, Axis, Load, Node, Pointwise, Precision

if TYPE_CHECKING:
    from prism_jax.emit.array_terms import Env, Terms, Value

__all__ = ["contraction", "precision_text"]

EXACT = 6

Axes = frozenset[Axis]


def contraction(
    terms: Terms,
    parts: Sequence[Node],
    summed: Sequence[Axis],
    env: Env,
    precision: Precision | None,
    *,
    rounded: bool,
) -> Value:
    """sum over `summed` of the product of `parts`. `rounded`: to the dtype that the equation gave
    its result.
    """
    return _Contraction(terms, summed, env, precision, rounded).run(parts)


class _Contraction:
    def __init__(
        self,
        terms: Terms,
        summed: Sequence[Axis],
        env: Env,
        precision: Precision | None,
        rounded: bool,
    ) -> None:
        self.terms, self.env, self.precision, self.rounded = terms, env, precision, rounded
        self.summed = tuple(terms.shown(summed, env))
        self.sort = REAL
        self.narrow = False

    def run(self, parts: Sequence[Node]) -> Value:
        terms = self.terms
        self.sort = parts[0].sort
        self.narrow = all(_narrow(part) == _narrow(parts[0]) != "" for part in parts)
        values = [self._operand(part) for part in parts]
        plain = [v for v in values if not v.axes]
        values = [v for v in values if v.axes]
        present = {a for v in values for a in v.axes}
        missing = math.prod(terms.sizes([a for a in self.summed if a not in present], self.env))
        if missing > 1:  # an axis that no factor has is summed over all the same
            plain.append(terms.number(missing, self.sort))
        while len(values) > 1:
            values = [self._alone(v, values[:n] + values[n + 1 :]) for n, v in enumerate(values)]
            first, second = _best_pair(
                [frozenset(v.axes) for v in values], self._kept(values), self._size
            )
            rest = [v for n, v in enumerate(values) if n not in (first, second)]
            product = self._pair(values[first], values[second], rest, last=not rest)
            values = [product, *rest]
        result = self._alone(values[0], []) if values else plain.pop()
        for factor in plain:
            result = self._multiply(result, factor)
        return result

    def _operand(self, node: Node) -> Value:
        """A factor in the dtype it meets the others in: the declared one, not yet widened."""
        terms, precision = self.terms, self.precision
        value = terms.value(node.children[0] if self.narrow else node, self.env)
        value = terms.only_live(value, [a for a in self.summed if a in value.axes], self.env, 0)
        if self.sort != REAL or not value.axes:
            return value
        wanted = (
            terms.compute
            if precision is None or precision.operand not in FLOATS
            else precision.operand
        )
        return terms.convert(value, wanted)

    def _kept(self, values: Sequence[Value]) -> Axes:
        return frozenset(a for v in values for a in v.axes) - frozenset(self.summed)

    def _size(self, axes: Axes) -> int:
        return math.prod(self.terms.sizes(axes, self.env))

    def _alone(self, value: Value, others: Sequence[Value]) -> Value:
        """Sums the axes that only this factor has."""
        taken = {a for v in others for a in v.axes}
        own = tuple(a for a in value.axes if a in self.summed and a not in taken)
        if not own:
            return value
        wide = self._wide(value)
        return self.terms.fold("sum", wide, own, self.env, wide.dtype, None)

    def _wide(self, value: Value) -> Value:
        dtype = self._accumulate if self.sort == REAL else self.sort
        return self.terms.convert(value, dtype)

    @property
    def _accumulate(self) -> str:
        if self.precision is not None and self.precision.accumulate == "float64":
            return "float64"
        return self.terms.compute

    def _multiply(self, a: Value, b: Value) -> Value:
        terms = self.terms
        a, b = self._wide(a), (b if b.dtype == "" else self._wide(b))
        axes = terms._joint([a, b])
        text = f"{terms.align(a, axes)} * {terms.align(b, axes)}"
        return terms.assign("mul", text, axes, a.dtype, max(a.depth, b.depth))

    def _pair(self, a: Value, b: Value, rest: Sequence[Value], last: bool) -> Value:
        """The product of two factors, summed over what no other factor has."""
        terms = self.terms
        needed = self._kept([a, b, *rest]) | {x for v in rest for x in v.axes}
        shared = [x for x in a.axes if x in b.axes]
        contract = [x for x in shared if x not in needed]
        batch = [x for x in shared if x in needed]
        own_a = [x for x in a.axes if x not in shared]
        own_b = [x for x in b.axes if x not in shared]
        if not contract:
            return self._multiply(a, b)
        if not own_a and not own_b:
            product = self._multiply(a, b)
            return terms.fold("sum", product, tuple(contract), self.env, product.dtype, None)
        if own_a and own_b and terms.shown([own_a[0], own_b[0]], self.env)[0] != own_a[0]:
            a, b, own_a, own_b = b, a, own_b, own_a

        def dims(value: Value, axes: list[Axis]) -> str:
            found = [str(value.axes.index(x)) for x in axes]
            return f"({', '.join(found)}{',' if len(found) == 1 else ''})"

        numbers = (
            f"(({dims(a, contract)}, {dims(b, contract)}), ({dims(a, batch)}, {dims(b, batch)}))"
        )
        dtype = self._result(last)
        text = f"lax.dot_general({a.text}, {b.text}, {numbers}{precision_text(self.precision)}"
        text += f", preferred_element_type=jnp.{dtype})"
        axes = (*batch, *own_a, *own_b)
        return terms.assign("dot", text, axes, dtype, max(a.depth, b.depth))

    def _result(self, last: bool) -> str:
        if self.sort != REAL:
            return self.sort
        if last and self.rounded and self.precision is not None and self.precision.result in FLOATS:
            return self.precision.result
        return self._accumulate


def _narrow(node: Node) -> str:
    """The dtype of an int8 input that `node` only widens to int32, which products take as it is."""
    if isinstance(node, Pointwise) and node.op == "cast" and node.sort == "int32":
        below = node.args[0]
        return below.sort if isinstance(below, Load) and below.sort in ("int8", "uint8") else ""
    return ""


def precision_text(precision: Precision | None) -> str:
    """The `precision` argument that a record asks for; nothing where the platform may choose."""
    algorithm = "highest" if precision is None else precision.algorithm.lower()
    if algorithm == "default":
        return ""
    if algorithm in ("high", "highest"):
        return f", precision=lax.Precision.{algorithm.upper()}"
    preset = {"tf32": "tf32_tf32_f32"}.get(algorithm, algorithm)
    return f", precision=lax.DotAlgorithmPreset.{preset.upper()}"


def _best_pair(operands: list[Axes], kept: Axes, size: Callable[[Axes], int]) -> tuple[int, int]:
    """The pair to multiply first in the order with the least arithmetic."""

    def step(left: list[Axes], a: int, b: int) -> tuple[int, list[Axes]]:
        rest = [x for n, x in enumerate(left) if n not in (a, b)]
        union = left[a] | left[b]
        needed = kept.union(*rest)
        result = union & needed
        return size(union) + size(result), [result, *rest]

    def best(left: list[Axes]) -> int:
        if len(left) < 2:
            return 0
        return min(cost + best(after) for _, (cost, after) in options(left))

    def options(left: list[Axes]) -> list[tuple[tuple[int, int], tuple[int, list[Axes]]]]:
        pairs = [(a, b) for a in range(len(left)) for b in range(a + 1, len(left))]
        return [(pair, step(left, *pair)) for pair in pairs]

    exact = len(operands) <= EXACT
    ranked = [
        (cost + (best(after) if exact else 0), pair) for pair, (cost, after) in options(operands)
    ]
    return min(ranked)[1]
