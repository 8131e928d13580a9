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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prism_jax.device import Device
from prism_jax.emit import EmittedKernel, emit
from prism_jax.emit import compile as toolchain
from prism_jax.emit.binary import Binary, KernelSource
from prism_jax.instantiate.plan import Plan
from prism_jax.launch.assemble import Built, assemble
from prism_jax.launch.value import Launch

__all__ = ["Builder", "Built"]

_binaries: dict[tuple[str, int], Binary | str] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Builder:
    """Builds plans for one device; compiles at most `workers` kernels at a time."""

    device: Device
    workers: int = max(1, (os.cpu_count() or 2))

    def functions(self, plans: Sequence[Plan], deadline: float) -> list[Built | str]:
        """Each plan as a function, or why not. Nothing new is compiled after `deadline`
        (`time.monotonic()`).
        """
        emitted = [self._kernels(plan) for plan in plans]
        sources = [k.source for kernels in emitted if not isinstance(kernels, str) for k in kernels]
        compiled = self._compile(sources, deadline)
        return [
            kernels if isinstance(kernels, str) else self._build(plan, kernels, compiled)
            for plan, kernels in zip(plans, emitted, strict=True)
        ]

    def _kernels(self, plan: Plan) -> Sequence[EmittedKernel] | str:
        if plan.backend != "triton":
            return ()
        try:
            return emit(plan).kernels
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
                if not (isinstance(result, toolchain.CompileError) and result.late):
                    known[source.digest] = self._checked(result)
        with _lock:
            _binaries.update({(digest, capability): result for digest, result in known.items()})
        return {s.digest: known.get(s.digest, "not compiled: no time left") for s in sources}

    def _checked(self, result: Binary | toolchain.CompileError) -> Binary | str:
        if isinstance(result, toolchain.CompileError):
            return str(result)
        return toolchain.fits(result, self.device) or result

    def _build(
        self, plan: Plan, kernels: Sequence[EmittedKernel], compiled: Mapping[str, Binary | str]
    ) -> Built | str:
        shared = {
            t.name
            for k in plan.sgraph.kernels
            for t in k.writes
            if any(isinstance(s, str) for s in t.shape)
        }
        launches: list[Launch] = []
        for kernel in kernels:
            binary = compiled[kernel.source.digest]
            if isinstance(binary, str):
                return binary
            partial = tuple(t.name for t in kernel.results if t.name in shared)
            launches.append(Launch(binary, kernel.grid, kernel.operands, kernel.results, partial))
        try:
            return assemble(plan, launches, [kernel.source.text for kernel in kernels])
        except (ValueError, NotImplementedError) as error:
            return f"not emitted: {error}"
