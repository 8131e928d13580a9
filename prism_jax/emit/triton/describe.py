"""Terms in index notation, for the comments of emitted source.

>>> from prism_jax.ir.nodes import Tensor, at
>>> i, k = Axis("i", 4), Axis("k", 8)
>>> describe(Reduce("sum", (k,), Load(Tensor("x", (4, 8), "float16"), (at(i), at(k)))))
'sum[k] x[i, k]'
"""

from __future__ import annotations

from prism_jax.ir.nodes import Axis, Carried, Const, Index, Iota, Load, Node, Pointwise, Reduce

__all__ = ["describe", "describe_index"]


def describe(node: Node, depth: int = 3) -> str:
    """A node in index notation, for a comment; deep terms are cut."""
    match node:
        case Const():
            return f"{node.value:g}" if isinstance(node.value, float) else str(node.value)
        case Iota():
            return node.axis.name
        case Carried():
            return node.accumulator
        case Load():
            return f"{node.tensor.name}[{', '.join(map(describe_index, node.index))}]"
        case _ if depth == 0:
            return "..."
        case Pointwise():
            signs = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<="}
            parts = [describe(a, depth - 1) for a in node.args]
            if node.op in signs:
                return f"({f' {signs[node.op]} '.join(parts)})"
            return f"{node.op}({', '.join(parts)})"
        case Reduce():
            axes = ", ".join(a.name for a in node.axes)
            return f"{node.monoid}[{axes}] {describe(node.body, depth - 1)}"
        case _:
            return type(node).__name__


def describe_index(index: Index) -> str:
    """An index for a comment."""
    parts: list[str] = []
    for term, coefficient in index.terms:
        text = term.name if isinstance(term, Axis) else describe(term, 1)
        parts.append(text if coefficient == 1 else f"{coefficient} * {text}")
    if index.offset or not parts:
        parts.append(str(index.offset))
    return " + ".join(parts)
