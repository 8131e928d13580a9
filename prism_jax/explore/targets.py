"""The tensor level: which tensors are written to memory, and the terms that make them.

A *partition* of a form is a set of its reductions that are materialised. Every materialised
reduction and every output is a target. Partitions share most of their terms, so `Names` remembers
what has been made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from prism_jax.ir.nodes import REAL, Axis, Load, Node, Precision, Reduce, Store, Tensor, at
from prism_jax.ir.program import Program, contents
from prism_jax.ir.rewrite import canonical, rebuild


@dataclass(frozen=True)
class Target:
    """A tensor to be written: an output, or a materialised reduction.

    `needs`: the tensors that it is made from. `node`: its value where nothing is materialised;
    `key`: as a canonical reduction, None for an output.
    """

    store: Store
    needs: tuple[str, ...]
    node: Node
    key: Node | None = None

    def without(self, materialised: frozenset[Node], names: Names) -> Store:
        """The store as it is where only these reductions are materialised."""
        made = _Targets(materialised, names)
        node = self.node
        value = made.whole(node) if isinstance(node, Reduce) and self.key else made(node)
        return replace(self.store, value=value)


@dataclass
class Names:
    """What stays the same over the partitions of all forms of one search.

    `tensors`: the name of the tensor that a canonical reduction is kept in, so that equal kernels
    are equal; `equal`: pairs of axes whose sizes were compared, and the answer. The others spare
    work: `over` is a term over the tensors of some materialised reductions, `wholes` and `made` are
    reductions and targets with such a body, `beside` is what the grouping of two stores has found.
    """

    compute: str
    tensors: dict[Node, str] = field(default_factory=dict[Node, str])
    keys: dict[Node, tuple[Node, tuple[Axis, ...]]] = field(
        default_factory=dict[Node, tuple[Node, tuple[Axis, ...]]]
    )
    equal: dict[tuple[str, str], bool] = field(default_factory=dict[tuple[str, str], bool])
    made_of: dict[Node, int] = field(default_factory=dict[Node, int])
    over: dict[tuple[Node, int], Over] = field(default_factory=dict[tuple[Node, int], "Over"])
    beside: dict[tuple[Store, Store, bool], Store | None] = field(
        default_factory=dict[tuple[Store, Store, bool], Store | None]
    )
    made: dict[tuple[Node, Node], Target] = field(default_factory=dict[tuple[Node, Node], Target])
    wholes: dict[tuple[Node, Node], Node] = field(default_factory=dict[tuple[Node, Node], Node])
    _bits: dict[Node, int] = field(default_factory=dict[Node, int])

    def canonical(self, node: Node) -> tuple[Node, tuple[Axis, ...]]:
        """`ir.rewrite.canonical`, remembered."""
        if node not in self.keys:
            self.keys[node] = canonical(node)
        return self.keys[node]

    def below(self, node: Node) -> int:
        """The canonical reductions that a term is made of, itself included, as `bits`."""
        found = self.made_of.get(node)
        if found is None:
            found = self.bits(self.canonical(n)[0] for n in contents(node).reductions)
            self.made_of[node] = found
        return found

    def bits(self, reductions: Iterable[Node]) -> int:
        """A set of canonical reductions as a number with a bit for each."""
        found = 0
        for node in reductions:
            found |= 1 << self._bits.setdefault(node, len(self._bits))
        return found

    def same_size(self, a: Axis, b: Axis) -> bool:
        """Whether two axes have one size; the answer is recorded."""
        if a.name != b.name:
            pair = (min(a.name, b.name), max(a.name, b.name))
            self.equal[pair] = a.size == b.size
        return a.size == b.size


def reductions(program: Program, names: Names) -> tuple[Node, ...]:
    """The reductions that may be materialised, as canonical terms: one for each tensor, in program
    order.
    """
    found = (names.canonical(n)[0] for n in program.nodes if isinstance(n, Reduce))
    return tuple(dict.fromkeys(found))


def wide(precision: Precision) -> Precision:
    """The precision of what no equation of the user's makes: nothing rounds its result."""
    return replace(precision, result=precision.accumulate)


def widened(form: Program, own: frozenset[Node], names: Names) -> Program:
    """The form with the results of reductions that are not the user's own left in the accumulator's
    dtype. A sum of exponentials that is not divided yet, or a product that is not scaled yet, has a
    range of its own: in float16 it would overflow where the program does not.

    Args:
      form: a program that equals the user's.
      own: the canonical reductions of the user's program.
      names: of the search.
    """
    memo: dict[Node, Node] = {}

    def visit(node: Node) -> Node:
        if node not in memo:
            made = rebuild(node, visit)
            if isinstance(made, Reduce) and made.precision and names.canonical(node)[0] not in own:
                asked = wide(made.precision)
                made = Reduce(made.monoid, made.axes, made.body, asked, made.index_sort)
            memo[node] = made
        return memo[node]

    outputs = tuple(Store(s.tensor, s.index, visit(s.value)) for s in form.outputs)
    return form if outputs == form.outputs else replace(form, outputs=outputs)


def targets(program: Program, materialised: frozenset[Node], names: Names) -> tuple[Target, ...]:
    """The stores of a partition in execution order; `materialised` holds canonical reductions."""
    made = _Targets(materialised, names)
    for store in program.outputs:
        value = made(store.value)
        made.found.append(_target(Store(store.tensor, store.index, value), store.value))
    return tuple(made.found)


@dataclass(frozen=True)
class Over:
    """A term over the tensors that materialised reductions are kept in, and the reductions that it
    loads, in order.
    """

    node: Node
    loaded: tuple[Reduce, ...]


class _Targets:
    """Terms over the tensors that materialised reductions are kept in; `found`: the targets that
    make those, in execution order.
    """

    def __init__(self, materialised: frozenset[Node], names: Names) -> None:
        self.names, self._set = names, names.bits(materialised)
        self._materialised = materialised
        self.found: list[Target] = []
        self._kept: dict[Node, Target] = {}

    def __call__(self, node: Node) -> Node:
        return self._over(node).node

    def _over(self, node: Node) -> Over:
        inside = self.names.below(node) & self._set
        if not inside:
            return Over(node, ())
        found = self.names.over.get((node, inside))
        if found is None:
            found = self.names.over[node, inside] = self._rebuilt(node)
        else:
            for reduction in found.loaded:
                self._keep(reduction)
        return found

    def _rebuilt(self, node: Node) -> Over:
        if isinstance(node, Reduce):
            key, axes = self.names.canonical(node)
            if key in self._materialised:
                tensor = self._keep(node).store.tensor
                return Over(Load(tensor, tuple(at(a) for a in axes)), (node,))
        loaded: dict[Reduce, None] = {}

        def child(below: Node) -> Node:
            found = self._over(below)
            loaded.update(dict.fromkeys(found.loaded))
            return found.node

        return Over(rebuild(node, child), tuple(loaded))

    def _keep(self, node: Reduce) -> Target:
        """The target that makes a materialised reduction, after those that it needs."""
        key, axes = self.names.canonical(node)
        found = self._kept.get(key)
        if found is None:
            value, made = self.whole(node), self.names.made
            found = made.get((node, value))
            if found is None:
                found = made[node, value] = self._made(node, key, axes, value)
            self._kept[key] = found
            self.found.append(found)
        return found

    def _made(self, node: Reduce, key: Node, axes: tuple[Axis, ...], value: Node) -> Target:
        names = self.names
        dtype = kept_dtype(node, names.compute)
        name = names.tensors.setdefault(key, f"t{len(names.tensors)}")
        tensor = Tensor(name, tuple(a.size for a in axes), dtype)
        return _target(Store(tensor, tuple(at(a) for a in axes), value), node, key)

    def whole(self, node: Reduce) -> Node:
        """A reduction that is not materialised itself."""
        over = self._over(node.body)
        if not over.loaded:
            return node
        found = self.names.wholes.get((node, over.node))
        if found is None:
            found = Reduce(node.monoid, node.axes, over.node, node.precision, node.index_sort)
            self.names.wholes[node, over.node] = found
        return found


def kept_dtype(
    node: Reduce, compute: str, changed: Mapping[Precision, Precision] | None = None
) -> str:
    """What a materialised reduction is kept in: what its equation rounds it to, where precisions
    have become those that `changed` says.
    """
    if node.sort != REAL:
        return node.sort
    if node.precision is None:
        return compute
    return (changed or {}).get(node.precision, node.precision).result


def _target(store: Store, node: Node, key: Node | None = None) -> Target:
    names = dict.fromkeys(load.tensor.name for load in contents(store.value).loads)
    return Target(store, tuple(names), node, key)
