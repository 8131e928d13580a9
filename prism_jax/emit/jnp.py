"""A program without blocking, as plain jax.numpy: what XLA runs, and what a library call "xla"
means.

In: a `Program`, or the stores of a `LibraryCall`. Out: an `ArrayFunction`, its source and the
function that the source defines; traceable by jax, no Python side effects.

Invariants: each node is computed once; a contraction is one `dot_general` (or several, in the
cheapest order) in the precision that its record asks for; a transpose is only an order of
dimension numbers.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Reduce, Store, Tensor, at
>>> from prism_jax.ir.program import Program
>>> i, j, k = Axis("i", 4), Axis("j", 2), Axis("k", 8)
>>> x, w = Tensor("x", (4, 8), "float32"), Tensor("w", (8, 2), "float32")
>>> product = Pointwise("mul", (Load(x, (at(i), at(k))), Load(w, (at(k), at(j)))))
>>> y = Store(Tensor("y", (4, 2), "float32"), (at(i), at(j)), Reduce("sum", (k,), product))
>>> print(emit(Program("linear", (x, w), (y,))).source, end="")
import jax.numpy as jnp
from jax import lax
<BLANKLINE>
<BLANKLINE>
def linear(x, w):
    dot = lax.dot_general(  # [i, j]
        x,
        w,
        (((1,), (0,)), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    return (dot,)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prism_jax.emit import array_access
from prism_jax.emit.array_terms import Terms
from prism_jax.emit.names import Names
from prism_jax.emit.scopes import Scope, load_function
from prism_jax.ir.nodes import Axis, Load, Store, Tensor
from prism_jax.ir.program import Program, walk
from prism_jax.ir.sgraph import LibraryCall

__all__ = ["HEADER", "ArrayFunction", "axis_order", "emit", "emit_call"]

HEADER = "import jax.numpy as jnp\nfrom jax import lax\n"
RESERVED = ("jax", "jnp", "lax", "np")


@dataclass(frozen=True)
class ArrayFunction:
    """Source text and the function it defines: `call(*operands) -> tuple` of the results, in
    order.
    """

    name: str
    source: str
    call: Callable[..., tuple[Any, ...]]
    operands: tuple[Tensor, ...]
    results: tuple[Tensor, ...]


def emit(program: Program, unroll: int = 0) -> ArrayFunction:
    """The program as one function of all its inputs, in order.

    Args:
      program: what to compute.
      unroll: longest reduction (of a body that is no product) to be written as a sum of slices,
        which XLA's CPU backend vectorises; 0: none.
    """
    name = Names(RESERVED).new(program.name)
    return _function(name, program.inputs, program.outputs, program.compute, unroll)


def emit_call(
    call: LibraryCall, compute: str, unroll: int = 0, name: str | None = None
) -> ArrayFunction:
    """A library call of XLA's own as a function (called `name`) of the tensors that it reads, in
    order of first use.
    """
    name = name or Names(RESERVED).new(call.name)
    return _function(name, call.reads, call.stores, compute, unroll)


def axis_order(stores: Sequence[Store]) -> dict[Axis, int]:
    """A rank for each axis: as the outputs are laid out, then as the inputs are."""
    found: dict[Axis, None] = {}
    for store in stores:
        for index in store.index:
            found.update(dict.fromkeys(index.axes_free))
    for node in walk(store.value for store in stores):
        if isinstance(node, Load):
            for index in node.index:
                found.update(dict.fromkeys(index.axes_free))
    return {axis: rank for rank, axis in enumerate(found)}


def _function(
    name: str, operands: Sequence[Tensor], stores: Sequence[Store], compute: str, unroll: int
) -> ArrayFunction:
    names = Names((*RESERVED, name))
    tensors = {tensor.name: (names.new(tensor.name), 0) for tensor in operands}
    scope = Scope[Any]()
    terms = Terms(compute, tensors, axis_order(stores), unroll, names, scope)
    terms.prepare(store.value for store in stores)
    texts: dict[str, str] = {}
    for store in stores:
        value = terms.value(store.value, {})
        buffer = texts.get(store.tensor.name)
        if (
            buffer is None
            and array_access.split_shape([int(s) for s in store.tensor.shape], store.index) is None
        ):
            dtype = store.tensor.dtype.replace("bool", "bool_")
            buffer = f"jnp.zeros({store.tensor.shape}, jnp.{dtype})"
        text = array_access.store(terms, store, value, {}, buffer)
        texts[store.tensor.name] = text
        if not text.isidentifier():
            texts[store.tensor.name] = terms.assign(
                f"{store.tensor.name}_out", text, (), store.tensor.dtype, 0
            ).text
    results = tuple(dict.fromkeys(store.tensor for store in stores))
    parameters = ", ".join(text for text, _ in tensors.values())
    outer = Scope[Any]()
    scope.add(f"return ({', '.join(texts[t.name] for t in results)},)")
    outer.block(f"def {name}({parameters}):", scope)
    source = f"{HEADER}\n\n{outer.text()}\n"
    call = load_function(source, name)
    return ArrayFunction(name, source, call, tuple(operands), results)
