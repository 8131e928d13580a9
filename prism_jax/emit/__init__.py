"""Plans as code: Triton kernels, loops over tiles in lax, or plain jax.numpy.

In: a `Plan`. Out: `Emitted`: a function of the sGraph's inputs that jax can trace, the source text
of all of it, and the kernels to compile, if there are any.

Invariant: every plan can be called on every platform. Kernels of a plan for Triton run as the
blocked lax of the same sGraph until a launcher is given that runs them on a device
(`Emitted.launched`), so that this room needs no GPU and does not know the launcher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from prism_jax.emit import jnp as plain
from prism_jax.emit import lax_blocks
from prism_jax.emit.jnp import ArrayFunction
from prism_jax.emit.triton import EmittedKernel, emit_kernel
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.ir.concrete import concrete
from prism_jax.ir.nodes import Tensor
from prism_jax.ir.sgraph import Kernel, LibraryCall

__all__ = ["ArrayFunction", "Emitted", "EmittedKernel", "Launcher", "Step", "emit"]

Function: TypeAlias = Callable[..., Sequence[Any]]
Launcher: TypeAlias = Callable[[EmittedKernel], Function]
"""Turns a kernel into a function of its operands that returns its results."""


@dataclass(frozen=True)
class Step:
    """One node of the sGraph. `kernel` is set where it is launched rather than traced."""

    node: Kernel | LibraryCall
    compute: str
    unroll: int
    kernel: EmittedKernel | None = None

    @cached_property
    def function(self) -> ArrayFunction:
        """The node in plain JAX: what it means, on every platform."""
        if isinstance(self.node, LibraryCall):
            return plain.emit_call(self.node, self.compute, self.unroll)
        return lax_blocks.emit_kernel(self.node, self.compute, self.unroll)

    @property
    def source(self) -> str:
        """The text that runs."""
        return self.kernel.source.text if self.kernel is not None else self.function.source


@dataclass(frozen=True)
class Emitted:
    """A plan as code. `call(*inputs)` gives the tuple of outputs and can be traced by jax."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]

    @property
    def kernels(self) -> tuple[EmittedKernel, ...]:
        """The kernels to compile, in order."""
        return tuple(step.kernel for step in self.steps if step.kernel is not None)

    @property
    def source(self) -> str:
        """All text, in order of execution."""
        return "\n\n".join(step.source for step in self.steps)

    def call(self, *inputs: Any) -> tuple[Any, ...]:
        """The outputs, computed in plain JAX."""
        return self._run(inputs, {})

    def launched(self, launcher: Launcher) -> Function:
        """The plan as a function whose kernels are run by `launcher`; it is asked once for each
        kernel.
        """
        functions = {
            n: launcher(s.kernel) for n, s in enumerate(self.steps) if s.kernel is not None
        }

        def call(*inputs: Any) -> tuple[Any, ...]:
            return self._run(inputs, functions)

        return call

    def _run(self, inputs: Sequence[Any], launched: Mapping[int, Function]) -> tuple[Any, ...]:
        if len(inputs) != len(self.inputs):
            raise TypeError(f"{self.name} takes {len(self.inputs)} arrays, not {len(inputs)}")
        tensors = {t.name: value for t, value in zip(self.inputs, inputs, strict=True)}
        for number, step in enumerate(self.steps):
            # Only what is traced is written as plain JAX.
            function = launched.get(number) or step.function.call
            results = function(*(tensors[t.name] for t in step.node.reads))
            tensors |= {t.name: r for t, r in zip(step.node.writes, results, strict=True)}
        return tuple(tensors[t.name] for t in self.outputs)


def emit(plan: Plan) -> Emitted:
    """The plan as code.

    Raises:
      ValueError: a size is missing, or a kernel has a dtype that the back end cannot hold.
    """
    graph = concrete(plan.sgraph, plan.numbers)
    schedules = iter(plan.schedules)
    steps: list[Step] = []
    for node in graph.nodes:
        kernel = None
        if isinstance(node, Kernel) and plan.backend == "triton":
            kernel = emit_kernel(node, graph.compute, next(schedules, Schedule()))
        steps.append(Step(node, graph.compute, plan.unroll, kernel))
    return Emitted(graph.name, graph.inputs, graph.outputs, tuple(steps))
