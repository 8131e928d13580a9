"""A region, a device and decisions about it, made quickly: what the cache keeps and gives back."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from prism_jax import device as devices
from prism_jax import extract
from prism_jax.emit.binary import Binary, KernelSource
from prism_jax.explore import Form, search
from prism_jax.instantiate import Outcome, Plan, Schedule
from prism_jax.instantiate.rank import Ranking
from prism_jax.launch import Executable
from prism_jax.launch.assemble import Built, assemble
from prism_jax.launch.rooms import Target
from prism_jax.launch.value import Launch
from prism_jax.report import CandidateRow, Decision, RegionReport

H100 = devices.row("H100")
TARGET = Target("H100", {"platform": "test", "row": H100.to_json()}, lambda: H100)


def softmax_product(x: Any, y: Any) -> Any:
    return jax.nn.softmax(x @ y, axis=-1)


@functools.cache
def region(rows: int = 64) -> Any:
    """The region of a softmax of a product."""
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((rows, 32), (32, 48))]
    cut = extract.extract(jax.make_jaxpr(softmax_product)(*shapes), name="softmax_product")
    (found,) = cut.regions
    return found


@functools.cache
def plan(backend: str, rows: int = 64) -> Plan:
    """A plan of the region for a back end, with kernels unless it is "jnp"."""
    program = region(rows).program
    found = search(program, [Form(program)], H100, 2.0)
    if backend == "jnp":
        own = next(c for c in found.candidates if c.why == "XLA")
        return Plan(own.sgraph, "jnp", H100.name, unroll=8)
    candidate = next(c for c in found.candidates if c.kernels)
    sizes = dict(candidate.sizes)
    schedules: tuple[Schedule, ...] = tuple(
        Ranking(k, H100, {s: sizes[s] for s in k.symbols}).first(1)[0][2]
        for k in candidate.sgraph.kernels
    )
    return Plan(candidate.sgraph, backend, H100.name, candidate.sizes, schedules)


def compiled(source: KernelSource) -> Binary:
    """What a compiler that only plays makes of a kernel."""
    return Binary(
        name=source.name, compute_capability=90, parameters=source.parameters,
        pointer_divisibility=source.pointer_divisibility, ptx=f"// {source.digest}",
        cubin=source.text.encode(), shared=1024, num_warps=source.num_warps, num_ctas=1,
        registers=32, stack=0,
    )  # fmt: skip


@functools.cache
def built(backend: str, rows: int = 64) -> Built:
    """The plan as a function; kernels are compiled in play."""
    made = plan(backend, rows)
    if backend != "triton":
        return assemble(made)
    from prism_jax.emit import triton

    kernels = triton.emit(made.sgraph, made.numbers, made.schedules)
    launches = [Launch(compiled(k.source), k.grid, k.operands, k.results) for k in kernels]
    return assemble(made, launches, [k.source.text for k in kernels])


def decision(backend: str | None, rows: int = 64) -> Decision:
    """What the stages decide; None: XLA's own version stays."""
    name = "softmax_product"
    row = CandidateRow("one", bound=1e-6, estimate=2e-6, measured=float("inf"), verdict="slow")
    report = RegionReport(
        name, program=str(region(rows).program), candidates=(row,), stages=(("explore", 0.25),)
    )
    if backend is None:
        return Decision(None, report, chosen=Outcome(None, None, (), 1e-5, None))
    made, function = plan(backend, rows), built(backend, rows)
    outcome = Outcome(made, function, (), 1e-5, 2.0, "accepted")
    runs = Executable(made.digest, made.backend, function.call)
    report = dataclasses.replace(report, plan=made.summary(), source=function.source)
    return Decision(runs, report, chosen=outcome)
