"""From plans to launches to the clock, with a compiler that only plays."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from prism_jax import device
from prism_jax.emit import compile as toolchain
from prism_jax.emit.binary import Binary, KernelSource
from prism_jax.explore import Form, search
from prism_jax.extract import lift
from prism_jax.instantiate.plan import Plan
from prism_jax.instantiate.rank import Ranking
from prism_jax.instantiate.tune import Trials
from prism_jax.ir.nodes import Tensor
from prism_jax.launch.build import Builder, Built
from prism_jax.launch.value import Launch
from prism_jax.measure import worker
from prism_jax.measure.clock import kernel_clock
from tests.instantiate.tuned import tuned

ROW = device.row("H100")


def compiled(source: KernelSource) -> Binary:
    return Binary(
        name=source.name,
        compute_capability=ROW.compute_capability,
        parameters=source.parameters,
        pointer_divisibility=source.pointer_divisibility,
        ptx=source.digest,
        cubin=b"",
        shared=1024,
        num_warps=source.num_warps,
        num_ctas=1,
        registers=32,
        stack=0,
    )


@pytest.fixture
def candidate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A dot product long enough to be split over the grid."""

    def compile_each(
        sources: Iterable[KernelSource], capability: int, **_: Any
    ) -> list[tuple[KernelSource, Binary]]:
        assert capability == ROW.compute_capability
        return [(source, compiled(source)) for source in dict.fromkeys(sources)]

    monkeypatch.setattr(toolchain, "compile_each", compile_each)

    def dot(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(x * y, axis=-1)

    long = jax.ShapeDtypeStruct((4, 1 << 20), jnp.float32)
    program = lift(jax.make_jaxpr(dot)(long, long), "dot")
    found = search(program, [Form(program)], ROW, 3.0)
    return next(c for c in found.candidates if len(c.sgraph.kernels) == 2)


def test_launches_know_what_is_partial(candidate: Any) -> None:
    parts, combine = candidate.sgraph.kernels
    sizes = dict(candidate.sizes)
    schedules = tuple(
        Ranking(k, ROW, {s: sizes[s] for s in k.symbols}).first(1)[0][2] for k in (parts, combine)
    )
    plan = Plan(candidate.sgraph, "triton", ROW.name, candidate.sizes, schedules)
    (built,) = Builder(ROW, workers=1).functions([plan], time.monotonic() + 60.0)
    assert isinstance(built, Built), built
    first, second = built.launches
    assert {t.name for t in first.operands} == {"x", "y"}
    assert set(first.partial) == {t.name for t in first.results} == {t.name for t in parts.writes}
    assert second.partial == ()
    assert built.binaries == (first.binary, second.binary)
    assert all(isinstance(s, int) for t in (*first.results, *second.operands) for s in t.shape)


def test_tuning_asks_the_worker(candidate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock gets launches and inputs of one kernel at a time; what it refuses is counted."""
    asked: list[str] = []

    def kernel_seconds(
        launches: Sequence[Launch], inputs: Sequence[Tensor], deadline: float
    ) -> list[float | str]:
        assert deadline > time.monotonic()
        names = {tensor.name for tensor in inputs}
        for launch in launches:
            assert {tensor.name for tensor in launch.operands} <= names
            asked.append(launch.binary.name)
        times = [1e-6 * (n + 1) for n in range(len(launches))]
        return ["illegal memory access", *times[1:]] if launches else []

    monkeypatch.setattr(worker, "kernel_seconds", kernel_seconds)
    trials = Trials()
    deadline = time.monotonic() + 60.0
    plan = tuned(candidate, ROW, Builder(ROW, workers=1), kernel_clock, deadline, trials)
    assert plan is not None
    assert len(set(asked)) == 2
    assert trials.refusals["illegal memory access"] > 0
    assert trials.measured == trials.compiled - trials.refusals["illegal memory access"]


def test_launch_values_are_hashable() -> None:
    launch = Launch(compiled(SOURCE), (2,), (Tensor("x", (8,), "float32"),), ())
    assert launch == dataclasses.replace(launch)
    assert hash(launch) == hash(dataclasses.replace(launch))


SOURCE = KernelSource(name="k", text="", signature=(("x_ptr", "*fp32"),))
