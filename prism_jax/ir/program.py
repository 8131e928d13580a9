"""A program: inputs, outputs, and the sort of arithmetic that joins them.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Store, Tensor, at
>>> i = Axis("i", 4)
>>> x, y = Tensor("x", (4,), "float16"), Tensor("y", (4,), "float16")
>>> square = Pointwise("mul", (Load(x, (at(i),)), Load(x, (at(i),))))
>>> program = Program("square", (x,), (Store(y, (at(i),), square),))
>>> [type(node).__name__ for node in program.nodes]
['Load', 'Pointwise']
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from prism_jax.ir.nodes import Axis, Carried, Iota, Load, Node, Reduce, Store, Tensor, fingerprint


@dataclass(frozen=True)
class Program:
    """A region of the user's function. `compute` is the dtype of pointwise arithmetic: "float32" or
    "float64".
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Store, ...]
    compute: str = "float32"

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node once, operands before users, in the same order in every process."""
        return tuple(walk(store.value for store in self.outputs))

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """Every axis that is free or bound anywhere, sorted by name."""
        found = {axis for node in self.nodes for axis in node.axes_free}
        found |= {axis for node in self.nodes if isinstance(node, Reduce) for axis in node.axes}
        found |= {
            axis for store in self.outputs for index in store.index for axis in index.axes_free
        }
        return tuple(sorted(found))

    def __str__(self) -> str:
        from prism_jax.ir.text import print_program

        return print_program(self)

    @cached_property
    def digest(self) -> str:
        """A fingerprint of everything but the name."""
        parts = [str(tensor) for tensor in self.inputs]
        parts += [f"{s.tensor} {fingerprint(s.index)} {s.value.digest}" for s in self.outputs]
        return hashlib.sha256("\n".join([*parts, self.compute]).encode()).hexdigest()


def walk(roots: Iterable[Node]) -> Iterator[Node]:
    """All nodes below the roots, each once, operands (and index nodes) before users; iterative, any
    depth.
    """
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(tuple(roots))]
    while stack:
        node, done = stack.pop()
        if done:
            yield node
            continue
        if node in seen:
            continue
        seen.add(node)
        stack.append((node, True))
        below = (*node.index_nodes, *node.children) if isinstance(node, Load) else node.children
        stack.extend((child, False) for child in reversed(below))


@dataclass(frozen=True)
class Contents:
    """What a term is made of, in the order of `walk`. `positional`: whether it mentions the value
    of an axis; `axes`: every axis that is free or bound anywhere in it.
    """

    loads: tuple[Load, ...]
    reductions: tuple[Reduce, ...]
    carried: tuple[Carried, ...]
    positional: bool
    axes: frozenset[Axis]


@lru_cache(maxsize=1 << 14)
def contents(root: Node) -> Contents:
    """What a term is made of; remembered, since kernels share most of their terms."""
    nodes = list(walk([root]))
    reductions = tuple(n for n in nodes if isinstance(n, Reduce))
    axes = frozenset[Axis]().union(*(n.axes_free for n in nodes), *(n.axes for n in reductions))
    return Contents(
        tuple(n for n in nodes if isinstance(n, Load)),
        reductions,
        tuple(n for n in nodes if isinstance(n, Carried)),
        any(isinstance(n, Iota) for n in nodes),
        axes,
    )


def loads_of(roots: Iterable[Node]) -> tuple[Load, ...]:
    """The loads in terms, each once."""
    return tuple(dict.fromkeys(load for root in roots for load in contents(root).loads))


def reductions_of(roots: Iterable[Node]) -> tuple[Reduce, ...]:
    """The reductions in terms, each once, inner before outer."""
    return tuple(dict.fromkeys(node for root in roots for node in contents(root).reductions))
