"""Kernels of an sGraph as Triton source.

In: an sGraph, numbers for its symbols, one schedule for each kernel. Out: one `EmittedKernel` for
each kernel: a `KernelSource`, the grid, and which tensors its pointers are.

The text is the same in every process. It holds all sizes as numbers, runs on its own, in Triton's
interpreter too, and names what the sGraph names: axes, tensors, accumulators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prism_jax.emit.triton.kernel import EmittedKernel, ScheduleLike, emit_kernel
from prism_jax.ir.concrete import concrete
from prism_jax.ir.sgraph import SGraph

__all__ = ["EmittedKernel", "ScheduleLike", "emit", "emit_kernel"]


def emit(
    sgraph: SGraph, sizes: Mapping[str, int], schedules: Sequence[ScheduleLike]
) -> tuple[EmittedKernel, ...]:
    """Every kernel of `sgraph`, in order.

    Args:
      sgraph: what to run; library calls are left out.
      sizes: a number for every symbol.
      schedules: one for each kernel.

    Raises:
      ValueError: a size or a schedule is missing, or a tensor has a dtype that kernels cannot hold.
    """
    graph = concrete(sgraph, sizes)
    if len(schedules) != len(graph.kernels):
        raise ValueError(f"{len(schedules)} schedules for {len(graph.kernels)} kernels")
    return tuple(
        emit_kernel(kernel, graph.compute, schedule)
        for kernel, schedule in zip(graph.kernels, schedules, strict=True)
    )
