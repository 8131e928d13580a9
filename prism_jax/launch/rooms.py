"""How the pipeline instantiates: what it lends to `instantiate` (builder, clocks, checker).

In: a region, what the search found for it, a device, options. Out: `instantiate`'s outcome, whose
`function` runs the plan. Compiling, measuring and testing run aside from the function being traced
(a thread of its own), so nothing of theirs is recorded in it. Invariant: the reference that a plan
has to beat and the one whose error it may double are the user's own equations under `jax.jit`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax

from prism_jax import compat, instantiate, verify
from prism_jax.device import Device
from prism_jax.emit import compile as toolchain
from prism_jax.explore import SearchResult
from prism_jax.instantiate.plan import Plan
from prism_jax.launch.build import Builder
from prism_jax.measure import worker
from prism_jax.measure.clock import kernel_clock
from prism_jax.measure.host import host_clock
from prism_jax.measure.inputs import random_inputs
from prism_jax.measure.pairs import Comparison, Pairs
from prism_jax.options import Options

Function = Callable[..., Sequence[Any]]


def prepare(device: Device, options: Options) -> None:
    """Starts what tuning will need, in the background: compilers, and the process that measures."""
    if device.kind == "gpu" and options.tune != "off":
        toolchain.prepare(device.compute_capability, Builder(device).workers)
        worker.prepare()


def choose(region: Any, found: SearchResult, device: Device, options: Options) -> Any:
    """The fastest plan for a region that is right, or none (see `instantiate.choose`)."""
    program, closed = region.program, region.jaxpr

    def reference(*args: Any) -> list[Any]:
        return compat.evaluate(closed, *args)

    @functools.cache
    def pairs() -> Pairs:
        return Pairs(reference, random_inputs(program.inputs))

    def pair(_: Function, candidate: Function) -> Comparison:
        return pairs().against(candidate)

    def check(plan: Plan, function: Function) -> tuple[bool, float, str, object]:
        evidence = verify.verify(
            program,
            plan.sgraph,
            plan.numbers,
            jax.jit(reference),
            jax.jit(function),
            accuracy=options.accuracy,
            device=device.name,
        )
        return evidence.accepted, evidence.worst, evidence.reason, evidence

    clock = kernel_clock if device.kind == "gpu" else host_clock
    judge, builder = instantiate.Judge(clock, pair, check), cast(Any, Builder(device))
    return compat.aside(
        lambda: instantiate.choose(program, found, device, options, builder, reference, judge)
    )
