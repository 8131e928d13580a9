"""Plans as traceable functions: what is emitted, compiled, and strung together.

In: plans. Out: for each a function of its sGraph's inputs that returns its outputs, or a sentence
that says why there is none. Kernels of all plans are compiled together, in parallel, and each only
once; a plan whose kernel does not compile or does not fit the device is refused alone. Emission of
library calls and of blocked lax needs no compiler of ours.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prism_jax.device import Device
from prism_jax.emit import compile as toolchain
from prism_jax.emit import jnp as arrays
from prism_jax.emit import lax_blocks, triton
from prism_jax.emit.binary import Binary, KernelSource
from prism_jax.emit.concrete import concrete
from prism_jax.instantiate.plan import Plan
from prism_jax.ir.nodes import Tensor
from prism_jax.ir.sgraph import Kernel, SGraph
from prism_jax.launch.value import Launch

Function = Callable[..., tuple[Any, ...]]

_binaries: dict[tuple[str, int], Binary | str] = {}
_lock = threading.Lock()


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


@dataclass(frozen=True)
class Builder:
    """Builds plans for one device; compiles at most `workers` kernels at a time."""

    device: Device
    workers: int = max(1, (os.cpu_count() or 2))

    def functions(self, plans: Sequence[Plan], deadline: float) -> list[Built | str]:
        """Each plan as a function, or why not. Nothing new is compiled after `deadline`
        (`time.monotonic()`).
        """
        emitted: list[list[triton.EmittedKernel] | str] = [self._kernels(plan) for plan in plans]
        sources = [k.source for kernels in emitted if not isinstance(kernels, str) for k in kernels]
        compiled = self._compile(sources, deadline)
        return [
            kernels if isinstance(kernels, str) else self._build(plan, kernels, compiled)
            for plan, kernels in zip(plans, emitted, strict=True)
        ]

    def _kernels(self, plan: Plan) -> list[triton.EmittedKernel] | str:
        if plan.backend != "triton":
            return []
        try:
            return list(triton.emit(plan.sgraph, plan.numbers, plan.schedules))
        except (ValueError, NotImplementedError) as error:
            return f"not emitted: {error}"

    def _compile(
        self, sources: Sequence[KernelSource], deadline: float
    ) -> Mapping[str, Binary | str]:
        capability = self.device.compute_capability
        with _lock:
            known = {
                s.digest: _binaries[s.digest, capability]
                for s in sources
                if (s.digest, capability) in _binaries
            }
        new = [s for s in dict.fromkeys(sources) if s.digest not in known]
        if new and time.monotonic() < deadline:
            results = toolchain.compile_many(
                new, capability, workers=self.workers, deadline=deadline
            )
            for source, result in zip(new, results, strict=True):
                known[source.digest] = self._checked(result)
        with _lock:
            _binaries.update({(digest, capability): result for digest, result in known.items()})
        return {s.digest: known.get(s.digest, "not compiled: no time left") for s in sources}

    def _checked(self, result: Binary | toolchain.CompileError) -> Binary | str:
        if isinstance(result, toolchain.CompileError):
            return str(result)
        return toolchain.fits(result, self.device) or result

    def _build(
        self,
        plan: Plan,
        kernels: Sequence[triton.EmittedKernel],
        compiled: Mapping[str, Binary | str],
    ) -> Built | str:
        if plan.backend == "lax":
            try:
                made = lax_blocks.emit(plan.sgraph, plan.numbers)
            except (ValueError, NotImplementedError) as error:
                return f"not emitted: {error}"
            return Built(made.call, (made.source,))
        graph = concrete(plan.sgraph, plan.numbers)
        waiting = iter(kernels)
        steps: list[tuple[Function, tuple[str, ...], tuple[str, ...]]] = []
        sources: list[str] = []
        launches: list[Launch] = []
        cut = {
            t.name
            for k in plan.sgraph.kernels
            for t in k.writes
            if any(isinstance(s, str) for s in t.shape)
        }
        for node in graph.nodes:
            if isinstance(node, Kernel):
                kernel = next(waiting)
                binary = compiled[kernel.source.digest]
                if isinstance(binary, str):
                    return binary
                partial = tuple(t.name for t in kernel.results if t.name in cut)
                launch = Launch(binary, kernel.grid, kernel.operands, kernel.results, partial)
                launches.append(launch)
                sources.append(kernel.source.text)
                steps.append((launch.call(), _names(kernel.operands), _names(kernel.results)))
            else:
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
