"""The kernel level: which tensors are written to memory, and which of them one kernel writes.

A *partition* of a form is a set of its reductions that are materialised. Every materialised
reduction and every output is a target; targets that may run side by side, share an operand and
whose grids match are grouped, so that one kernel may write them all. Targets may also be *joined*:
a kernel writes what its other stores need, and has it at hand (a softmax's maximum and sum, both
wanted by the kernels of a gradient).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from prism_jax.ir.nodes import REAL, Axis, Load, Node, Precision, Reduce, Store, Tensor, at
from prism_jax.ir.program import Program, contents
from prism_jax.ir.rewrite import canonical, rebuild, rename_store


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
    are equal; `equal`: pairs of axes whose sizes were compared, and the answer. The rest is kept as
    most terms are the same in most partitions: `over` says what a term is over the tensors of some
    materialised reductions, `beside` what `alike` has found.
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

    def alike(self, first: Store, other: Store, outputs: bool) -> Store | None:
        """`_alike`, remembered."""
        key = (first, other, outputs)
        if key not in self.beside:
            self.beside[key] = _alike(first, other, self, outputs)
        return self.beside[key]

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
    make those.
    """

    def __init__(self, materialised: frozenset[Node], names: Names) -> None:
        self.materialised, self.names = materialised, names
        self._set = names.bits(materialised)
        self.found: list[Target] = []
        self._tensors: dict[Node, Tensor] = {}

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
                self._load(reduction, *self.names.canonical(reduction))
        return found

    def _rebuilt(self, node: Node) -> Over:
        if isinstance(node, Reduce):
            key, axes = self.names.canonical(node)
            if key in self.materialised:
                return Over(self._load(node, key, axes), (node,))
        loaded: dict[Reduce, None] = {}

        def child(below: Node) -> Node:
            found = self._over(below)
            loaded.update(dict.fromkeys(found.loaded))
            return found.node

        return Over(rebuild(node, child), tuple(loaded))

    def _load(self, node: Reduce, key: Node, axes: tuple[Axis, ...]) -> Node:
        tensors, names = self._tensors, self.names
        if key not in tensors:
            value = self.whole(node)
            dtype = kept_dtype(node, names.compute)
            name = names.tensors.setdefault(key, f"t{len(names.tensors)}")
            tensors[key] = Tensor(name, tuple(a.size for a in axes), dtype)
            store = Store(tensors[key], tuple(at(a) for a in axes), value)
            self.found.append(_target(store, node, key))
        return Load(tensors[key], tuple(at(a) for a in axes))

    def whole(self, node: Reduce) -> Node:
        """A reduction that is not materialised itself."""
        body = self(node.body)
        if body is node.body:
            return node
        return Reduce(node.monoid, node.axes, body, node.precision, node.index_sort)


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


@dataclass
class _Group:
    """Stores of one kernel. `depth`: the longest chain of kernels before it."""

    depth: int
    stores: list[Store]
    keys: set[Node]

    def add(self, store: Store, key: Node | None) -> None:
        self.stores.append(store)
        self.keys.update(() if key is None else (key,))


def groups(program: Program, made: tuple[Target, ...], names: Names) -> list[tuple[Store, ...]]:
    """Targets grouped into kernels: side by side, sharing an operand, with grids that match.
    Execution order is kept.
    """
    return _Grouping(program, made, names).groups()


def joined(
    program: Program, made: tuple[Target, ...], names: Names
) -> list[tuple[Store, ...]] | None:
    """As `groups`, but a kernel that makes what a target needs writes that target, too, if their
    grids match. None if there is no such kernel, or if it writes something that only itself needs:
    the partition that does not materialise that has the better kernel.
    """
    grouping = _Grouping(program, made, names, join=True)
    found = grouping.groups()
    return found if grouping.joined and not grouping.idle() else None


class _Grouping:
    def __init__(
        self, program: Program, made: tuple[Target, ...], names: Names, join: bool = False
    ) -> None:
        self.made, self.names, self.join = made, names, join
        self.materialised = frozenset(t.key for t in made if t.key is not None)
        self.level: dict[str, int] = {t.name: 0 for t in program.inputs}
        self.outputs = {store.tensor for store in program.outputs}
        self.found: list[_Group] = []
        self.joined = False

    def groups(self) -> list[tuple[Store, ...]]:
        for target in self.made:
            group = (self.join and self._joined(target)) or self._beside(target)
            self.level[target.store.tensor.name] = group.depth + 1
        self.found.sort(key=lambda group: group.depth)
        return [tuple(group.stores) for group in self.found]

    def idle(self) -> bool:
        """Whether a kernel writes something that only itself needs."""
        home = {s.tensor.name: n for n, group in enumerate(self.found) for s in group.stores}
        wanted = {s.name for s in self.outputs}
        for target in self.made:
            here = home[target.store.tensor.name]
            wanted.update(name for name in target.needs if home.get(name) != here)
        return any(target.store.tensor.name not in wanted for target in self.made)

    def _beside(self, target: Target) -> _Group:
        """A group of which the target needs nothing; perhaps a new one."""
        depth = max((self.level.get(n, 0) for n in target.needs), default=0)
        for group in self.found:
            first = group.stores[0]
            if group.depth != depth:
                continue
            both = first.tensor in self.outputs and target.store.tensor in self.outputs
            renamed = self.names.alike(first, target.store, both)
            if renamed is not None:
                group.add(renamed, target.key)
                return group
        group = _Group(depth, [], set())
        group.add(target.store, target.key)
        self.found.append(group)
        return group

    def _joined(self, target: Target) -> _Group | None:
        """A group that makes something that the target needs, if it may make the target as well."""
        for group in self.found:
            own = {store.tensor.name for store in group.stores}
            others = [n for n in target.needs if n not in own]
            if len(others) == len(target.needs):
                continue
            if any(self.level.get(n, 0) > group.depth for n in others):
                continue
            store = target.without(self.materialised - group.keys, self.names)
            renamed = self.names.alike(group.stores[0], store, False)
            if renamed is not None:
                group.add(renamed, target.key)
                self.joined = True
                return group
        return None


def _alike(first: Store, other: Store, names: Names, outputs: bool) -> Store | None:
    """`other` with its axes renamed to those of the first store, if one kernel may write both: they
    share an operand and at least one axis of the grid.

    Stores of one shape match dimension by dimension; else, of two outputs, axes are matched by the
    dimensions of shared operands that they index (an output and its row's log-sum-exp). What is
    materialised for later kernels is so in order to have a grid of its own.
    """
    read = {load.tensor for load in contents(first.value).loads}
    if not any(load.tensor in read for load in contents(other.value).loads):
        return None
    pairs = _by_position(first, other, names)
    if pairs is None and outputs:
        pairs = _by_operands(first, other, names)
    if not pairs:
        return None
    bound_in_other = {a for n in contents(other.value).reductions for a in n.axes}
    if bound_in_other & set(pairs.values()) - set(pairs):
        return None
    return rename_store(other, pairs)


def _by_position(first: Store, other: Store, names: Names) -> dict[Axis, Axis] | None:
    if len(first.index) != len(other.index):
        return None
    pairs: dict[Axis, Axis] = {}
    for a, b in zip(first.index, other.index, strict=True):
        if a == b and not a.terms:  # both have one element there
            continue
        if a.axis is None or b.axis is None or not names.same_size(a.axis, b.axis):
            return None
        pairs[b.axis] = a.axis
    return pairs


def _indexed(store: Store) -> int:
    """Dimensions of which a store may write more than one element."""
    return sum(bool(index.terms) for index in store.index)


def _by_operands(first: Store, other: Store, names: Names) -> dict[Axis, Axis] | None:
    """Axes of the other store to axes of the first one, by dimensions of shared operands; None
    where they cannot be told apart, or where the stores share no reduction: then two kernels do no
    work twice, and each has the grid that suits it.
    """
    stored = {a for i in first.index if (a := i.axis) is not None}
    theirs = {a for i in other.index if (a := i.axis) is not None}
    if len(theirs) != _indexed(other) or len(stored) != _indexed(first):
        return None
    where: dict[tuple[str, int], set[Axis]] = {}
    for node in contents(first.value).loads:
        for n, index in enumerate(node.index):
            if index.axis in stored:
                where.setdefault((node.tensor.name, n), set()).add(index.axis)
    pairs: dict[Axis, Axis] = {}
    for node in contents(other.value).loads:
        for n, index in enumerate(node.index):
            known = where.get((node.tensor.name, n), set[Axis]())
            if index.axis in theirs and len(known) == 1:
                pairs.setdefault(index.axis, next(iter(known)))
    mine = {names.canonical(n)[0] for n in contents(first.value).reductions}
    if not any(names.canonical(n)[0] in mine for n in contents(other.value).reductions):
        return None
    same = all(names.same_size(a, b) for a, b in pairs.items())
    if not pairs or not same or len(set(pairs.values())) < len(pairs):
        return None
    if (theirs - set(pairs)) & stored:  # an axis of both that means something else in each
        return None
    return pairs
