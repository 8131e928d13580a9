"""The kernel level: which of the tensors that are written one kernel writes.

Targets that may run side by side, share an operand and whose grids match are grouped, so that one
kernel may write them all. Targets may also be *joined*: a kernel writes what its other stores need,
and has it at hand (a softmax's maximum and sum, both wanted by the kernels of a gradient).
"""

from __future__ import annotations

from dataclasses import dataclass

from prism_jax.explore.targets import Names, Target
from prism_jax.ir.nodes import Axis, Node, Store
from prism_jax.ir.program import Program, contents
from prism_jax.ir.rewrite import rename_store


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
            renamed = _matched(self.names, first, target.store, both)
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
            renamed = _matched(self.names, group.stores[0], store, False)
            if renamed is not None:
                group.add(renamed, target.key)
                self.joined = True
                return group
        return None


def _matched(names: Names, first: Store, other: Store, outputs: bool) -> Store | None:
    """`_alike`, remembered."""
    key = (first, other, outputs)
    if key not in names.beside:
        names.beside[key] = _alike(first, other, names, outputs)
    return names.beside[key]


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
