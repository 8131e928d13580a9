"""The e-graph: terms, equalities between them, and what is known of every class.

In: e-nodes, tuples `(head, *child class ids)`. Out: class ids. A head is any hashable value; what
it means (normal forms, facts) is the business of a `Language`. Rules find nodes by *kind*: the head
itself if it is text, its first item if it is a tuple.

Invariant, after `rebuild`: every node in `memo` has canonical children, equal nodes are in one
class, and every class's facts are at least as strong as what its nodes imply. Ids are numbered in
order of creation and nothing iterates over a set, so equal inputs give equal graphs in every
process.

Every node of a class carries the *stamp* of the round in which it entered the class (or changed):
rules look only at matches that hold something newer than their last search.

>>> g = EGraph()
>>> a, b = g.add(("a",)), g.add(("b",))
>>> fa, fb = g.add(("f", a)), g.add(("f", b))
>>> g.union(a, b); g.rebuild(); g.find(fa) == g.find(fb)
True
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

ENode: TypeAlias = tuple[Any, ...]


class Head(tuple[Any, ...]):
    """A head whose hash is computed once: hashing fractions would be a third of all time."""

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other


_HEADS: dict[tuple[Any, ...], Head] = {}


def head(*parts: Any) -> Head:
    """A head with its parts: equal parts give one object."""
    found = _HEADS.get(parts)
    if found is None:
        found = _HEADS.setdefault(parts, Head(parts))
    return found


class EClass:
    """Equal nodes, those that mention the class, and the facts that hold for all of them."""

    __slots__ = ("entries", "facts", "parents", "touched")

    def __init__(self, facts: Any) -> None:
        self.entries: dict[Any, list[tuple[int, ENode]]] = {}
        self.parents: list[ENode] = []
        self.facts = facts
        self.touched = 0

    @property
    def nodes(self) -> Iterator[ENode]:
        """All nodes, grouped by kind in order of appearance."""
        for entries in self.entries.values():
            for _, node in entries:
                yield node


class Language:
    """What heads mean. This base gives them no meaning: plain terms without facts."""

    #: whether classes carry facts at all
    has_facts = False

    def canonical(self, graph: EGraph, node: ENode) -> ENode | int:
        """The node with canonical children, or the id of a class that it turns out to be."""
        find = graph.find
        return (node[0], *[find(child) for child in node[1:]])

    def facts(self, graph: EGraph, node: ENode) -> Any:
        """What is known of a node from the facts of its children."""
        return None

    def join(self, one: Any, other: Any) -> Any:
        """What is known of a class when two are merged: at least as much as of either; must return
        `one` if nothing is new.
        """
        return one

    def on_change(self, graph: EGraph, identifier: int) -> None:
        """Called after a class's facts changed (or it was made); may add nodes and unions."""

    def text(self, head: Any) -> str:
        """How a head is printed."""
        return str(head)


def kind_of(head: Any) -> Any:
    """What rules find a node by."""
    return head[0] if isinstance(head, tuple) else head


class EGraph:
    """See the module's text."""

    def __init__(self, language: Language | None = None) -> None:
        self.language = language or Language()
        self.classes: dict[int, EClass] = {}
        self.memo: dict[ENode, int] = {}
        self.leader: list[int] = []
        self.founder: list[ENode] = []
        self.origin: dict[ENode, str] = {}
        self.history: list[tuple[Any, Any]] = []
        """What `run.saturate` applied with effect: (rule, match) in order; `explain` picks from it.
        """
        self.version = 0
        """Grows with every new node, every union and every repair."""
        self.changed_cache: tuple[int, dict[Any, list[int]]] = (-1, {})
        """What `changed` found at a version: all rules of a round ask the same."""
        self.clock = 1
        self.reason = "given"
        """The name under which nodes are added: the rule that is being applied."""
        self._repairs: list[tuple[int, list[ENode]]] = []
        self._changed: list[int] = []

    # ---- reading

    def find(self, identifier: int) -> int:
        """The canonical id of a class."""
        leader = self.leader
        while (above := leader[identifier]) != identifier:
            leader[identifier] = identifier = leader[above]
        return identifier

    def facts(self, identifier: int) -> Any:
        """The facts of a class."""
        return self.classes[self.find(identifier)].facts

    def nodes(self, identifier: int, kind: Any = None) -> list[ENode]:
        """The nodes of a class, of one kind if given, in order of appearance."""
        entry = self.classes[self.find(identifier)]
        return list(entry.nodes) if kind is None else [n for _, n in entry.entries.get(kind, ())]

    def lookup(self, node: ENode) -> int | None:
        """The class of a node (children canonical) if it is in the graph."""
        found = self.memo.get(node)
        return None if found is None else self.find(found)

    @property
    def node_count(self) -> int:
        """The number of distinct e-nodes."""
        return len(self.memo)

    # ---- writing

    def add(self, node: ENode, into: int | None = None) -> int:
        """The class of a node, made if it is not there; with `into`, the node joins that class."""
        canonical = self.language.canonical(self, node)
        if isinstance(canonical, int):
            found = self.find(canonical)
        else:
            node = canonical
            known = self.memo.get(node)
            if known is None:
                return self._insert(node, into)
            found = self.find(known)
        if into is not None:
            self.union(into, found)
        return found

    def _insert(self, node: ENode, into: int | None) -> int:
        language, classes = self.language, self.classes
        facts = language.facts(self, node) if language.has_facts else None
        self.version += 1
        self.origin.setdefault(node, self.reason)
        if into is None:
            identifier = len(self.leader)
            self.leader.append(identifier)
            self.founder.append(node)
            here = classes[identifier] = EClass(facts)
            self.memo[node] = identifier
        else:
            identifier = self.find(into)
            here = classes[identifier]
            self.memo[node] = identifier
        here.touched = self.clock
        here.entries.setdefault(kind_of(node[0]), []).append((self.clock, node))
        for child in dict.fromkeys(node[1:]):
            classes[child].parents.append(node)
        if language.has_facts:
            if into is None:
                language.on_change(self, identifier)
            else:
                self._strengthen(identifier, facts)
        return identifier

    def union(self, one: int, other: int) -> None:
        """States that two classes are equal. Call `rebuild` before the next search."""
        kept, lost = self.find(one), self.find(other)
        if kept == lost:
            return
        self.version += 1
        classes = self.classes
        if kept > lost:  # the older class stays, so that its founder does
            kept, lost = lost, kept
        self.leader[lost] = kept
        here, gone = classes[kept], classes.pop(lost)
        for kind, entries in gone.entries.items():
            here.entries.setdefault(kind, []).extend((self.clock, node) for _, node in entries)
        here.touched = self.clock
        self._repairs.append((kept, gone.parents))
        if self.language.has_facts:
            joined = self.language.join(here.facts, gone.facts)
            if joined is not here.facts or joined != gone.facts:
                here.facts = joined
                self._changed.append(kept)

    def _strengthen(self, identifier: int, facts: Any) -> None:
        here = self.classes[identifier]
        joined = self.language.join(here.facts, facts)
        if joined is not here.facts and joined != here.facts:
            here.facts = joined
            here.touched = self.clock
            self._changed.append(identifier)

    def rebuild(self) -> None:
        """Restores the invariant: congruent nodes are merged, facts are carried upwards, dead nodes
        leave the classes.
        """
        dirty: dict[int, None] = {}
        self.version += bool(self._repairs or self._changed)
        while self._repairs or self._changed:
            while self._repairs:
                kept, parents = self._repairs.pop()
                for node in parents:
                    self._repair(node, dirty)
                dirty[self.find(kept)] = None
            changed, self._changed = self._changed, []
            for identifier in dict.fromkeys(map(self.find, changed)):
                self._carry(identifier)
        for identifier in dict.fromkeys(map(self.find, dirty)):
            self._sweep(self.classes[identifier])

    def _repair(self, node: ENode, dirty: dict[int, None]) -> None:
        owner = self.memo.pop(node, None)
        if owner is None:
            return
        owner = self.find(owner)
        dirty[owner] = None
        canonical = self.language.canonical(self, node)
        if isinstance(canonical, int):
            self.union(owner, canonical)
            return
        self.origin.setdefault(canonical, self.origin[node])
        known = self.memo.get(canonical)
        if known is not None:
            if self.find(known) != owner:
                self.union(known, owner)
            return
        self.memo[canonical] = owner
        entry = self.classes[owner]
        entry.touched = self.clock
        entry.entries.setdefault(kind_of(canonical[0]), []).append((self.clock, canonical))
        for child in dict.fromkeys(canonical[1:]):
            self.classes[child].parents.append(canonical)
        if self.language.has_facts:
            self._strengthen(owner, self.language.facts(self, canonical))

    def _carry(self, identifier: int) -> None:
        """A class's facts changed: those of the nodes that use it may be stronger now."""
        self.language.on_change(self, identifier)
        here = self.classes[self.find(identifier)]
        here.touched = self.clock
        for node in dict.fromkeys(here.parents):
            owner = self.memo.get(node)
            if owner is not None:
                self._strengthen(self.find(owner), self.language.facts(self, node))

    def _sweep(self, entry: EClass) -> None:
        memo = self.memo
        for kind, entries in list(entry.entries.items()):
            seen: dict[ENode, int] = {}
            for stamp, node in entries:
                if node in memo:
                    seen[node] = max(stamp, seen.get(node, 0))
            # stamps must not fall: searches stop at the first entry that is too old
            entry.entries[kind] = sorted(((s, n) for n, s in seen.items()), key=lambda e: e[0])
            if not seen:
                del entry.entries[kind]
        entry.parents = [node for node in dict.fromkeys(entry.parents) if node in memo]

    # ---- printing

    def __str__(self) -> str:
        lines: list[str] = []
        for identifier, entry in self.classes.items():
            texts = [self.node_text(node) for node in entry.nodes]
            facts = f"    # {entry.facts}" if entry.facts is not None else ""
            lines.append(f"c{identifier} = {' | '.join(texts)}{facts}")
        return "\n".join(lines)

    def node_text(self, node: ENode) -> str:
        """One node as text; children are class names."""
        children = ", ".join(f"c{self.find(child)}" for child in node[1:])
        head = self.language.text(node[0])
        return f"{head}({children})" if children else head

    def reachable(self, roots: Iterable[int]) -> list[int]:
        """Canonical ids of the classes below the roots, in order of discovery."""
        order: dict[int, None] = {}
        stack = [self.find(root) for root in roots][::-1]
        while stack:
            identifier = stack.pop()
            if identifier in order:
                continue
            order[identifier] = None
            for node in self.classes[identifier].nodes:
                stack.extend(self.find(child) for child in node[1:])
        return list(order)


def changed(graph: EGraph, since: int, depth: int) -> list[int]:
    """Classes within `depth` steps above one that changed after `since`, in order of their ids."""
    key = (graph.version, since, depth)
    if graph.changed_cache[0] != key[0]:
        graph.changed_cache = (graph.version, {})
    known = graph.changed_cache[1]
    if key not in known:
        known[key] = _changed(graph, since, depth)
    return known[key]


def _changed(graph: EGraph, since: int, depth: int) -> list[int]:
    here = [i for i, entry in graph.classes.items() if entry.touched > since]
    found = dict.fromkeys(here)
    for _ in range(depth):
        above: dict[int, None] = {}
        for identifier in here:
            for node in graph.classes[identifier].parents:
                owner = graph.memo.get(node)
                if owner is not None and (owner := graph.find(owner)) not in found:
                    found[owner] = above[owner] = None
        here = list(above)
    return sorted(found)
