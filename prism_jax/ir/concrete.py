"""Numbers for symbols: an sGraph whose axes, tensors and tiles all have integer sizes.

In: an sGraph and a value for each of its symbols. Out: the same sGraph without symbols. Nothing
else changes, so that every emitter works on plain numbers.

>>> from prism_jax.ir.nodes import Axis, Load, Store, Tensor, at
>>> from prism_jax.ir.sgraph import GridAxis, Kernel, SGraph
>>> i = Axis("i", "N")
>>> x, y = Tensor("x", ("N",), "float32"), Tensor("y", ("N",), "float32")
>>> kernel = Kernel("copy", (GridAxis(i, "T"),), (), (Store(y, (at(i),), Load(x, (at(i),))),))
>>> concrete(SGraph("copy", (x,), (kernel,), (y,)), {"N": 8, "T": 4}).kernels[0].grid
(GridAxis(axis=Axis(name='i', size=8), tile=4),)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from prism_jax.ir.leaves import Rewriting
from prism_jax.ir.nodes import Axis, Size, Tensor
from prism_jax.ir.sgraph import SGraph

__all__ = ["concrete", "concrete_tensors", "number"]


def number(size: Size) -> int:
    """`size` as the number that it is by now.

    Raises:
      ValueError: it is still a symbol.
    """
    if isinstance(size, str):
        raise ValueError(f"size {size!r} has no value; sizes must give one to every symbol")
    return size


def concrete(sgraph: SGraph, sizes: Mapping[str, int]) -> SGraph:
    """`sgraph` with every symbol replaced by its value in `sizes`.

    Raises:
      ValueError: a symbol without a value.
    """
    size = _size(sizes)
    rewriting = Rewriting(
        lambda axis: Axis(axis.name, size(axis.size)), lambda t, _: _tensor(t, size), size=size
    )
    steps = tuple(map(rewriting.step, sgraph.nodes))
    return replace(concrete_tensors(sgraph, sizes), nodes=steps)


def concrete_tensors(sgraph: SGraph, sizes: Mapping[str, int]) -> SGraph:
    """`sgraph` with numbers for the dimensions of its inputs and outputs only; its kernels keep
    their symbols.

    Raises:
      ValueError: a symbol without a value.
    """
    size = _size(sizes)
    inputs, outputs = (
        tuple(_tensor(t, size) for t in tensors) for tensors in (sgraph.inputs, sgraph.outputs)
    )
    return replace(sgraph, inputs=inputs, outputs=outputs)


def _size(sizes: Mapping[str, int]) -> Callable[[Size], Size]:
    return lambda size: number(sizes.get(size, size) if isinstance(size, str) else size)


def _tensor(tensor: Tensor, size: Callable[[Size], Size]) -> Tensor:
    return Tensor(tensor.name, tuple(map(size, tensor.shape)), tensor.dtype)
