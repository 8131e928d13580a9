"""The model that ranks a GPU's tries: each of its terms moves the estimate as its cause does."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax import device
from prism_jax.explore import Form as Program
from prism_jax.explore import search
from prism_jax.explore.bounds import estimate
from prism_jax.explore.sizes import evaluate
from prism_jax.extract import lift
from prism_jax.instantiate import Schedule
from prism_jax.instantiate.expect import CACHED_SHARE, Shape, expected
from prism_jax.instantiate.rank import DEEPEST, NEAR, WARPS, Ranking
from prism_jax.ir.forms import Form
from prism_jax.ir.nodes import Load, Store, Tensor
from prism_jax.ir.sgraph import Kernel

H100 = device.row("H100")
DOT = ("dot", "float16")


def matmul(blocks: int = 128, tile: int = 64, **changes: Any) -> Form:
    """The closed forms of a skinny product, 16 rows by 4096 by 4096, as a few blocks compute it."""
    weights, steps = 2 * 4096 * 4096, 4096 // tile
    columns = 4096 // blocks
    made = Form(
        blocks=blocks, steps=steps, loaded=weights + blocks * 2 * 16 * 4096,
        compulsory=weights + 2 * 16 * 4096, stored=2 * 16 * 4096,
        arithmetic={DOT: 2.0 * 16 * 4096 * 4096}, accumulators=16 * columns,
        operands=2 * tile * (columns + 16), widest=tile * columns,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def seconds(form: Form, short: float = 1.0, warps: int = 4, stages: int = 4) -> float:
    return float(expected(form, short, H100, Shape(warps, stages, looped=True)))


def test_every_term_moves_the_estimate_as_its_cause_does() -> None:
    usual = seconds(matmul())
    weights = 2 * 4096 * 4096
    assert weights / H100.l2_bytes_per_s < usual < 4 * weights / H100.l2_bytes_per_s
    # Operands that the L2 cache does not hold from the call before come from memory.
    large = int(CACHED_SHARE * H100.l2_bytes) + 1
    beyond, within = (seconds(matmul(loaded=n, compulsory=n, stored=0)) for n in (large, large - 2))
    assert beyond - within > 0.8 * large * (1 / H100.dram_bytes_per_s - 1 / H100.l2_bytes_per_s)
    # Pieces of rows shorter than a line waste a part of it.
    assert usual < seconds(matmul(), short=2.0) < seconds(matmul(), short=4.0) < 2 * usual
    # Half as many blocks as multiprocessors keep the memory busy, an eighth does not.
    assert seconds(matmul(64)) < 1.3 * usual < seconds(matmul(16))
    # One block more than multiprocessors: one of them does twice the work.
    same: dict[str, Any] = {"loaded": weights, "operands": 8192}
    one_more = seconds(matmul(blocks=H100.sm_count + 1, **same))
    assert one_more > 1.15 * seconds(matmul(blocks=H100.sm_count, **same))
    # Small steps need a deep pipeline; a few large ones have long ends.
    assert seconds(matmul(tile=16), stages=2) > 1.1 * seconds(matmul(tile=16), stages=6)
    assert seconds(matmul(tile=4096, widest=0)) > 1.03 * seconds(matmul(tile=1024, widest=0))
    # Arithmetic counts, and few warps do not reach the rate.
    heavy: dict[str, Any] = {"arithmetic": {"special": 5e8}}
    assert seconds(matmul(**heavy)) > 5 * usual
    assert seconds(matmul(**heavy), warps=1) > 2 * seconds(matmul(**heavy), warps=4)
    # More threads than there is to do exchange; too few have too few registers.
    assert seconds(matmul(), warps=16) > usual
    assert seconds(matmul(accumulators=128 * 256), warps=4) == np.inf
    assert seconds(matmul(accumulators=128 * 256), warps=8) < np.inf


def test_more_blocks_and_warps_cost_to_start() -> None:
    flat = Form(blocks=np.array([132, 1056, 8448]), steps=0, loaded=2**20, compulsory=2**20,
                stored=2**19, widest=np.array([4096, 512, 64]))  # fmt: skip
    four, one = (expected(flat, 1.0, H100, Shape(w, 3, looped=False)) for w in (4, 1))
    assert (np.diff(four) > 0).all()
    assert four[2] > 1.5 * one[2]


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    shapes = [jax.ShapeDtypeStruct(s, jnp.float16) for s in ((16, 2048), (2048, 2048))]
    program = lift(jax.make_jaxpr(lambda x, w: jnp.tanh(x @ w))(*shapes), "product")
    found = search(program, [Program(program)], H100)
    return next(c for c in found.candidates if c.kernels == 1).sgraph.kernels[0]


def test_the_ranking_is_of_sizes_and_schedules(kernel: Kernel) -> None:
    ranking = Ranking(kernel, H100, {})
    _, form = evaluate(kernel, H100)
    assert ranking.structure_s == pytest.approx(float(estimate(form, H100).min()))
    assert len(ranking.rows) == np.size(form.blocks)
    times = [row.seconds for row in ranking.rows.values()]
    assert times == sorted(times)
    for sizes, row in ranking.rows.items():
        shapes = ranking.shapes(sizes)
        estimates = list(shapes.values())
        assert estimates == sorted(estimates)
        assert estimates[0] == row.seconds
        stages = {depth for _, depth in shapes}
        assert all(n == 2 or n * row.operands <= H100.smem_per_block for n in stages)
        assert max(stages) <= DEEPEST
    tries = ranking.first(12)
    assert len({t[1:] for t in tries}) == len(tries) == 12
    assert {s.num_warps for *_, s in tries} <= set(WARPS)
    for guess, sizes, schedule in tries:
        assert guess == ranking.shapes(sizes)[schedule.num_warps, schedule.num_stages]
    twice = [sizes for _, sizes, _ in tries if sum(s == sizes for _, s, _ in tries) > 1]
    for sizes in twice:
        assert len({s.num_warps for _, z, s in tries if z == sizes}) == 2


def test_what_the_model_puts_far_behind_is_not_tried_next(kernel: Kernel) -> None:
    ranking = Ranking(kernel, H100, {})
    (guess, sizes, schedule), *_ = ranking.first(1)
    near = ranking.around(sizes, schedule)
    assert near
    assert all(other <= NEAR * guess for other, *_ in near)
    assert replaced(schedule, num_warps=2 * schedule.num_warps) in [s for _, _, s in near]
    far = next(iter(reversed(ranking.rows)))
    assert far not in [z for _, z, _ in near]
    # From there nearly everything is better.
    (worst,) = ranking._some(far, 1)
    assert len(ranking.around(far, worst)) > len(near)


def replaced(schedule: Schedule, **changes: Any) -> Schedule:
    return dataclasses.replace(schedule, **changes)


def test_a_host_is_ranked_by_the_bounds_model(kernel: Kernel) -> None:
    host = device.nominal_cpu()
    ranking = Ranking(kernel, host, {})
    _, form = evaluate(kernel, host)
    assert next(iter(ranking.rows.values())).seconds == pytest.approx(
        float(estimate(form, host).min())
    )
    assert all(list(ranking.shapes(sizes)) == [(4, 3)] for sizes in ranking.rows)


def test_a_kernel_without_symbols_has_one_assignment() -> None:
    y = Tensor("y", (), "float32")
    one = Kernel("one", (), (), (Store(y, (), Load(Tensor("x", (), "float32"), ())),))
    for where in (H100, device.nominal_cpu()):
        ranking = Ranking(one, where, {})
        assert list(ranking.rows) == [()]
        assert ranking.first(3)
