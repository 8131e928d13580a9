"""What extraction knows of each equation of a jaxpr: what it reads, what it costs, what forbids it.

In: a closed jaxpr. Out: one `Item` per equation, in program order. An equation with an inner jaxpr
(nested `jit`, `custom_jvp_call`, ...) counts as all the equations of its body together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from prism_jax import compat
from prism_jax.extract.flat import Atom, Equation, Value, body_of, flatten_owned
from prism_jax.extract.rule import refusal
from prism_jax.extract.rules import RULES

WEIGHT = {"layout": 0, "pointwise": 1, "reduction": 1, "contraction": 2}
"""About how many nodes an equation of each kind becomes."""


@dataclass(eq=False)
class Item:
    """One equation of the jaxpr being cut."""

    number: int
    eqn: compat.JaxprEqn
    reads: tuple[compat.Var, ...]
    writes: tuple[compat.Var, ...]
    ordered: bool
    """It has effects, which must keep their order."""
    weight: int = 0
    work: int = 0
    """Equations that compute something."""
    heavy: bool = False
    """It reduces or contracts."""
    refused: str | None = None
    apart: set[compat.Var] = field(default_factory=set[compat.Var])
    """Variables that must be in memory before this equation: indexing their definitions by values
    would compute more elements than they have."""


def items_of(closed: compat.ClosedJaxpr, bound: int) -> list[Item]:
    """One item per equation; an equation over `bound` in weight is refused, as its body is cut."""
    jaxpr = closed.jaxpr
    known: dict[Any, Atom] = {
        var: Value(tuple(getattr(var.aval, "shape", ())), str(getattr(var.aval, "dtype", "")))
        for var in (*jaxpr.invars, *jaxpr.constvars)
    }
    flat = flatten_owned(jaxpr.eqns, known)
    names = {value: var for var, value in known.items() if isinstance(value, Value)}
    items: list[Item] = []
    for eqn in jaxpr.eqns:
        reads = dict.fromkeys(v for v in eqn.invars if not isinstance(v, compat.Literal))
        items.append(Item(len(items), eqn, tuple(reads), tuple(eqn.outvars), bool(eqn.effects)))
    for equation in flat:
        _count(items[equation.owner], equation, names)
    for item in items:
        if item.refused is None and item.weight > bound and body_of(item.eqn) is not None:
            item.refused = f"{item.eqn.primitive.name} is larger than a region: its body is cut"
    return items


def _count(item: Item, equation: Equation, names: dict[Value, compat.Var]) -> None:
    if item.refused is not None:
        return
    item.refused = refusal(equation)
    if item.refused is not None:
        return
    kind = RULES[equation.primitive].kind
    item.weight += WEIGHT[kind]
    item.work += WEIGHT[kind] > 0
    item.heavy |= kind in ("reduction", "contraction")
    if equation.primitive == "gather" and isinstance(equation.inputs[0], Value):
        operand, result = equation.inputs[0], equation.outputs[0]
        if math.prod(result.shape) > math.prod(operand.shape):
            item.apart |= _outer(operand, equation.owner, names)


def _outer(value: Value, owner: int, names: dict[Value, compat.Var]) -> set[compat.Var]:
    """The variables of the outer jaxpr that a value of one of its equations is computed from."""
    if value.source is None or value.source.owner != owner:
        return {names[value]} if value in names else set()
    below = (atom for atom in value.source.inputs if isinstance(atom, Value))
    return {var for atom in below for var in _outer(atom, owner, names)}


def shape(variable: compat.Var) -> tuple[int, ...]:
    """The shape of a variable's array; () for what is no array."""
    aval: Any = variable.aval
    return tuple(getattr(aval, "shape", ()))


def elements(variables: Iterable[compat.Var]) -> int:
    """The size of the largest array among variables."""
    return max((math.prod(shape(v)) for v in variables), default=0)


def nbytes(variable: compat.Var) -> int:
    """Bytes of a variable's array."""
    aval: Any = variable.aval
    return math.prod(aval.shape) * aval.dtype.itemsize
