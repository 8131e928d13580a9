"""A jaxpr cut into regions with programs, and runs of equations that are left alone.

In: a closed jaxpr. Out: an `Extraction`, whose steps give the jaxpr's outputs when run in order.
Invariants: every equation is in exactly one step; effects keep their order; a region's jaxpr holds
the original equations (so `custom_jvp` and `custom_vjp` rules stay in force), its program has one
input per invar and one store per outvar; equal regions share one program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prism_jax import compat
from prism_jax.extract.cut import components, divide, halves, schedule
from prism_jax.extract.flat import Flat, Scalar, Value, flatten, scalar_constant
from prism_jax.extract.inline import inline
from prism_jax.extract.items import Item, elements, items_of
from prism_jax.extract.lift import argument_names, lift_flat
from prism_jax.extract.refuse import NotLiftable
from prism_jax.extract.repeat import Cheap
from prism_jax.ir.program import Program
from prism_jax.options import Options

MAX_WEIGHT = 60
"""A region's size in lifted nodes, about; what is longer is cut."""
MIN_POINTWISE = 24
"""A region that only works elementwise needs this many equations: XLA fuses those well."""


@dataclass(frozen=True, eq=False)
class Region:
    """Equations that one program describes; `invars`, `outvars`: of the jaxpr it was cut from."""

    name: str
    jaxpr: compat.ClosedJaxpr
    program: Program
    invars: tuple[compat.Var, ...]
    outvars: tuple[compat.Var, ...]


@dataclass(frozen=True, eq=False)
class Equations:
    """Equations that run as they are (their inner jaxprs may be rewritten)."""

    eqns: tuple[compat.JaxprEqn, ...]


@dataclass(frozen=True, eq=False)
class Extraction:
    """The steps of a jaxpr, in execution order, and why equations were left alone.

    Steps read the jaxpr's invars and constvars and define its outvars; as nested jits are inlined,
    what they hand to each other may be variables of their own.
    """

    steps: tuple[Region | Equations, ...]
    refused: tuple[str, ...]

    @property
    def regions(self) -> tuple[Region, ...]:
        """The steps that are regions."""
        return tuple(step for step in self.steps if isinstance(step, Region))


def extract(
    jaxpr: compat.ClosedJaxpr, options: Options | None = None, name: str = "f"
) -> Extraction:
    """Cuts a closed jaxpr.

    Args:
      jaxpr: what `trace` made; constants of rank 0 become numbers in programs, arrays stay inputs.
      options: settings; none of them changes where a jaxpr is cut.
      name: the user's function, after which regions are named.
    """
    del options
    return _Extractor(jaxpr, name).run()


@dataclass(eq=False)
class _Piece:
    """A run of items of which none or all go into a region."""

    worth: bool
    items: list[Item]


class _Unliftable(Exception):
    def __init__(self, piece: _Piece) -> None:
        self.piece = piece


class _Extractor:
    def __init__(self, original: compat.ClosedJaxpr, name: str) -> None:
        self.original, self.closed, self.name = original, inline(original), name
        closed = self.closed
        self.programs: dict[Hashable, Program] = {}
        self.items = items_of(closed, MAX_WEIGHT)
        self.refused = dict.fromkeys(i.refused for i in self.items if i.refused is not None)
        self.cheap = Cheap(self.items)
        jaxpr = closed.jaxpr
        self.results = {v for v in jaxpr.outvars if not isinstance(v, compat.Literal)}
        self.numbers: dict[Any, Any] = {
            var: compat.Literal(np.asarray(const)[()], var.aval)
            for var, const in zip(jaxpr.constvars, compat.constants(closed), strict=True)
            if scalar_constant(const) is not None
        }
        self.arguments = dict(zip(jaxpr.invars, argument_names(closed) or (), strict=False))

    def run(self) -> Extraction:
        pieces: list[_Piece] = []
        for group in schedule(self.items):
            if not group.liftable:
                pieces.append(_Piece(False, group.items))
                continue
            for run in divide(group.items, MAX_WEIGHT, self.cheap):
                pieces += [_Piece(worthwhile(part), part) for part in components(run)]
        while True:
            try:
                steps = self._named(self.steps(pieces))
                if not any(isinstance(step, Region) for step in steps):
                    steps = (Equations(tuple(self.original.jaxpr.eqns)),)
                return Extraction(steps, tuple(self.refused))
            except _Unliftable as failure:  # rare: programs of the other pieces are remembered
                place = pieces.index(failure.piece)
                own = failure.piece.items
                parts = halves(own, self.cheap) if len(own) > 1 else [own]
                pieces[place : place + 1] = [
                    _Piece(len(parts) > 1 and worthwhile(part), part) for part in parts
                ]

    def steps(self, pieces: Sequence[_Piece]) -> list[Region | list[compat.JaxprEqn]]:
        """One region or list of equations for each piece that has something to compute."""
        needed = set(self.results)
        live: list[tuple[_Piece, list[Item], list[Item]]] = []
        for piece in reversed(pieces):
            own: list[Item] = []
            wanted = set(needed)
            for item in reversed(piece.items):
                if item.refused is not None or not wanted.isdisjoint(item.writes):
                    own.append(item)
                    wanted.update(item.reads)
            own.reverse()
            repeated = self.cheap.behind(own) if piece.worth else []
            written = {var for item in (*repeated, *own) for var in item.writes}
            needed.update(v for i in (*repeated, *own) for v in i.reads if v not in written)
            if own:
                live.append((piece, repeated, own))
        readable = sum(piece.worth for piece, _, _ in live) == 1
        found: list[Region | list[compat.JaxprEqn]] = []
        for piece, repeated, own in reversed(live):
            if not piece.worth:
                found.append([item.eqn for item in own])
                continue
            try:
                found.append(self.region(repeated, own, needed, readable))
            except NotLiftable as refusal:
                self.refused[str(refusal)] = None
                raise _Unliftable(piece) from refusal
        return found

    def region(
        self, repeated: list[Item], own: list[Item], needed: set[compat.Var], readable: bool
    ) -> Region:
        """The region that computes those of its own items' variables that are needed elsewhere."""
        items = [*repeated, *own]
        written = {var for item in items for var in item.writes}
        reads = dict.fromkeys(v for item in items for v in item.reads if v not in written)
        invars = tuple(var for var in reads if var not in self.numbers)
        outvars = tuple(var for item in own for var in item.writes if var in needed)
        eqns = [self.inlined(item) for item in items]
        closed = compat.part_of(self.closed, invars, outvars, eqns)
        flat = flatten(closed)
        names = None
        if readable and all(var in self.arguments for var in invars):
            names = [self.arguments[var] for var in invars]
        key = fingerprint(flat)
        if key not in self.programs:
            self.programs[key] = lift_flat(flat, self.name, names)
        return Region(self.name, closed, self.programs[key], invars, outvars)

    def inlined(self, item: Item) -> compat.JaxprEqn:
        """The equation with constants of rank 0 written into it, as regions close over nothing."""
        if self.numbers.keys().isdisjoint(item.reads):
            return item.eqn
        invars = [
            v if isinstance(v, compat.Literal) else self.numbers.get(v, v) for v in item.eqn.invars
        ]
        return item.eqn.replace(invars=invars)

    def _named(
        self, steps: Sequence[Region | list[compat.JaxprEqn]]
    ) -> tuple[Region | Equations, ...]:
        """Regions numbered (where there are several), adjacent equations in one step."""
        several = sum(isinstance(step, Region) for step in steps) > 1
        found: list[Region | Equations] = []
        waiting: list[compat.JaxprEqn] = []
        number = 0
        for step in steps:
            if not isinstance(step, Region):
                waiting += step
                continue
            if waiting:
                found.append(Equations(tuple(waiting)))
                waiting = []
            name = f"{self.name}_{number}" if several else self.name
            number += 1
            program = dataclasses.replace(step.program, name=name)
            found.append(dataclasses.replace(step, name=name, program=program))
        return (*found, Equations(tuple(waiting))) if waiting else tuple(found)


def worthwhile(items: Sequence[Item]) -> bool:
    """Whether a run has work that XLA might not do best by itself."""
    work = sum(item.work for item in items)
    if elements(var for item in items for var in (*item.reads, *item.writes)) <= 1:
        return False
    if any(item.heavy for item in items):
        return work > 1
    return work >= MIN_POINTWISE


def fingerprint(flat: Flat) -> Hashable:
    """Equal for flat jaxprs that lift to one program; cheaper than lifting."""
    numbers: dict[Value, int] = {value: n for n, value in enumerate(flat.inputs)}
    parts: list[Any] = [tuple((v.shape, v.dtype) for v in flat.inputs)]

    def reference(atom: Value | Scalar) -> Hashable:
        if isinstance(atom, Value):
            return numbers[atom] if atom in numbers else ("array", id(atom))
        return type(atom.value).__name__, repr(atom.value), atom.dtype

    for equation in flat.equations:
        for value in equation.outputs:
            numbers[value] = len(numbers)
        parts.append(
            (
                equation.primitive,
                tuple(sorted((key, _frozen(value)) for key, value in equation.params.items())),
                tuple(reference(atom) for atom in equation.inputs),
                tuple((value.shape, value.dtype) for value in equation.outputs),
            )
        )
    parts.append(tuple(reference(atom) for atom in flat.outputs))
    return tuple(parts)


def _frozen(value: Any) -> Hashable:
    return repr(value)
