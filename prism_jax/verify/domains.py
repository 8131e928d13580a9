"""Which values each input of a program may take, read off the program itself.

In: a program. Out: one `Domain` per input, so that a random draw means something: an integer that
  is used as an index stays inside the dimension that it indexes, a length stays between 0 and its
  axis, the argument of a logarithm is positive.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Store, Tensor, at
>>> from prism_jax.ir.program import Program
>>> i = Axis("i", 4)
>>> x, y = Tensor("x", (4,), "float32"), Tensor("y", (4,), "float32")
>>> log = Pointwise("log", (Load(x, (at(i),)),))
>>> domains(Program("log", (x,), (Store(y, (at(i),), log),)))["x"].kind
'positive'
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prism_jax.ir.nodes import (
    REAL,
    Axis,
    Const,
    Index,
    Iota,
    Load,
    Node,
    Pointwise,
    Reduce,
    Tensor,
)
from prism_jax.ir.program import Program, walk

_COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
_KEEPS_POSITIVE = ("add", "mul", "div", "max", "min", "sqrt", "rsqrt", "pow", "cbrt")


@dataclass(frozen=True)
class Domain:
    """`kind` is "any", "positive", "negative" or "unit" for reals, "integer" or "bool" otherwise.

    `low <= value <= high` bounds integers. `index` says that the value is used as an index or a
    length.
    """

    kind: str
    low: int = -8
    high: int = 8
    index: bool = False


def domains(program: Program) -> dict[str, Domain]:
    """The domain of every input, by name."""
    demands = _demands(program)
    ranges = _ranges(program)
    return {t.name: _domain(t, demands.get(t.name), ranges.get(t.name)) for t in program.inputs}


def _domain(
    tensor: Tensor, demand: set[str] | None, bounds: list[tuple[int, int]] | None
) -> Domain:
    if tensor.dtype == "bool":
        return Domain("bool", 0, 1)
    if tensor.dtype.startswith(("int", "uint")):
        if bounds:
            low = max(0, max(b[0] for b in bounds))
            return Domain("integer", low, max(low, min(b[1] for b in bounds)), True)
        return Domain("integer", 0 if tensor.dtype.startswith("u") else -8, 8)
    if not demand:
        return Domain("any")
    if "unit" in demand:
        return Domain("unit")
    return Domain("negative" if demand == {"negative"} else "positive")


def _demands(program: Program) -> dict[str, set[str]]:
    """Signs that logarithms, roots and fractional powers ask of the inputs below them."""
    found: dict[str, set[str]] = {}
    for node in program.nodes:
        if isinstance(node, Pointwise) and _needs_positive(node):
            _ask(node.args[0], "positive", found, set())
    return found


def _needs_positive(node: Pointwise) -> bool:
    if node.op == "pow":
        exponent = node.args[1]
        return not (isinstance(exponent, Const) and float(exponent.value).is_integer())
    return node.op in ("log", "log1p", "sqrt", "rsqrt")


def _ask(node: Node, sign: str, found: dict[str, set[str]], seen: set[tuple[Node, str]]) -> None:
    if (node, sign) in seen or _nonnegative(node):
        return
    seen.add((node, sign))
    if isinstance(node, Load):
        if node.sort == REAL:
            found.setdefault(node.tensor.name, set()).add(sign)
    elif isinstance(node, Reduce):
        _ask(node.body, sign, found, seen)
    elif isinstance(node, Pointwise):
        if node.op == "neg":
            _ask(
                node.args[0],
                {"positive": "negative", "negative": "positive"}.get(sign, sign),
                found,
                seen,
            )
        elif node.op == "sub" and isinstance(node.args[0], Const):
            _ask(node.args[1], "unit", found, seen)
        elif node.op == "max" and any(isinstance(a, Const) and a.value > 0 for a in node.args):
            return
        elif node.op in _KEEPS_POSITIVE or (node.op == "integer_pow" and sign == "positive"):
            for arg in node.args:
                _ask(arg, sign, found, seen)
        elif node.op == "where":
            for arg in node.args[1:]:
                _ask(arg, sign, found, seen)


def _nonnegative(node: Node) -> bool:
    """Whether a node is nonnegative (or a constant) whatever the inputs are."""
    if isinstance(node, Const):
        return True
    if isinstance(node, Reduce):
        return node.monoid in ("sum", "max", "min", "prod") and _nonnegative(node.body)
    if isinstance(node, Pointwise):
        if node.op in ("exp", "exp2", "abs", "logistic", "sqrt"):
            return True
        if node.op == "integer_pow":
            return isinstance(node.parameter, int) and node.parameter % 2 == 0
        if node.op == "mul" and node.args[0] is node.args[1]:
            return True
        if node.op in ("add", "mul", "div", "max"):
            return all(_nonnegative(a) and not _below_zero(a) for a in node.args)
    return False


def _below_zero(node: Node) -> bool:
    return isinstance(node, Const) and node.value < 0


def _ranges(program: Program) -> dict[str, list[tuple[int, int]]]:
    """Bounds of integer inputs that are used as indices, or that meet an iota in a comparison."""
    found: dict[str, list[tuple[int, int]]] = {}
    for node in program.nodes:
        if isinstance(node, Load):
            for index, size in zip(node.index, node.tensor.shape, strict=True):
                bounds = _index_bounds(index, int(size), bool(node.guard))
                for name in _integer_inputs(index.nodes):
                    found.setdefault(name, []).append(bounds)
        elif isinstance(node, Pointwise) and node.op in _COMPARE:
            sizes = [int(a.size) for a in _iota_axes(node.args)]
            if sizes:
                for name in _integer_inputs(node.args):
                    found.setdefault(name, []).append((0, max(sizes)))
    return found


def _index_bounds(index: Index, size: int, guarded: bool) -> tuple[int, int]:
    """Values v of the integer part for which `index` stays inside [0, size)."""
    low = high = index.offset
    factor = 1
    for term, coefficient in index.terms:
        if isinstance(term, Axis):
            reach = coefficient * (int(term.size) - 1)
            low, high = low + min(0, reach), high + max(0, reach)
        else:
            factor = max(factor, abs(coefficient))
    if guarded:  # outside is legal, and has a meaning that must be tested
        return 0, max(0, size - 1)
    return max(0, -(low // factor)), max(0, (size - 1 - high) // factor)


def _integer_inputs(nodes: tuple[Node, ...]) -> Iterator[str]:
    for node in walk(nodes):
        if isinstance(node, Load) and node.sort not in (REAL, "bool"):
            yield node.tensor.name


def _iota_axes(nodes: tuple[Node, ...]) -> list[Axis]:
    return [n.axis for n in walk(nodes) if isinstance(n, Iota)]
