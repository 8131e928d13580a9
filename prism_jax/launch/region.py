"""A region's original program as a parameter of a primitive: hashable, compared by its content.

In: a closed jaxpr without effects, whose constants are known values. Out: a `FrozenJaxpr`, whose
equality and hash are those of a digest of everything that decides what it computes. Invariant:
equal digests mean equal programs (jax caches lowerings by it); what has no content that can be
read, such as the rule of a `custom_jvp`, counts by identity, so digests live in one process and are
never stored.

>>> import jax
>>> one = FrozenJaxpr(jax.make_jaxpr(lambda x: x * 2.0)(1.0), "double")
>>> two = FrozenJaxpr(jax.make_jaxpr(lambda y: y * 2.0)(1.0), "twice")
>>> one == two, one == FrozenJaxpr(jax.make_jaxpr(lambda x: x * 3.0)(1.0), "triple")
(True, False)
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from prism_jax import compat, errors


class FrozenJaxpr:
    """A closed jaxpr with value semantics. `name` is for people and is not compared.

    Raises:
      OpenRegionError: the jaxpr has effects, or closes over values that are still being traced;
        neither would survive a cache.
    """

    __slots__ = ("__weakref__", "closed", "digest", "name")

    def __init__(self, closed: compat.ClosedJaxpr, name: str) -> None:
        traced = [const for const in compat.constants(closed) if compat.is_tracer(const)]
        if count := len(traced) + len(closed.effects):
            raise errors.OpenRegionError(where=name, count=count)
        self.closed = closed
        self.name = name
        self.digest = digest(closed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenJaxpr) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.closed.eqns)} equations, {self.digest[:8]}>"

    def __call__(self, *args: Any) -> list[Any]:
        """The outputs, computed as jax would compute them."""
        return compat.evaluate(self.closed, *args)


def digest(closed: compat.ClosedJaxpr) -> str:
    """A sha256 of all that decides what a closed jaxpr computes, save names of variables."""
    state = hashlib.sha256()
    _jaxpr(closed, lambda text: state.update(text.encode() + b"\n"))
    return state.hexdigest()


def _jaxpr(closed: Any, emit: Callable[[str], None]) -> None:
    jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
    numbers: dict[Any, int] = {}

    def number(var: Any) -> int:
        return numbers.setdefault(var, len(numbers))

    def atom(value: Any) -> None:
        if isinstance(value, compat.Literal):
            emit(f"literal {value.aval!r}")
            _value(np.asarray(value.val), emit)
        else:
            emit(f"{number(value)}")

    for const in getattr(closed, "consts", ()):
        _value(const, emit)
    for var in (*jaxpr.constvars, *jaxpr.invars):
        emit(f"in {number(var)} {var.aval!r}")
    for eqn in jaxpr.eqns:
        emit(f"{eqn.primitive.name} {eqn.ctx!r} {len(eqn.invars)} {len(eqn.outvars)}")
        for operand in eqn.invars:
            atom(operand)
        for var in eqn.outvars:
            emit(f"out {number(var)} {var.aval!r}")
        _value(eqn.params, emit)
    emit(f"return {len(jaxpr.outvars)}")
    for operand in jaxpr.outvars:
        atom(operand)


def _value(value: Any, emit: Callable[[str], None]) -> None:
    """Write one parameter so that different values never write the same text."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, compat.Jaxpr | compat.ClosedJaxpr):
        emit("jaxpr {")
        _jaxpr(value, emit)
        emit("}")
    elif isinstance(value, Mapping):
        emit(f"{kind} {len(value)}")
        for key in sorted(value, key=repr):
            _value(key, emit)
            _value(value[key], emit)
    elif isinstance(value, tuple | list):
        emit(f"{kind} {len(value)}")
        for item in value:
            _value(item, emit)
    elif isinstance(value, frozenset | set):
        emit(f"{kind} {sorted(map(repr, value))}")
    elif value is None or isinstance(
        value, bool | int | float | complex | str | bytes | np.dtype | np.generic | FrozenJaxpr
    ):
        emit(f"{kind} {value.digest if isinstance(value, FrozenJaxpr) else repr(value)}")
    elif isinstance(value, enum.Enum | compat.ShapedArray):
        emit(f"{kind} {value!r}")
    elif isinstance(value, np.ndarray | jax.Array) and not compat.is_tracer(value):
        array = np.asarray(value)
        content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        emit(f"{kind} {array.shape} {array.dtype} {content}")
    elif isinstance(value, type):
        emit(f"type {value.__module__}.{value.__qualname__}")
    else:  # a rule, a thunk, a sharding: equal only to itself, and kept alive by the jaxpr
        emit(f"{kind} at {id(value)}")
