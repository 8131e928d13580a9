"""A plan and its compiled kernels as one traceable function.

In: a plan, and a `Launch` for each of its kernels (for Triton; other back ends have none). Out:
`Built`. Nothing is compiled here and no compiler is imported, so this is also how a plan that comes
from the cache runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prism_jax.emit.binary import Binary
from prism_jax.instantiate.plan import Plan
from prism_jax.ir.concrete import concrete
from prism_jax.ir.nodes import Tensor
from prism_jax.ir.sgraph import Kernel, SGraph
from prism_jax.launch.value import Launch

Function = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Built:
    """A plan's function with the source it runs, one text per node of the sGraph, and its kernels'
    launches in order.
    """

    call: Function
    sources: tuple[str, ...]
    launches: tuple[Launch, ...] = ()

    @property
    def binaries(self) -> tuple[Binary, ...]:
        """The compiled kernels, in order."""
        return tuple(launch.binary for launch in self.launches)

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """Runs the plan: arrays in the order of the sGraph's inputs."""
        return self.call(*args)

    @property
    def source(self) -> str:
        """All sources, one after the other."""
        return "\n\n".join(self.sources)


def assemble(plan: Plan, launches: Sequence[Launch] = (), texts: Sequence[str] = ()) -> Built:
    """The plan as a function.

    Args:
      plan: what to run.
      launches: one per kernel of a plan for Triton, in order.
      texts: the source of each launch.

    Raises:
      ValueError: launches that are not those of the plan's kernels, or a plan that cannot be
        written in its back end.
      NotImplementedError: likewise the latter.
    """
    if plan.backend == "lax":
        from prism_jax.emit import lax_blocks

        made = lax_blocks.emit(plan.sgraph, plan.numbers, plan.unroll, plan.cut)
        return Built(made.call, (made.source,))
    graph = concrete(plan.sgraph, plan.numbers)
    if len(launches) != len(graph.kernels) or len(texts) != len(launches):
        raise ValueError(f"{len(launches)} launches for {len(graph.kernels)} kernels")
    waiting = iter(zip(launches, texts, strict=True))
    steps: list[tuple[Function, tuple[str, ...], tuple[str, ...]]] = []
    sources: list[str] = []
    for node in graph.nodes:
        if isinstance(node, Kernel):
            launch, text = next(waiting)
            known = set(launch.operands) <= set(node.reads)
            if not known or set(launch.results) != set(node.writes):
                raise ValueError(f"a launch of {launch.binary.name} is not kernel {node.name}")
            sources.append(text)
            steps.append((launch.call(), _names(launch.operands), _names(launch.results)))
        else:
            from prism_jax.emit import jnp as arrays

            made = arrays.emit_call(node, graph.compute, plan.unroll)
            sources.append(made.source)
            steps.append((made.call, _names(made.operands), _names(made.results)))
    return Built(_string(graph, steps), tuple(sources), tuple(launches))


def _names(tensors: Sequence[Tensor]) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in tensors)


def _string(
    graph: SGraph, steps: Sequence[tuple[Function, tuple[str, ...], tuple[str, ...]]]
) -> Function:
    """The steps as one function; tensors are handed on by name."""

    def run(*args: Any) -> tuple[Any, ...]:
        known: dict[str, Any] = dict(zip(_names(graph.inputs), args, strict=True))
        for call, reads, writes in steps:
            results = call(*(known[name] for name in reads))
            known.update(zip(writes, results, strict=True))
        return tuple(known[tensor.name] for tensor in graph.outputs)

    return run
