"""Hand-made programs, written as index notation is written on paper."""

from __future__ import annotations

from prism_jax.ir.nodes import (
    Axis,
    Const,
    Iota,
    Load,
    Node,
    Pointwise,
    Precision,
    Reduce,
    Store,
    Tensor,
    at,
)
from prism_jax.ir.program import Program


def t(name: str, *axes: Axis, dtype: str = "float32") -> Node:
    """The element of a tensor whose dimensions are these axes."""
    return Load(Tensor(name, tuple(a.size for a in axes), dtype), tuple(at(a) for a in axes))


def op(name: str, *args: Node | float, parameter: int | str | None = None) -> Node:
    return Pointwise(name, tuple(a if isinstance(a, Node) else Const(a) for a in args), parameter)


def mul(*args: Node | float) -> Node:
    return _chain("mul", args)


def add(*args: Node | float) -> Node:
    return _chain("add", args)


def _chain(name: str, args: tuple[Node | float, ...]) -> Node:
    total = args[0] if isinstance(args[0], Node) else Const(args[0])
    for arg in args[1:]:
        total = op(name, total, arg)
    return total


def sub(a: Node | float, b: Node | float) -> Node:
    return op("sub", a, b)


def div(a: Node | float, b: Node | float) -> Node:
    return op("div", a, b)


def exp(a: Node) -> Node:
    return op("exp", a)


def square(a: Node) -> Node:
    return op("integer_pow", a, parameter=2)


def red(monoid: str, body: Node, *axes: Axis, precision: Precision | None = None) -> Node:
    index = "int32" if monoid.startswith("arg") else None
    return Reduce(monoid, axes, body, precision, index)


def total(body: Node, *axes: Axis) -> Node:
    return red("sum", body, *axes)


def causal(i: Axis, k: Axis, score: Node, otherwise: float = float("-inf")) -> Node:
    return op("where", op("ge", Iota(i), Iota(k)), score, otherwise)


def out(value: Node, *axes: Axis, name: str = "y", dtype: str = "float32") -> Store:
    return Store(
        Tensor(name, tuple(a.size for a in axes), dtype), tuple(at(a) for a in axes), value
    )


def program(name: str, *stores: Store, compute: str = "float32") -> Program:
    """The program with the inputs that its loads mention, in order of name."""
    probe = Program(name, (), stores, compute)
    made = {n.tensor.name: n.tensor for n in probe.nodes if isinstance(n, Load)}
    return Program(name, tuple(made[n] for n in sorted(made)), stores, compute)
