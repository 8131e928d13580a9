"""The interpreter of terms: the value of a node, given what its axes range over.

In: tensors by name, and an environment that binds axes (`Binding`); an axis that is not bound takes
all its values. Out: a `Named` array. The same interpreter serves whole programs (`evaluate`),
sampled outputs and tiles of a block (`blocks`), over any `Domain`.

Invariants: a node is computed once per binding of its free axes; a reduction that is not a
contraction is computed in pieces of at most `budget` elements; a contraction never builds its
product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import TypeAlias

import numpy as np

from prism_jax.ir.counter import Counter
from prism_jax.ir.nodes import (
    Axis,
    Carried,
    Const,
    Index,
    Iota,
    Load,
    Node,
    Pointwise,
    Reduce,
    Size,
)
from prism_jax.ir.ops import OPS
from prism_jax.ir.product import factors as factors_of
from prism_jax.ir.product import product_of
from prism_jax.ir.values import (
    Array,
    Binding,
    Domain,
    Named,
    align,
    contract,
    order,
    pairing,
    union,
)

Env: TypeAlias = Mapping[Axis, Binding]
Key: TypeAlias = tuple[Node, tuple[Binding, ...]]

BUDGET = 8 << 20
"""Elements that one temporary of a reduction may have: 64 MB of float64."""


class Interpreter:
    """Computes nodes; `carried` holds the accumulators of the running kernel."""

    def __init__(
        self,
        tensors: dict[str, Array],
        domain: Domain,
        symbols: Mapping[str, int],
        budget: int = BUDGET,
        counter: Counter | None = None,
    ) -> None:
        self.tensors = tensors
        self.domain = domain
        self.symbols = symbols
        self.budget = budget
        self.counter = counter
        self.carried: dict[tuple[str, str], Named] = {}
        self.volatile: dict[Key, Named] = {}  # memo of the nodes over accumulators, which are
        self.over_carried: Set[Node] = frozenset()
        self._constant: dict[Key, Named] = {}
        self._full: dict[Axis, Binding] = {}

    def size(self, size: Size) -> int:
        """The number that a size is."""
        return self.symbols[size] if isinstance(size, str) else size

    def full(self, axis: Axis) -> Binding:
        """The binding of an axis to all its values."""
        if axis not in self._full:
            self._full[axis] = Binding.span(axis, 0, self.size(axis.size))
            self._full[axis].serial = -1  # it outlives every other binding
        return self._full[axis]

    def bound(self, axis: Axis, env: Env) -> Binding:
        """What an axis ranges over."""
        return env[axis] if axis in env else self.full(axis)

    # ---- values

    def value(self, root: Node, env: Env) -> Named:
        """The value of a node: an array over the labels of its free axes."""
        stack = [root]
        while stack:
            node = stack[-1]
            memo, key = self._slot(node, env)
            if key not in memo:
                missing = [c for c in _operands(node) if not self._known(c, env)]
                if missing:
                    stack.extend(missing)
                    continue
                memo[key] = self._compute(node, env)
            stack.pop()
        memo, key = self._slot(root, env)
        return memo[key]

    def _slot(self, node: Node, env: Env) -> tuple[dict[Key, Named], Key]:
        """Where a node's value is remembered: with the youngest binding it depends on."""
        bindings = tuple(self.bound(axis, env) for axis in node.axes_free)
        if node in self.over_carried:
            return self.volatile, (node, bindings)
        if not bindings:
            return self._constant, (node, bindings)
        return max(bindings, key=lambda b: b.serial).memo, (node, bindings)

    def _known(self, node: Node, env: Env) -> bool:
        memo, key = self._slot(node, env)
        return key in memo

    def _get(self, node: Node, env: Env) -> Named:
        memo, key = self._slot(node, env)
        return memo[key]

    def _compute(self, node: Node, env: Env) -> Named:
        match node:
            case Const(value=value, sort_=sort):
                return Named((), self.domain.const(value, sort))
            case Iota(axis=axis, sort_=sort):
                binding = self.bound(axis, env)
                return Named((binding.label,), self.domain.iota(binding.values, sort))
            case Load():
                return self._load(node, env)
            case Pointwise(op=op, args=args, parameter=parameter):
                values = [self._get(a, env) for a in args]
                labels = union(v.labels for v in values)
                result = self.domain.pointwise(op, parameter, align(values, labels))
                if self.counter is not None:
                    self.counter.count(OPS[op].cost, self.elements(node.axes_free, env))
                return Named(labels, result)
            case Reduce(monoid=monoid, axes=axes, body=body):
                inner = {**env, **{axis: self.full(axis) for axis in axes}}
                return self.reduce(monoid, axes, body, inner, node.index_sort)
            case Carried(accumulator=name, phase=phase):
                assert (name, phase) in self.carried, (
                    f"{name}.{phase} is read where it has no value"
                )
                return self.carried[name, phase]
            case _:
                raise AssertionError(f"{type(node).__name__} is not a node kind")

    def elements(self, axes: Sequence[Axis], env: Env) -> int:
        """How many elements a value over these free axes has."""
        return math.prod(
            len(b) for b in {b.label: b for b in (self.bound(a, env) for a in axes)}.values()
        )

    # ---- loads

    def index(self, index: Index, env: Env) -> Named:
        """The values of an index, as int64."""
        parts = [Named((), np.asarray(index.offset, np.int64))]
        for term, coefficient in index.terms:
            if isinstance(term, Axis):
                binding = self.bound(term, env)
                parts.append(Named((binding.label,), binding.values * coefficient))
            else:
                value = self.value(term, env)
                parts.append(Named(value.labels, value.array.astype(np.int64) * coefficient))
        labels = union(p.labels for p in parts)
        total = align(parts, labels)
        return Named(labels, np.asarray(sum(total[1:], start=total[0])))

    def slices(
        self, indices: Sequence[Index], env: Env
    ) -> tuple[tuple[slice | int, ...], tuple[Axis, ...]] | None:
        """The indices as plain slices and the labels of the sliced dimensions, if they are that."""
        found: list[slice | int] = []
        labels: list[Axis] = []
        for index in indices:
            if not index.terms:
                found.append(index.offset)
                continue
            axis, coefficient = index.terms[0]
            if len(index.terms) > 1 or coefficient != 1 or not isinstance(axis, Axis):
                return None
            binding = self.bound(axis, env)
            if binding.start is None or binding.label in labels:
                return None
            found.append(
                slice(binding.start + index.offset, binding.start + index.offset + len(binding))
            )
            labels.append(binding.label)
        return tuple(found), tuple(labels)

    def _load(self, node: Load, env: Env) -> Named:
        tensor = node.tensor
        assert tensor.name in self.tensors, f"{tensor.name} is read before it is written"
        array = self.tensors[tensor.name]
        plain = self.slices(node.index, env) if not node.guard else None
        if plain is not None:
            where, labels = plain
            for n, (piece, size) in enumerate(zip(where, array.shape, strict=True)):
                low, high = (
                    (piece.start, piece.stop) if isinstance(piece, slice) else (piece, piece + 1)
                )
                self._in_range(node, n, low >= 0 and high <= size)
            value = order(labels, self.domain.load(array[where], node.sort))
        else:
            value = self._gather(node, array, env)
        if self.counter is not None:
            self.counter.move(self.counter.read, tensor.name, tensor.dtype, value.array.size)
        return value

    def _gather(self, node: Load, array: Array, env: Env) -> Named:
        indices = [self.index(i, env) for i in node.index]
        guards = [(self.index(g.index, env), g) for g in node.guard]
        inside = Named((), np.asarray(True))
        if guards:
            tests = [Named(v.labels, (v.array >= g.low) & (v.array < g.high)) for v, g in guards]
            labels = union(t.labels for t in tests)
            inside = Named(
                labels, np.logical_and.reduce(np.broadcast_arrays(*align(tests, labels)))
            )
        clipped: list[Named] = []
        for n, (index, size) in enumerate(zip(indices, array.shape, strict=True)):
            bad = (index.array < 0) | (index.array >= size)
            if bad.any():
                both = align([Named(index.labels, bad), inside])
                self._in_range(node, n, not (both[0] & both[1]).any())
            clipped.append(Named(index.labels, np.clip(index.array, 0, size - 1)))
        labels = union(c.labels for c in clipped)
        found = Named(labels, self.domain.load(array[tuple(align(clipped, labels))], node.sort))
        if not guards:
            return found
        fill = Named(
            (),
            self.domain.const(0, node.sort)
            if node.fill is None
            else self._get(node.fill, env).array,
        )
        labels = union([found.labels, inside.labels])
        return Named(labels, np.where(*align([inside, found, fill], labels)))

    def _in_range(self, node: Load, dimension: int, good: bool) -> None:
        if not good:
            raise IndexError(f"a load of {node.tensor} leaves dimension {dimension}")

    # ---- reductions

    def reduce(
        self, monoid: str, axes: Sequence[Axis], body: Node, env: Env, index_sort: str | None = None
    ) -> Named:
        """The monoid over the bound values of `axes`: a tile in a loop, all in a `Reduce`."""
        if monoid in ("argmax", "argmin"):
            _, where = self.reduce_arg(monoid, axes[0], body, env)
            return Named(where.labels, where.array.astype(index_sort or "int32"))
        return self._reduce(monoid, tuple(axes), body, env)

    def _is_contraction(self, monoid: str, body: Node) -> bool:
        return (
            monoid == "sum"
            and isinstance(body, Pointwise)
            and body.op == "mul"
            and body.sort != "bool"
        )

    def _reduce(self, monoid: str, axes: tuple[Axis, ...], body: Node, env: Env) -> Named:
        factors = _factors(body, axes) if self._is_contraction(monoid, body) else [body]
        product = None if self.counter is None else product_of(monoid, body, axes)
        if self.counter is not None and product is None:
            factors = [body]  # counted as it would be executed: the product's elements, then a sum
        piece = self._pieces(factors, axes, env)
        if piece is not None:
            axis, length = piece
            binding = self.bound(axis, env)
            total: Named | None = None
            for start in range(0, len(binding), length):
                part = self._reduce(
                    monoid, axes, body, {**env, axis: _part(binding, start, length)}
                )
                total = part if total is None else self.combine(monoid, body.sort, total, part)
            assert total is not None
            return total
        labels = tuple(self.bound(a, env).label for a in axes)
        if self.counter is not None:
            if product is None:
                self.counter.count("reduction", self.elements(union([body.axes_free, axes]), env))
            else:
                self.counter.product(product, axes, lambda own: self.elements(own, env))
        if len(factors) > 1:
            values = [self.value(f, env) for f in factors]
            values = [self._with_labels(values[0], axes, values[1:], env), *values[1:]]
            return contract(self.domain, body.sort, values, labels)
        value = self._with_labels(self.value(body, env), axes, [], env)
        dims = tuple(n for n, x in enumerate(value.labels) if x in labels)
        kept = tuple(x for x in value.labels if x not in labels)
        return Named(kept, self.domain.reduce(monoid, body.sort, value.array, dims))

    def _with_labels(
        self, value: Named, axes: Sequence[Axis], others: Sequence[Named], env: Env
    ) -> Named:
        """The value, repeated along reduced axes that neither it nor the other factors mention."""
        have = {x for v in (value, *others) for x in v.labels}
        for axis in axes:
            binding = self.bound(axis, env)
            if binding.label not in have:
                array = np.broadcast_to(value.array, (len(binding), *value.array.shape))
                value = order((binding.label, *value.labels), array)
        return value

    def _pieces(
        self, factors: Sequence[Node], axes: Sequence[Axis], env: Env
    ) -> tuple[Axis, int] | None:
        """The axis to cut, and into what length, where the temporaries are over budget."""
        bindings = {b.label: b for f in factors for b in (self.bound(a, env) for a in f.axes_free)}
        bindings |= {b.label: b for b in (self.bound(a, env) for a in axes)}
        size = {label: len(b) for label, b in bindings.items()}
        groups = [union([[self.bound(a, env).label for a in f.axes_free]]) for f in factors]
        if len(factors) == 1:  # axes that the body does not mention are repeated, so they count
            groups = [union([groups[0], [self.bound(a, env).label for a in axes]])]
        gone = {self.bound(a, env).label: a for a in axes}
        temporaries = [
            g
            for g, f in zip(groups, factors, strict=True)
            if not isinstance(f, Load) or len(factors) == 1
        ]
        over = [g for g in temporaries if math.prod(size[x] for x in g) > self.budget]
        if not over and len(factors) > 2 and pairing(groups, list(gone), size)[1] > self.budget:
            over = [tuple(gone)]
        cuts = [x for g in over for x in g if x in gone and size[x] > 1]
        if not cuts:
            return None
        label = max(cuts, key=lambda x: (size[x], x.name))
        most = max(math.prod(size[x] for x in g) for g in over)
        return gone[label], max(1, min(size[label] // 2, size[label] * self.budget // most))

    def combine(self, monoid: str, sort: str, a: Named, b: Named) -> Named:
        """a (+) b."""
        labels = union([a.labels, b.labels])
        return Named(labels, self.domain.combine(monoid, sort, *align([a, b], labels)))

    def reduce_arg(self, monoid: str, axis: Axis, body: Node, env: Env) -> tuple[Named, Named]:
        """The best bound value of an axis, and the first place where it stands (NaN is best)."""
        binding = self.bound(axis, env)
        if self.counter is not None:
            self.counter.count("reduction", self.elements(union([body.axes_free, [axis]]), env))
        others = [a for a in body.axes_free if a != axis]
        length = max(1, self.budget // max(1, self.elements(others, env)))
        result: tuple[Named, Named] | None = None
        for start in range(0, len(binding), length):
            part = binding if length >= len(binding) else _part(binding, start, length)
            value = self._with_labels(
                self.value(body, {**env, axis: part}), [axis], [], {**env, axis: part}
            )
            dims = (value.labels.index(part.label),)
            kept = tuple(x for x in value.labels if x != part.label)
            best = self.domain.reduce(monoid[3:], body.sort, value.array, dims)
            place = part.values[self.domain.reduce(monoid, body.sort, value.array, dims)]
            found = (Named(kept, best), Named(kept, place))
            result = found if result is None else self.better(monoid, body.sort, result, found)
        assert result is not None
        return result

    def better(
        self, monoid: str, sort: str, old: tuple[Named, Named], new: tuple[Named, Named]
    ) -> tuple[Named, Named]:
        """The pair (value, index) that wins; the earlier one on a tie."""
        labels = union([old[0].labels, new[0].labels])
        a, b, at_a, at_b = align([old[0], new[0], old[1], new[1]], labels)
        joint = self.domain.combine(monoid[3:], sort, a, b)
        keep = (a == joint) | (a != a)
        return Named(labels, joint), Named(labels, np.where(keep, at_a, at_b))


def _part(binding: Binding, start: int, length: int) -> Binding:
    values = binding.values[start : start + length]
    return Binding(binding.label, values, None if binding.start is None else binding.start + start)


def _operands(node: Node) -> tuple[Node, ...]:
    """What must be known before a node is computed; `reduce` looks after its body itself."""
    if isinstance(node, Load):
        return (*node.index_nodes, *node.children)
    return node.children if isinstance(node, Pointwise) else ()


def _factors(body: Node, axes: Sequence[Axis]) -> list[Node]:
    """The factors of a product. A product that no reduced axis enters is one factor."""
    found = list(factors_of(body, frozenset(axes)))
    if len({f.axes_free for f in found}) == 1:
        return [body]  # all over the same axes: an ordinary sum of an elementwise product
    return found
