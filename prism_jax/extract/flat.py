"""A jaxpr with its calls looked through: one list of equations over values that are defined once.

In: a jaxpr. Out: a `Flat` whose equations have no inner jaxpr that a rule could read through:
nested `jit`, `custom_jvp_call`, `custom_vjp_call` and `checkpoint` are replaced by their bodies, as
only values matter here. Everything else (`scan`, `sort`, ...) is one equation without a rule.
Invariant: values are fresh objects, so one inner jaxpr that is called twice gives two bodies.

>>> import jax, jax.numpy as jnp
>>> flat = flatten(jax.make_jaxpr(lambda x: jax.nn.silu(x) + 1)(jnp.zeros((2, 3), jnp.float32)))
>>> [equation.primitive for equation in flat.equations], flat.inputs[0].shape
(['logistic', 'mul', 'add'], (2, 3))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import numpy as np

from prism_jax import compat

INNER = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
"""Calls whose value is the value of a body: primitive -> the parameter that holds the body."""


@dataclass(eq=False, slots=True)
class Value:
    """An array: an input, or an output of one equation."""

    shape: tuple[int, ...]
    dtype: str
    source: Equation | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number written into the jaxpr."""

    value: bool | int | float
    dtype: str
    shape: tuple[int, ...] = ()


Atom: TypeAlias = Value | Scalar


@dataclass(eq=False, slots=True)
class Equation:
    """`outputs = primitive[params](inputs)`.

    Attributes:
      owner: which equation of the outer jaxpr it is part of.
      context: why its own context (host offloading, annotations, effects) forbids to move it.
    """

    primitive: str
    params: Mapping[str, Any]
    inputs: tuple[Atom, ...]
    owner: int
    context: str | None = None
    outputs: tuple[Value, ...] = ()

    def __str__(self) -> str:
        operands = ", ".join(f"{atom.dtype}{list(atom.shape)}" for atom in self.inputs)
        return f"{self.primitive}({operands})"


@dataclass
class Flat:
    """Attributes: `inputs` are the jaxpr's own, then its array constants, whose arrays are
    `constants`.
    """

    inputs: list[Value] = field(default_factory=list[Value])
    constants: list[Any] = field(default_factory=list[Any])
    equations: list[Equation] = field(default_factory=list[Equation])
    outputs: list[Atom] = field(default_factory=list[Atom])


def open_jaxpr(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """The equations and the constants of a jaxpr, be it closed or open, of any jax version."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def body_of(equation: Any) -> Any | None:
    """The inner jaxpr that gives a call's values, or None if the equation has to stay whole."""
    name = equation.primitive.name
    if name not in INNER:
        return None
    params = equation.params
    if equation.effects or any(
        "Unspecified" not in type(sharding).__name__
        for key in ("in_shardings", "out_shardings")
        for sharding in params.get(key, ())
    ):
        return None
    if any(layout is not None for layout in params.get("in_layouts", ())):
        return None
    body = params.get(INNER[name])
    # An array that only the body closes over could not become an input of a program.
    closed = all(scalar_constant(const) is not None for const in open_jaxpr(body)[1])
    return body if closed else None


def scalar_constant(value: Any) -> Scalar | None:
    """The number that a rank-0 constant holds, if it is known here and now."""
    if compat.is_tracer(value) or np.shape(value) != ():
        return None
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return None
    dtype = str(getattr(value, "dtype", None) or np.asarray(value).dtype)
    if not np.issubdtype(np.asarray(value).dtype, np.number) and dtype not in ("bool", "bfloat16"):
        return Scalar(float(value), dtype) if dtype.startswith("float8") else None
    return Scalar(np.asarray(value).item(), dtype)


def flatten(jaxpr: Any) -> Flat:
    """Looks through all calls of a closed jaxpr. What has no rule stays an equation."""
    inner, consts = open_jaxpr(jaxpr)
    flat = Flat()
    known: dict[Any, Atom] = {}
    for var in inner.invars:
        known[var] = _value(var.aval)
        flat.inputs.append(known[var])  # type: ignore[arg-type]
    for var, const in zip(inner.constvars, consts, strict=True):
        known[var] = scalar_constant(const) or _value(var.aval)
        if isinstance(known[var], Value):
            flat.inputs.append(known[var])  # type: ignore[arg-type]
            flat.constants.append(const)
    for owner, equation in enumerate(inner.eqns):
        _append(flat, equation, known, owner)
    flat.outputs = [_atom(var, known) for var in inner.outvars]
    return flat


def flatten_owned(equations: Sequence[Any], known: dict[Any, Atom]) -> list[Equation]:
    """The same for a list of equations. `known` holds the values of the variables that they read,
    and is filled with those that they define; an equation's `owner` is its place in the list.
    """
    flat = Flat()
    for owner, equation in enumerate(equations):
        _append(flat, equation, known, owner)
    return flat.equations


def _append(flat: Flat, equation: Any, known: dict[Any, Atom], owner: int) -> None:
    """Appends an equation, or the body of a call."""
    atoms = tuple(_atom(var, known) for var in equation.invars)
    body = body_of(equation)
    if body is None:
        new = Equation(equation.primitive.name, equation.params, atoms, owner, _context(equation))
        outputs: list[Value] = []
        for position, var in enumerate(equation.outvars):
            outputs.append(_value(var.aval, new, position))
            known[var] = outputs[-1]
        new.outputs = tuple(outputs)
        flat.equations.append(new)
        return
    inner, consts = open_jaxpr(body)
    below: dict[Any, Atom] = dict(zip(inner.invars, atoms, strict=True))
    for var, const in zip(inner.constvars, consts, strict=True):
        number = scalar_constant(const)
        assert number is not None
        below[var] = number
    for each in inner.eqns:
        _append(flat, each, below, owner)
    for outside, inside in zip(equation.outvars, inner.outvars, strict=True):
        known[outside] = _atom(inside, below)


def _context(equation: Any) -> str | None:
    context = getattr(equation, "ctx", None)
    if getattr(context, "compute_type", None):
        return "it asks for a place of computation of its own"
    if getattr(context, "xla_metadata", None):
        return "it carries compiler annotations"
    return "it has side effects" if equation.effects else None


def _value(aval: Any, source: Equation | None = None, position: int = 0) -> Value:
    shape: tuple[Any, ...] = tuple(getattr(aval, "shape", ()))
    dtype = str(getattr(aval, "dtype", ""))
    if not compat.is_local(aval) and all(isinstance(size, int) for size in shape):
        # Tokens, references, keys, arrays split over devices: no rule accepts such a dtype.
        dtype = f"{dtype or type(aval).__name__} of a special kind"
    return Value(shape, dtype, source, position)


def _atom(var: Any, known: Mapping[Any, Atom]) -> Atom:
    if not isinstance(var, compat.Literal):
        return known[var]
    scalar = scalar_constant(var.val)
    if scalar is None:
        return _value(var.aval)  # an array literal: no source and not an input, refused by `lift`
    aval: Any = var.aval
    return Scalar(scalar.value, str(aval.dtype))
