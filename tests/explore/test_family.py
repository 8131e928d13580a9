"""One search serves a family: at other shapes and dtypes it finds what a fresh search finds,
without building structures again, and only where its side conditions hold.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax import device
from prism_jax.explore import Form, families, search
from prism_jax.explore.family import Family, parse, skeleton
from prism_jax.explore.result import SearchResult
from prism_jax.extract import lift
from prism_jax.ir.check import check_sgraph
from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.nodes import Axis, Const, Load, Pointwise, Reduce, Store, Tensor, at
from prism_jax.ir.program import Program
from tests.explore import functions

H100 = device.row("H100")


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    families.forget()
    yield
    families.forget()


def attention(b: int, dtype: Any = jnp.float16) -> Program:
    shapes = ((2 * b, 256, 64), (2 * b, 64, 4096), (2 * b, 4096, 64))
    return _program(functions.attention, shapes, dtype)


def norm(n: int, dtype: Any = jnp.float16) -> Program:
    return _program(functions.rms_norm_mlp, ((n, 2048), (2048, 4096), (2048, 4096)), dtype)


def _program(function: Any, shapes: Any, dtype: Any = jnp.float16) -> Program:
    return lift(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(s, dtype) for s in shapes)), "f")


def found(program: Program) -> SearchResult:
    return families.search(program, H100, time.perf_counter() + 60)


def fresh(program: Program) -> SearchResult:
    from prism_jax.egraph import extract

    forms = [Form(a.program, a.axioms) for a in extract.search(program, H100)]
    return search(program, forms, H100, 60)


def same(a: SearchResult, b: SearchResult) -> None:
    """The same plans in the same order, with the same sizes and times, and the same proof."""
    assert [c.sgraph.digest for c in a.candidates] == [c.sgraph.digest for c in b.candidates]
    assert [c.sizes for c in a.candidates] == [c.sizes for c in b.candidates]
    assert [c.estimate for c in a.candidates] == [c.estimate for c in b.candidates]
    assert [c.bound for c in a.candidates] == [c.bound for c in b.candidates]
    assert [c.form.digest for c in a.candidates] == [c.form.digest for c in b.candidates]
    first, second = (dataclasses.replace(r.certificate, scope="") for r in (a, b))
    assert first == second


def test_ten_batch_sizes_of_attention() -> None:
    """b = 1 needs split keys with a second kernel that combines, b = 16 does not."""
    whys: dict[int, str] = {}
    for number, b in enumerate((1, 16, 2, 3, 4, 6, 8, 12, 24, 31)):
        program = attention(b)
        result = found(program)
        assert result.reused == (number > 0)
        same(result, fresh(program))
        best = result.candidates[0]
        check_sgraph(best.sgraph)
        whys[b] = f"{best.kernels} {best.why}"
    assert whys[1].startswith("2 ")
    assert "split over" in whys[1]
    assert whys[16].startswith("1 ")
    assert "split over" not in whys[16]


def qk_norm(b: int) -> Program:
    shapes = ((2 * b, 256, 64), (2 * b, 64, 4096), (2 * b, 4096, 64))
    return _program(functions.qk_norm_attention, shapes)


def lora(n: int) -> Program:
    return _program(functions.lora, ((n, 256), (256, 4096), (256, 16), (16, 4096)))


def linear(n: int) -> Program:
    return _program(functions.layer_norm_linear, ((n, 4096), (4096, 6144)))


def kernel_sum(n: int) -> Program:
    return _program(functions.kernel_sum, ((64 * n, 8), (64 * n + 1, 8), (64 * n + 1, 8)))


@pytest.mark.parametrize("make", [qk_norm, lora, linear, kernel_sum])
def test_ten_sizes(make: Callable[[int], Program]) -> None:
    """The smallest, the largest and what lies between, of a few families at most."""
    reused = 0
    for n in (8, 128, 16, 9, 96, 24, 33, 64, 48, 17):
        program = make(n)
        result = found(program)
        reused += result.reused
        same(result, fresh(program))
    assert reused >= 7


def test_mappings_beyond_the_limit_are_left_out_of_every_certificate() -> None:
    """Also where the structures are there already, so that none are left out anew."""
    from prism_jax.explore.family import Family
    from prism_jax.explore.pruning import Pruning
    from prism_jax.explore.search import Search

    program = attention(8)
    family = Search(program, [Form(program)], Pruning(mappings=1), True)
    for source in (program, attention(2), attention(16), program):
        instance = Family(family).instance(source)
        assert instance is not None
        result = family.at(instance, H100, time.perf_counter() + 60)
        assert result.statistics["cut_by_limit"] > 0
        assert not result.certificate.complete


def test_a_search_that_its_budget_ended_is_gone_on_with() -> None:
    """At another shape, and at its own, where more is found then."""
    program = gated(8)
    short = families.search(program, H100, time.perf_counter())
    assert short.stop == "time budget"
    assert not short.certificate.complete
    for again in (gated(16), program):
        result = found(again)
        assert result.reused
        assert result.stop == "complete"
        same(result, fresh(again))


def gated(n: int, dtype: Any = jnp.float16) -> Program:
    return _program(functions.gated_mlp, ((n, 2048), (2048, 4096), (2048, 4096)), dtype)


@pytest.mark.parametrize("make", [attention, gated])
def test_a_second_dtype(make: Callable[..., Program]) -> None:
    found(make(8))
    for dtype in (jnp.bfloat16, jnp.float32):
        program = make(8, dtype)
        result = found(program)
        assert result.reused
        same(result, fresh(program))
        assert {t.dtype for t in result.sgraphs[0].inputs} == {np.dtype(dtype).name}


def test_the_second_shape_builds_no_kernel_again() -> None:
    """And costs a fraction of the first: bounds and estimates are evaluated, nothing is searched
    but what was cut before. (`test_time` says by how much.)
    """
    first = found(norm(8))
    assert first.statistics["kernels"] > 10
    again = found(norm(16))
    assert again.reused
    assert again.statistics["kernels"] <= first.statistics["kernels"] // 2
    assert found(norm(32)).statistics["kernels"] <= first.statistics["kernels"] // 2
    spent = min(_seconds(found, norm(n)) for n in (18, 20, 22, 26))
    whole = min(_seconds(fresh, norm(n)) for n in (24, 28))
    assert spent < whole


def _seconds(work: Callable[[Program], SearchResult], program: Program) -> float:
    start = time.process_time()
    work(program)
    return time.process_time() - start


def block(x: Any, wq: Any, wk: Any, wv: Any, wo: Any, w1: Any, w2: Any) -> Any:
    """A transformer's block with one head: more reductions than all sets of are looked at."""

    def norm(x: Any) -> Any:
        return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)

    h = norm(x)
    scores = (h @ wq) @ (h @ wk).T * 0.125
    seen = jnp.tril(jnp.ones(scores.shape, bool))
    x = x + jax.nn.softmax(jnp.where(seen, scores, -1e30), -1) @ (h @ wv) @ wo
    return x + jax.nn.silu(norm(x) @ w1) @ w2


def test_equal_plans_have_one_order_where_sets_are_climbed() -> None:
    """What is looked into first, since it was best before, is not first among equals."""

    def climbed(n: int) -> Program:
        return _program(block, ((n, 512), *[(512, 512)] * 4, (512, 1024), (1024, 512)))

    found(climbed(896))
    for n in (1000, 960):
        program = climbed(n)
        result = found(program)
        assert result.reused
        assert result.statistics["cut_by_climbing"]
        same(result, fresh(program))


def test_cut_branches_are_reopened() -> None:
    """What launches made too dear at a small size is looked into at a large one."""

    def small(n: int) -> Program:
        return _program(functions.rms_norm_mlp, ((n, 512), (512, 1024), (512, 1024)))

    assert found(small(2)).statistics["cut_by_model"] > 0
    large = found(small(480))
    assert large.reused
    assert large.statistics["reopened"] > 0
    same(large, fresh(small(480)))


def test_a_violated_side_condition_is_a_new_family() -> None:
    small = functions.log_sum_exp
    assert not found(_program(small, ((64, 128),))).reused
    assert found(_program(small, ((32, 200),))).reused  # 200 columns may be held, as 128 may
    other = _program(small, ((64, 1024),))  # 1024 may not
    result = found(other)
    assert not result.reused
    same(result, fresh(other))


def test_constants_that_hold_a_size_are_part_of_the_family() -> None:
    """A mean divides by its length, so another length is another program; so is another dtype that
    rounds a constant.
    """
    one, other = norm(8), _program(functions.rms_norm_mlp, ((8, 1024), (1024, 64), (1024, 64)))
    assert skeleton(one) != skeleton(other)
    assert skeleton(one) == skeleton(norm(9))
    assert skeleton(one) != skeleton(norm(8, jnp.float32))


@pytest.mark.parametrize("scale", [None, 3.0])
def test_a_size_that_a_rewrite_made_a_number_is_not_reused(scale: float | None) -> None:
    """Found by a random program: sum_i c is 3 c at one size only; also where 3 is mentioned."""

    def repeated(n: int) -> Program:
        i, j = Axis("i", n), Axis("j", n + 1)
        row = Load(Tensor("x", (n + 1,), "float32"), (at(j),))
        body = row if scale is None else Pointwise("mul", (row, Const(scale)))
        y = Tensor("y", (n + 1,), "float32")
        return Program("p", (row.tensor,), (Store(y, (at(j),), Reduce("sum", (i,), body)),))

    for n in (3, 5, 1):
        program = repeated(n)
        inputs = {"x": np.arange(n + 1.0)}
        for candidate in found(program).candidates:
            sizes = dict.fromkeys(candidate.sgraph.symbols, 2)
            got = evaluate_sgraph(candidate.sgraph, sizes, inputs)
            np.testing.assert_allclose(got[0], evaluate(program, inputs)[0])


@pytest.mark.parametrize("sizes", [(4, 5), (4, 1), (1, 4)])
def test_forms_that_hold_a_size_are_not_taken_over(sizes: tuple[int, int]) -> None:
    """The sum of a term over an axis that it does not have is the axis's size times the term."""
    i = Axis("i", 3)
    x, y = Tensor("x", (3,), "float32"), Tensor("y", (3,), "float32")
    random = np.random.default_rng(0)
    for size in sizes:
        total = Reduce("sum", (Axis("j", size),), Pointwise("mul", (Const(0.5), Load(x, (at(i),)))))
        source = Program("f", (x,), (Store(y, (at(i),), total),))
        inputs = {"x": random.standard_normal(3)}
        for graph in found(source).sgraphs:
            [value] = evaluate_sgraph(graph, dict.fromkeys(graph.symbols, 2), inputs)
            np.testing.assert_allclose(value, 0.5 * size * inputs["x"], rtol=1e-12)
        same(found(source), fresh(source))


def test_found_structures_compute_the_program_at_other_sizes() -> None:
    random = np.random.default_rng(0)
    for rows, columns in ((5, 9), (3, 7), (8, 4)):
        source = _program(functions.layer_norm_linear, ((rows, 40), (40, columns)), jnp.float32)
        inputs = {t.name: random.standard_normal([int(s) for s in t.shape]) for t in source.inputs}
        [expected] = evaluate(source, inputs)
        result = found(source)
        for sgraph in result.sgraphs[:6]:
            check_sgraph(sgraph)
            sizes = {symbol: int(random.integers(1, 9)) for symbol in sgraph.symbols}
            [value] = evaluate_sgraph(sgraph, sizes, inputs)
            np.testing.assert_allclose(value, expected, rtol=1e-7, atol=1e-9)
    assert result.reused


def test_text_round_trip() -> None:
    first = found(attention(1))
    text = families.export()
    families.forget()
    assert families.load(text) == 1
    assert families.export() == text
    again = found(attention(1))
    assert again.reused
    same(again, first)
    assert found(attention(16)).reused


@pytest.mark.parametrize("text", ["{}", "[]", '{"forms": [], "saturated": true, "best": null}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the text of a family"):
        parse(text)


def test_conditions_are_readable() -> None:
    found(norm(8))
    [[family]] = families._known.values()  # pyright: ignore[reportPrivateUsage]
    assert isinstance(family, Family)
    assert family.conditions() == ["j > 256", "j > 31"]
    assert json.loads(family.text())["saturated"] is True
