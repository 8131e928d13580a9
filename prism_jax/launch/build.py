"""Plans as traceable functions: what is emitted, compiled, and strung together.

In: plans. Out: for each a function of its sGraph's inputs that returns its outputs, or a sentence
that says why there is none. Kernels of all plans are compiled together, in parallel, and each only
once; a plan whose kernel does not compile or does not fit the device is refused alone. The first
kernel is compiled while the next is emitted, and the first plan may be run while others are being
compiled. Emission of library calls and of blocked lax needs no compiler of ours.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
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

    def functions(self, plans: Sequence[Plan], deadline: float) -> Iterator[Built | str]:
        """Each plan as a function, or why not, as soon as it and those before it are there. Nothing
        new is compiled after `deadline` (`time.monotonic()`).
        """
        emitted: list[Sequence[EmittedKernel] | str] = []

        def sources() -> Iterator[KernelSource]:
            for plan in plans:
                kernels = self._kernels(plan)
                emitted.append(kernels)
                yield from () if isinstance(kernels, str) else (k.source for k in kernels)

        compiled = self._compile(sources(), deadline)
        first = list(itertools.islice(compiled, 1))  # now everything is emitted
        compiled = itertools.chain(first, compiled)
        for plan, kernels in zip(plans, emitted, strict=True):
            if isinstance(kernels, str):
                yield kernels
            else:
                yield self._build(plan, kernels, list(itertools.islice(compiled, len(kernels))))

    def _kernels(self, plan: Plan) -> Sequence[EmittedKernel] | str:
        if plan.backend != "triton":
            return ()
        try:
            return emit(plan).kernels
        except (ValueError, NotImplementedError) as error:
            return f"not emitted: {error}"

    def _compile(self, sources: Iterable[KernelSource], deadline: float) -> Iterator[Binary | str]:
        """The binary of each source, in order, or why there is none."""
        asked: list[KernelSource] = []

        def new() -> Iterator[KernelSource]:
            for source in sources:
                asked.append(source)
                if self._known(source) is None:
                    yield source

        given = 0
        for source, result in toolchain.compile_each(
            new(), self.device.compute_capability, workers=self.workers, deadline=deadline
        ):
            if not (isinstance(result, toolchain.CompileError) and result.late):
                with _lock:
                    _binaries[source.digest, self.device.compute_capability] = self._checked(result)
            while given < len(asked) and (binary := self._known(asked[given])) is not None:
                yield binary
                given += 1
        for source in asked[given:]:
            yield self._known(source) or "not compiled: no time left"

    def _known(self, source: KernelSource) -> Binary | str | None:
        with _lock:
            return _binaries.get((source.digest, self.device.compute_capability))

    def _checked(self, result: Binary | toolchain.CompileError) -> Binary | str:
        if isinstance(result, toolchain.CompileError):
            return str(result)
        return toolchain.fits(result, self.device) or result

    def _build(
        self, plan: Plan, kernels: Sequence[EmittedKernel], compiled: Sequence[Binary | str]
    ) -> Built | str:
        shared = {
            t.name
            for k in plan.sgraph.kernels
            for t in k.writes
            if any(isinstance(s, str) for s in t.shape)
        }
        launches: list[Launch] = []
        for kernel, binary in zip(kernels, compiled, strict=True):
            if isinstance(binary, str):
                return binary
            partial = tuple(t.name for t in kernel.results if t.name in shared)
            launches.append(Launch(binary, kernel.grid, kernel.operands, kernel.results, partial))
        try:
            return assemble(plan, launches, [kernel.source.text for kernel in kernels])
        except (ValueError, NotImplementedError) as error:
            return f"not emitted: {error}"
