"""From a jaxpr to a program in index notation, by pulling from the outputs.

In: a closed jaxpr. Out: a `Program` with one input per invar (then one per array constant) and one
store per outvar, or `NotLiftable`. The element of an output at an index tuple is asked for; each
equation's rule turns that into questions to its operands, until inputs answer with loads. Answers
are memoised by (value, index tuple, guards), so shared work stays shared.

Invariants: a bound axis takes its dimension class's name, primed (i1, i2) only if that name is free
in the index tuple it is asked for; every load stays inside its tensor wherever its guards hold.

>>> import jax, jax.numpy as jnp
>>> x = jnp.zeros((4, 8), jnp.float32)
>>> program = lift(jax.make_jaxpr(lambda x: jnp.sum(x * x, axis=1))(x), "energy")
>>> program.inputs[0].name, [type(node).__name__ for node in program.nodes]
('x', ['Load', 'Pointwise', 'Reduce'])
"""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from typing import Any

from prism_jax.extract.casts import identity_casts
from prism_jax.extract.flat import Equation, Flat, Scalar, Value, flatten, open_jaxpr
from prism_jax.extract.integers import index_range, inside
from prism_jax.extract.refuse import NotLiftable
from prism_jax.extract.relations import Relations
from prism_jax.extract.rule import DTYPES, Ask, Point, Pull, refusal
from prism_jax.extract.rules import RULES
from prism_jax.ir.nodes import (
    REAL,
    Axis,
    Const,
    Index,
    Load,
    Node,
    Pointwise,
    Store,
    Tensor,
    Within,
    affine,
    at,
    sort_of,
)
from prism_jax.ir.program import Program

MAX_NODES = 5000
"""More nodes than this mean that computed values are indexed in too many ways."""


def lift(jaxpr: Any, name: str, inputs: Sequence[str] | None = None) -> Program:
    """The program of a closed jaxpr.

    Args:
      jaxpr: a `ClosedJaxpr`; all shapes are numbers.
      name: the program's name.
      inputs: names of the inputs, one per invar; None: the user's argument names where they are
        plain identifiers, else x0, x1, ...

    Raises:
      NotLiftable: an equation has no rule, or the program would have over `MAX_NODES` nodes.
    """
    flat = flatten(jaxpr)
    given = inputs if inputs is not None else argument_names(jaxpr)
    return lift_flat(flat, name, given)


def argument_names(jaxpr: Any) -> list[str] | None:
    """The names of a traced function's arguments, if each can be a tensor's name."""
    inner, _ = open_jaxpr(jaxpr)
    given: Any = getattr(getattr(inner, "debug_info", None), "arg_names", None)
    names = [str(name) for name in given or ()]
    plain = all(name.isidentifier() and not keyword.iskeyword(name) for name in names)
    fits = len(names) == len(inner.invars) == len(set(names))
    return names if plain and fits else None


def lift_flat(flat: Flat, name: str, inputs: Sequence[str] | None = None) -> Program:
    """The same for a flat jaxpr."""
    for equation in flat.equations:
        reason = refusal(equation)
        if reason is not None:
            raise NotLiftable(f"{reason}, in {equation}")
    for atom in (*flat.inputs, *flat.outputs):
        sizes: tuple[Any, ...] = atom.shape
        if atom.dtype not in DTYPES or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise NotLiftable(f"an input or output is {atom.dtype}{list(atom.shape)}")
    names = list(inputs or [f"x{n}" for n in range(len(flat.inputs))])
    names += [f"constant{n}" for n in range(len(flat.inputs) - len(names))]
    tensors = [
        Tensor(name, value.shape, value.dtype)
        for name, value in zip(names, flat.inputs, strict=True)
    ]
    lifter = Lifter(flat, tensors)
    stores: list[Store] = []
    for tensor, atom in zip(_outputs(flat, set(names)), flat.outputs, strict=True):
        taken: set[str] = set()
        index: list[Index] = []
        for dim in range(len(atom.shape)):
            assert isinstance(atom, Value)
            index.append(lifter.bind(atom, dim, taken, False)[0])
            taken |= {axis.name for axis in index[-1].axes_free}
        value = lifter.pull(Ask(atom, tuple(index), ()))
        stores.append(Store(tensor, tuple(index), stored(value, tensor.dtype)))
    every = [*flat.inputs, *flat.outputs, *(v for e in flat.equations for v in e.outputs)]
    compute = "float64" if any(atom.dtype == "float64" for atom in every) else "float32"
    program = Program(name, tuple(tensors), tuple(stores), compute)
    if len(program.nodes) > MAX_NODES:
        raise NotLiftable(_blow_up(name))
    for node in program.nodes:
        _ = node.digest  # operands first, so that no later call recurses deeply
    return program


def stored(value: Node, dtype: str) -> Node:
    """A store rounds to its tensor's dtype anyway, so a last cast to that dtype says nothing."""
    if isinstance(value, Pointwise) and value.op == "cast" and value.parameter == dtype:
        return value.args[0] if value.args[0].sort == value.sort == REAL else value
    return value


def _outputs(flat: Flat, names: set[str]) -> list[Tensor]:
    alone = len(flat.outputs) == 1
    found: list[Tensor] = []
    for number, atom in enumerate(flat.outputs):
        name = "out" if alone else f"out{number}"
        while name in names:
            name += "_"
        found.append(Tensor(name, atom.shape, atom.dtype))
    return found


def _blow_up(name: str) -> str:
    return f"{name} indexes what it computes in so many ways that it has over {MAX_NODES} nodes"


class Lifter:
    """Answers questions about a flat jaxpr's values. It is the `Binder` of the rules."""

    def __init__(self, flat: Flat, tensors: Sequence[Tensor]) -> None:
        self.tensors = dict(zip(flat.inputs, tensors, strict=True))
        self.relations = Relations(flat)
        self.identities = identity_casts(flat)
        self.memo: dict[Ask, Node] = {}
        self.nodes: set[Node] = set()
        self.name = tensors[0].name if tensors else "the program"

    def bind(
        self, value: Value, dim: int, taken: set[str], whole: bool
    ) -> tuple[Index, tuple[Axis, ...]]:
        """Axes over a dimension, whose names are not taken, and the index that they make.

        A merged dimension has one axis per part (most significant first), unless `whole`.
        """
        if value.shape[dim] == 1:
            return at(0), ()
        classes, root = self.relations.classes, self.relations.dim(value, dim)
        leaves = [classes.find(root)] if whole else classes.leaves(root)
        axes: list[Axis] = []
        terms: list[tuple[Axis | Node, int]] = []
        stride = value.shape[dim]
        taken = set(taken)
        for leaf in leaves:
            size = value.shape[dim] if whole else classes.size[leaf]
            base = name = self.relations.name(leaf)
            prime = 0
            while name in taken:
                prime += 1
                name = f"{base}{prime}"
            taken.add(name)
            stride //= size
            axes.append(Axis(name, size))
            terms.append((axes[-1], stride))
        return affine(terms), tuple(axes)

    def identity_cast(self, equation: Equation) -> bool:
        """Whether a float-to-float cast is the identity over the reals."""
        return equation in self.identities

    def pull(self, ask: Ask) -> Node:
        """The node of one element. Rules are generators, so the stack is ours and may be deep."""
        ask = self._normal(ask)
        answer = self._known(ask)
        if answer is not None:
            return answer
        stack = [(ask, self._start(ask))]
        while stack:
            ask, run = stack[-1]
            try:
                below = next(run) if answer is None else run.send(answer)
            except StopIteration as stop:
                answer = stop.value
                self._learn(ask, answer)
                stack.pop()
                continue
            below = self._normal(below)
            answer = self._known(below)
            if answer is None:
                stack.append((below, self._start(below)))
        assert answer is not None
        return answer

    def _normal(self, ask: Ask) -> Ask:
        """Index 0 in dimensions of one element; only guards that the index tuple depends on."""
        index = tuple(
            at(0) if size == 1 else ix for size, ix in zip(ask.atom.shape, ask.where, strict=True)
        )
        guards = ask.guards
        if guards:
            about = _subjects(index)
            guards = tuple(g for g in guards if _subjects((g.index,)) & about)
        return Ask(ask.atom, index, guards)

    def _known(self, ask: Ask) -> Node | None:
        atom = ask.atom
        if isinstance(atom, Scalar):
            return Const(atom.value, sort_of(atom.dtype))
        found = self.memo.get(ask)
        if found is None and atom.source is None:
            found = self.memo[ask] = self._load(atom, ask.where, ask.guards)
        return found

    def _learn(self, ask: Ask, answer: Node) -> None:
        _ = answer.axes_free  # computed from the operands' while these are at hand
        self.memo[ask] = answer
        self.nodes.add(answer)
        if len(self.nodes) > MAX_NODES or len(self.memo) > 4 * MAX_NODES:
            raise NotLiftable(_blow_up("the region"))

    def _start(self, ask: Ask) -> Pull:
        assert isinstance(ask.atom, Value)
        source = ask.atom.source
        assert source is not None
        point = Point(ask.where, ask.guards, ask.atom.position, self)
        return RULES[source.primitive].pull(source, point)

    def _load(self, value: Value, index: tuple[Index, ...], guards: tuple[Within, ...]) -> Node:
        if value not in self.tensors:
            raise NotLiftable(
                f"a constant array {value.dtype}{list(value.shape)} is written into the jaxpr"
            )
        loose = [ix for ix, size in zip(index, value.shape, strict=True) if not inside(ix, 0, size)]
        tensor = self.tensors[value]
        if not loose:
            return Load(tensor, index)
        about = _subjects(loose)
        needed = tuple(g for g in guards if _subjects((g.index,)) & about)
        if not needed:
            ranges = [index_range(ix) for ix in loose]
            raise NotLiftable(f"an index of {tensor} may be anything in {ranges}")
        return Load(tensor, index, needed, Const(0, sort_of(tensor.dtype)))


def _subjects(indices: Sequence[Index]) -> set[Axis | Node]:
    """What indices depend on: their terms, and the free axes of these."""
    found: set[Axis | Node] = set()
    for index in indices:
        for term, _ in index.terms:
            found.add(term)
            found.update(() if isinstance(term, Axis) else term.axes_free)
    return found
