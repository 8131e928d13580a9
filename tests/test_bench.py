"""The measuring itself: arguments, oracle, accuracy contract, statistics, records, tables."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import prism_jax as prism
from prism_jax import demo, device, errors, extract
from prism_jax.bench import (
    accuracy,
    cli,
    floor,
    memory,
    oracle,
    records,
    runner,
    suites,
    table,
    torch_baseline,
    warm,
)
from prism_jax.bench.workload import Operand, Sample, Workload
from prism_jax.measure import timing
from prism_jax.options import Options, current
from prism_jax.verify import again

ALL_ROWS = [row for suite in suites.NAMES for row in suites.rows(suite)]


# --- rows ---------------------------------------------------------------------------------------


def test_keys_are_unique_per_platform() -> None:
    for suite in suites.NAMES:
        for platform in ("cpu", "gpu"):
            keys = [row.key for row in suites.rows(suite) if platform in row.platforms]
            assert len(keys) == len(set(keys))
            assert keys


def test_mirage_has_the_artifact_s_eighteen_rows() -> None:
    gpu = [row for row in suites.rows("mirage") if row.platforms == ("gpu",)]
    assert len(gpu) == 18
    by_key = {row.key: row for row in gpu}
    shapes = [operand.shape for operand in by_key["gqa b=8"].operands]
    assert shapes == [(16, 256, 64), (16, 64, 4096), (16, 4096, 64)]
    assert [o.shape for o in by_key["lora b=16"].operands] == [
        (256, 256), (256, 4096), (256, 16), (16, 4096),
    ]  # fmt: skip
    assert all(operand.dtype == "float16" for row in gpu for operand in row.operands)


@pytest.mark.parametrize(
    "row", [row for row in ALL_ROWS if row.maker is None], ids=lambda row: f"{row.suite}-{row.key}"
)
def test_rows_trace_at_their_shapes(row: Workload) -> None:
    assert row.function is not None
    arguments = [jax.ShapeDtypeStruct(o.shape, jnp.dtype(o.dtype)) for o in row.operands]
    outputs = jax.tree.leaves(jax.eval_shape(row.function, *arguments))
    assert outputs
    if row.sample:
        sizes = {
            operand.shape[axis]
            for operand, axis in zip(row.operands, row.sample.axes, strict=True)
            if axis is not None
        }
        assert len(sizes) == 1
        assert all(output.shape[row.sample.out] in sizes for output in outputs)


@pytest.mark.parametrize("row", [r for r in ALL_ROWS if "cpu" in r.platforms], ids=lambda r: r.key)
def test_equal_seeds_give_equal_arguments(row: Workload) -> None:
    if row.missing:
        pytest.skip(f"needs {row.missing}")
    first, second, other = (accuracy.leaves(row.build(seed)[1]) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_row_says_which_library_it_needs() -> None:
    row = Workload(
        suite="s", name="n", size="", platforms=("cpu",), maker=lambda seed: (abs, (seed,)),
        requires=("numpy", "no_such_library"),
    )  # fmt: skip
    assert row.missing == ("no_such_library",)


def test_a_row_has_one_source_of_its_function() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Workload(suite="s", name="n", size="", platforms=("cpu",))


def test_sample_is_the_same_rows_of_the_whole() -> None:
    row = next(r for r in suites.rows("flash") if r.name == "causal" and "cpu" in r.platforms)
    small = dataclasses.replace(row, operands=3 * (Operand((1, 32, 6, 8)),))
    function, arguments = small.build(0)
    sample = Sample((2, 2, 2), out=2, count=2)
    part = function(*sample.arguments(arguments))
    whole = np.take(np.asarray(function(*arguments)), sample.positions(arguments), axis=2)
    np.testing.assert_allclose(part, whole, rtol=1e-5, atol=1e-6)


# --- oracle -------------------------------------------------------------------------------------


def _float64(function: Any, *arguments: Any) -> Any:
    """The same function on float64 arguments: right where the function itself casts nothing."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        wide = [jnp.asarray(np.asarray(a), jnp.float64) for a in arguments]
        return np.asarray(function(*wide))


@pytest.mark.parametrize("name", ["gqa", "qknorm", "rmsnorm", "gatedmlp", "lora", "ntrans"])
def test_oracle_is_the_program_in_exact_arithmetic(name: str) -> None:
    from prism_jax.bench.suites import mirage

    shapes = {
        "gqa": [(2, 8, 4), (2, 4, 16), (2, 16, 4)],
        "qknorm": [(2, 8, 4), (2, 4, 16), (2, 16, 4)],
        "rmsnorm": [(3, 8), (8, 5)],
        "gatedmlp": [(3, 8), (8, 5), (8, 5)],
        "lora": [(3, 8), (8, 5), (8, 2), (2, 5)],
        "ntrans": [(3, 8)] * 3,
    }[name]
    generator = np.random.default_rng(0)
    arguments = [Operand(shape, "float16").draw(generator) for shape in shapes]
    exact = {  # written out with numpy in float64, no jax involved
        "gqa": lambda q, k, v: _softmax(q @ k) @ v,
        "qknorm": lambda q, k, v: (
            _softmax(_rms(q) @ np.swapaxes(_rms(np.swapaxes(k, 1, 2)), 1, 2)) @ v
        ),
        "rmsnorm": lambda x, w: _rms(x) @ w,
        "gatedmlp": lambda x, a, b: (x @ a) / (1 + np.exp(-(x @ a))) * (x @ b),
        "lora": lambda x, w, a, b: x @ w + x @ a @ b,
        "ntrans": lambda x, h, a: _l2(x + a * (_l2(h) - x)),
    }[name](*(np.asarray(a, np.float64) for a in arguments))
    (value,) = accuracy.leaves(oracle.evaluate(getattr(mirage, name), *arguments))
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, exact, rtol=1e-6)  # the programs' own epsilons are float32


def _softmax(s: Any) -> Any:
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _rms(x: Any) -> Any:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def _l2(x: Any) -> Any:
    return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6)


def test_oracle_walks_loops_branches_and_custom_rules() -> None:
    def program(x: Any, n: Any) -> Any:
        total, _ = jax.lax.scan(lambda c, row: (c + jax.nn.relu(row) / 3, c), x[0] * 0, x)
        many = jax.lax.fori_loop(0, 5, lambda i, c: c * 1.1, total)
        looped = jax.lax.while_loop(lambda c: c[1] < n, lambda c: (c[0] / 7, c[1] + 1), (many, 0))
        return jax.lax.cond(n > 2, jnp.sin, jnp.cos, looped[0]) + jax.nn.logsumexp(total)

    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
    for n in (1, 3):
        value = oracle.evaluate(program, x, jnp.asarray(n))
        expected = _float64(lambda x, n=n: program(x, jnp.asarray(n)), x)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        assert np.any(np.abs(value - np.asarray(program(x, n), np.float64)) > 1e-12)


def test_oracle_keeps_integers_and_trees() -> None:
    def program(tree: Any) -> Any:
        order = jnp.argsort(tree["x"].astype(jnp.bfloat16).astype(jnp.float32))
        return {"order": order, "top": (tree["x"] / 3)[order[-1]]}

    result = oracle.evaluate(program, {"x": jnp.asarray([3.0, 1.0, 2.0], jnp.bfloat16)})
    assert result["order"].tolist() == [1, 2, 0]
    assert result["order"].dtype == np.int32
    assert result["top"] == 1.0


def test_oracle_does_not_change_the_caller_s_precision() -> None:
    oracle.evaluate(jnp.sin, jnp.ones(3))
    assert jnp.ones(3).dtype == jnp.float32


# --- accuracy -----------------------------------------------------------------------------------


def _never(number: int) -> accuracy.Outputs:
    raise AssertionError("nothing exceeded its allowance")


def _judged(
    candidate: Any, reference: Any, exact: Any, rolled: Callable[[int], Any] = _never
) -> accuracy.Verdict:
    return accuracy.judge(accuracy.Outputs([candidate], [reference], [exact]), rolled)


def _same(*arrays: Any) -> accuracy.Verdict:
    """The verdict where rolling the rounding again changes nothing."""
    return _judged(*arrays, rolled=lambda _: accuracy.Outputs(*([a] for a in arrays)))


def test_contract_accepts_the_reference_and_twice_its_error() -> None:
    generator = np.random.default_rng(0)
    exact = generator.standard_normal((8, 64))
    noise = generator.standard_normal((8, 64)) * 1e-4
    reference = (exact + noise).astype(np.float32)
    assert _judged(reference, reference, exact).kept
    for times, kept in ((1.9, True), (3.0, False)):
        candidate = (exact + times * noise).astype(np.float32)
        verdict = _same(candidate, reference, exact)
        assert verdict.kept is kept
        assert verdict.again == (0 if kept else 8)
        assert verdict.share == pytest.approx(times / 2, rel=0.02)


def test_contract_judges_each_row_alone() -> None:
    exact = np.array([[1.0, 1.0], [1e4, 1e4]])
    reference = exact.astype(np.float32)
    candidate = reference.copy()
    candidate[0, 0] += 1e-3  # far below the last digits of the other row
    verdict = _same(candidate, reference, exact)
    assert verdict.again == 1
    assert not verdict.kept
    assert verdict.share == pytest.approx(1e-3 / (4 * 2**-23), rel=0.1)


def test_a_lucky_reference_is_rolled_again_and_a_loss_stays_one() -> None:
    """Two copies of one algorithm: in some row one of them is hit exactly by chance."""
    generator = np.random.default_rng(3)
    exact = np.ones((400, 4))

    def draw(times: float, lucky: bool = False) -> accuracy.Outputs:
        c, r = (1 + generator.standard_normal((2, *exact.shape)) * 1e-4).astype(np.float32)
        if lucky:
            r[7] = 1.0
        return accuracy.Outputs([1 + (c - 1) * np.float32(times)], [r], [exact])

    fair = accuracy.judge(draw(1.0, lucky=True), lambda _: draw(1.0))
    assert fair.kept
    assert fair.again >= 1
    lossy = accuracy.judge(draw(4.0), lambda _: draw(4.0))
    assert not lossy.kept
    assert lossy.again > 100


def test_what_appears_only_when_rolled_again_breaks_the_contract_too() -> None:
    exact = np.ones((2, 4))
    reference, far = exact.astype(np.float32), (exact + 1e-3).astype(np.float32)
    nan = np.where(exact == 1, np.float32(np.nan), 0)
    verdict = _judged(
        far, reference, exact, lambda n: accuracy.Outputs([nan if n == 5 else far], [far], [exact])
    )
    assert verdict == accuracy.Verdict(False, None, 2)


@pytest.mark.parametrize(
    ("candidate", "reference", "exact", "kept"),
    [
        ([np.nan, 1.0], [np.nan, 1.0], [np.nan, 1.0], True),
        ([np.nan, 1.0], [0.5, 1.0], [0.5, 1.0], False),
        ([np.inf, 1.0], [np.inf, 1.0], [np.inf, 1.0], True),
        ([-np.inf, 1.0], [np.inf, 1.0], [np.inf, 1.0], False),
        ([0.5, 1.0], [np.inf, 1.0], [0.5, 1.0], True),  # only the reference overflowed
        ([0.5, 1.0], [np.inf, 1.0], [np.inf, 1.0], False),
    ],
)
def test_contract_on_special_values(
    candidate: list[float], reference: list[float], exact: list[float], kept: bool
) -> None:
    verdict = _judged(np.array(candidate, "f4"), np.array(reference, "f4"), np.array(exact))
    assert verdict.kept is kept


def test_contract_refuses_another_shape_or_dtype() -> None:
    one = np.ones(3, np.float32)
    assert _judged(one.astype(np.float16), one, one) == accuracy.BROKEN
    assert _judged(one[None], one, one) == accuracy.BROKEN


def test_contract_on_indices_allows_ties_only() -> None:
    exact = np.arange(10_000)
    reference = exact.copy()
    tie, wrong = exact.copy(), exact.copy()
    tie[0] += 1
    wrong[:100] += 1
    assert _judged(tie, reference, exact).kept
    assert not _judged(wrong, reference, exact).kept
    assert accuracy.measure([wrong], [exact]).differing == 0.01


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_moved_inputs_are_the_same_problem_with_other_roundings(dtype: str) -> None:
    values = np.concatenate([np.random.default_rng(0).standard_normal(4000), [0, np.inf, np.nan]])
    array = np.repeat(values, 2).astype(jnp.dtype(dtype))
    first, second, integers = again.moved([array, array, np.arange(5)], 1)
    assert first.dtype == array.dtype
    wide, near = (x.astype(np.float64) for x in (array, first))
    np.testing.assert_array_equal(near[::2], near[1::2])  # equal elements stay equal
    np.testing.assert_array_equal(near[-6:], wide[-6:])  # zero, infinity and NaN stay
    wide, near = wide[:-6], near[:-6]
    assert np.mean(wide != near) > 0.9
    assert np.all(np.abs(near) <= np.abs(wide))
    eps = float(jnp.finfo(dtype).eps)
    assert np.all(np.abs(near - wide) <= (2.0**-5 + eps) * np.abs(wide))
    assert np.any(first != second)
    assert np.any(again.moved([array], 2)[0] != first)
    np.testing.assert_array_equal(integers, np.arange(5))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.floats(0, 1e-2))
def test_errors_are_relative_to_the_row(values: list[float], share: float) -> None:
    exact = np.asarray(values)
    scale = np.abs(exact).max() or 1.0
    off = exact.copy()
    off[0] += share * scale
    errors = accuracy.measure([off], [exact])
    assert math.isclose(errors.worst, share, rel_tol=1e-6, abs_tol=1e-12)
    assert errors.rms <= errors.worst


# --- timing -------------------------------------------------------------------------------------


def test_statistics_of_paired_samples() -> None:
    paired = timing.summarise([2.0] * 20, [1.0] * 20)
    assert (paired.ratio, paired.low, paired.high, paired.pairs) == (2.0, 2.0, 2.0, 20)
    noisy = timing.summarise(
        list(np.random.default_rng(0).uniform(0.9, 1.1, 200)),
        list(np.random.default_rng(1).uniform(0.9, 1.1, 200)),
    )
    assert noisy.low < 1.0 < noisy.high


def test_comparing_a_call_with_itself_and_with_a_longer_one() -> None:
    calls: list[str] = []

    def run(name: str, rounds: int) -> Any:
        calls.append(name)
        value = np.ones(64)
        for _ in range(rounds):
            value = np.sin(value)
        return value

    paired = timing.compare(lambda: run("a", 4000), lambda: run("b", 400), seconds=0.05)
    assert 2 < paired.low <= paired.ratio <= paired.high
    assert abs(calls.count("a") - calls.count("b")) <= 2 * 1000
    twice = run_nothing = list[int]
    assert timing.compare(twice, run_nothing, seconds=0, pairs=(5, 9)).pairs == 5


@pytest.mark.skipif(not memory.RESET.exists(), reason="needs Linux's /proc")
def test_peak_memory_sees_the_quadratic_intermediate() -> None:
    quadratic = memory.measure("flash", "rbf n=4096 d=16", "jit")
    linear = memory.measure("mirage", "ntrans b=1", "jit")
    assert quadratic is not None
    assert linear is not None
    assert 0.9 * 4 * 4096**2 < quadratic < 3 * 4 * 4096**2
    assert linear < 8e6


@pytest.mark.skipif(not memory.RESET.exists(), reason="needs Linux's /proc")
def test_peak_memory_is_that_of_the_kept_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that measures reads the plans that another one found, and adds none."""
    met: list[tuple[str, str | None]] = []

    class Jitted:
        def __init__(self, function: Any) -> None:
            self.function = function

        def lower(self, *arguments: Any) -> Any:
            met.append((current().cache, current().cache_dir))
            return jax.jit(self.function).lower(*arguments)

    monkeypatch.setattr(prism, "jit", Jitted)
    for plans in ([str(tmp_path)], []):
        assert memory.main(["mirage", "ntrans b=1", "prism", *plans]) == 0
        assert int(capsys.readouterr().out) >= 0
    assert [met[0], met[1][0]] == [("read", str(tmp_path)), "off"]


# --- records and tables -------------------------------------------------------------------------


def _record(name: str = "p", **changes: Any) -> records.Record:
    base = records.Record(
        suite="mirage", name=name, size="b=1", inputs=("float16[2]",), outputs=("float16[2]",),
        found="one kernel", host=timing.summarise([2e-3] * 9, [1e-3] * 9),
        jit_errors=accuracy.Errors(1e-4, 1e-5), prism_errors=accuracy.Errors(2e-4, 1e-5),
        contract=accuracy.Verdict(True, 0.5), first_call_s=(0.1, 0.5), stages_s={"explore": 0.01},
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def _device(us: float, kernels: int = 1) -> records.DeviceTime:
    return records.DeviceTime(kernel_us=us, kernel_spread=0.01, kernels=kernels, chain_us=us + 1)


def _run(*rows: records.Record) -> records.Run:
    protocol = records.Protocol(device="NVIDIA H100", platform="gpu", versions={"jax": "0.11.2"})
    return records.Run(suite="mirage", protocol=protocol, records=rows, skipped={"x": "needs flax"})


def test_records_survive_a_file(tmp_path: Path) -> None:
    times = {"jit": _device(20.0, 4), "prism": _device(10.0), "torch": _device(15.0)}
    times["cudnn"] = dataclasses.replace(
        _device(12.0, 2), parts=(("a", 7.0), ("b", 5.0)), cold_us=13.0
    )
    run = _run(_record(), _record("q", **times, floor_us=8.0, remainder="1.25x"))
    run.save(tmp_path / "device" / "mirage.json")
    assert records.Run.load(tmp_path / "device" / "mirage.json") == run


def test_a_record_of_another_schema_is_refused() -> None:
    values = json.loads(json.dumps(_run().to_json()))
    with pytest.raises(ValueError, match="run the benchmark again"):
        records.Run.from_json({**values, "schema": 99})


def test_speedup_is_by_device_time_where_there_is_one() -> None:
    assert _record().speedup == 2.0
    assert _record(jit=_device(30.0), prism=_device(10.0)).speedup == 3.0
    assert _record(host=timing.summarise([1.0] * 9, [1.1] * 9)).slower
    assert not _record().slower


def test_terminal_table_lines_up() -> None:
    shown = cli.render(_run(_record(), _record("longer", jit=_device(20, 4), prism=_device(10))))
    assert "longer b=1" in shown
    assert "4 → 1" in shown
    assert "x: not run; needs flax" in shown
    head, first, second, *_ = shown.splitlines()
    assert head.index("found") == first.index("one kernel") == second.index("one kernel")


def test_targets_are_shown_where_they_hold() -> None:
    run = _run(_record(jit=_device(20, 4), prism=_device(10), target_us=7.25))
    assert "7.25" in cli.render(run)
    other = dataclasses.replace(run.protocol, device="NVIDIA H200")
    assert "7.25" not in cli.render(dataclasses.replace(run, protocol=other))


def test_broken_contract_and_noise_are_marked() -> None:
    assert table.host_row(_record(contract=accuracy.BROKEN))[5].endswith("!")
    noisy = _record(host=timing.summarise([1.0, 2.0] * 9, [2.0, 1.0] * 9))
    assert table.host_row(noisy)[3].endswith("~")


def test_readme_section_comes_from_the_records(tmp_path: Path) -> None:
    text = f"# T\n{table.BEGIN}\nold\n{table.END}\nrest\n"
    assert "old" not in table.readme(text, tmp_path)
    record = _record(
        jit=_device(20.0), prism=_device(10.0), jit_temp_bytes=3_000_000, prism_temp_bytes=500_000
    )
    _run(record).save(tmp_path / "h100" / "mirage.json")
    made = table.readme(text, tmp_path)
    assert "| p b=1 | 20.0 | - | - | 10.0 | - | 1 → 1 | 2.00x | 21.0 → 11.0 | 3.0 → 0.5 |" in made
    assert made.endswith(f"{table.END}\nrest\n")
    assert table.readme(made, tmp_path) == made
    with pytest.raises(ValueError, match="no line"):
        table.readme("# nothing", tmp_path)


def test_a_mean_says_what_it_leaves_out() -> None:
    pair: dict[str, Any] = {"jit": _device(20.0), "prism": _device(10.0)}
    fast = _record("wrong", contract=accuracy.BROKEN, jit=_device(900.0), prism=_device(1.0))
    run = _run(_record(**pair), fast)
    assert table.geometric_mean(run) == 2.0
    assert table.device_row(fast)[7] == "900.00x !"
    assert "not in the mean: wrong b=1." in table.section(run)
    rows = [r for r in suites.rows("flash") if "gpu" in r.platforms]
    few = [_record(r.name, size=r.size, **pair) for r in rows[1:]]
    protocol = dataclasses.replace(run.protocol, platform="gpu")
    part = dataclasses.replace(run, suite="flash", records=tuple(few), protocol=protocol)
    assert f"Not measured in this record: {rows[0].key}." in table.section(part)
    every = (*few, _record(rows[0].name, size=rows[0].size, **pair))
    assert table.caveats(dataclasses.replace(part, records=every)) == ""
    noted = [dataclasses.replace(one, note="seen twice") for one in every[:2]]
    said = table.caveats(dataclasses.replace(part, records=(*noted, *every[2:])))
    assert said == f" {every[0].key}, {every[1].key}: seen twice."
    assert table.means(run) == "2.00x"
    timed = dataclasses.replace(protocol, timer="difference of two captured chains")
    assert table.means(dataclasses.replace(run, protocol=timed)) == "2.00x, in chains 1.91x"


def test_a_section_says_what_tuning_took_and_how_well_it_was_ranked() -> None:
    split = {
        "explore": 0.5,
        "compile": 2.0,
        "measure": 1.5,
        "verify": 0.5,
        "xla": 0.25,
        "rest": 0.25,
    }
    good = {"kernel": "k", "tried": 9, "place": 2, "loss": 1.5}
    late = {"kernel": "l", "tried": 30, "place": 11, "loss": 1.0}
    first = _record(first_call_s=(0.1, 5.0), split_s=split, regions=({"ranking": [good]},))
    other = _record(
        "q", first_call_s=(0.1, 5.0), split_s=split, regions=({"ranking": [good, late]},)
    )
    run = _run(first, other)
    section = table.section(run)
    assert "First calls with an empty cache: 10 s together, at most 5.0 s" in section
    assert "explore 10%, compile 40%, measure 30%, verify 10%, xla 5%, rest 5%" in section
    assert "first 10 for 67% of 3 kernels, and for all kernels of 50% of 2 rows" in section
    shown = cli.render(run)
    assert "67% of 3 kernels" in shown
    (line,) = [
        row.split() for row in shown.splitlines() if row.startswith("q b=1") and "0.50" in row
    ]
    assert line[2:] == ["5.00", "0.50", "2.00", "1.50", "0.50", "0.25", "0.25"]
    before = table.section(_run(_record()))  # records of versions that did not say
    assert "First calls" not in before
    assert "ranking" not in before.lower()


def test_rows_measured_again_replace_the_older_ones(tmp_path: Path) -> None:
    whole = _run(*(_record(name, prism=_device(9.0), jit=_device(9.0)) for name in "abc"))
    again = _run(_record("b", prism=_device(3.0), jit=_device(9.0)))
    other = dataclasses.replace(
        again, protocol=dataclasses.replace(again.protocol, versions={"jax": "0.12"})
    )
    whole.save(tmp_path / "h100" / "mirage.json")
    again.save(tmp_path / "h100" / "again" / "b.json")
    other.save(tmp_path / "h100" / "newer.json")
    merged, apart = sorted(table.gathered(tmp_path), key=lambda run: -len(run.records))
    assert [(r.name, r.speedup) for r in merged.records] == [("a", 1.0), ("b", 3.0), ("c", 1.0)]
    assert apart == other


def test_committed_readme_is_up_to_date() -> None:
    root = Path(__file__).parents[1]
    text = (root / "README.md").read_text()
    assert table.readme(text, root / cli.RECORDS) == text


# --- command line -------------------------------------------------------------------------------


def test_select_by_name_and_by_key() -> None:
    assert len(cli.select("mirage", "gpu", ["gqa"])) == 3
    assert [row.key for row in cli.select("mirage", "gpu", ["gqa b=8"])] == ["gqa b=8"]
    with pytest.raises(SystemExit, match="no row of mirage"):
        cli.select("mirage", "gpu", ["nothing"])


def test_list_prints_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["algebra", "--list", "--device", "gpu"]) == 0
    assert "lowrank r=16" in capsys.readouterr().out.splitlines()


def test_torch_has_every_program_of_the_gpu_suites() -> None:
    class Absent:
        def __getattr__(self, name: str) -> Absent:
            return self

        def __call__(self, *_: Any, **__: Any) -> Absent:
            return self

    there = set(torch_baseline.compiled_programs(Absent()))
    wanted = {
        row.name
        for suite in ("mirage", "prism", "flash", "algebra")
        for row in suites.rows(suite)
        if "gpu" in row.platforms
    }
    assert wanted == there & wanted
    assert {"gqa", "attention", "causal"} == set(torch_baseline.attention(Absent()))


def test_rows_of_another_dtype(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mirage", "--list", "--device", "gpu", "--dtype", "bfloat16"]) == 0
    assert "gqa b=16 bfloat16" in capsys.readouterr().out.splitlines()
    (row,) = cli.select("flash", "gpu", ["linear_ce"], "float32")
    assert {o.dtype for o in row.operands} == {"float32", "int32"}
    assert row.target_us is None
    (same,) = cli.select("flash", "gpu", ["rbf"], "float32")
    assert (same.size, same.target_us) == ("n=16384 d=16", 200.0)
    with pytest.raises(SystemExit, match="cannot be chosen"):
        cli.select("models", "cpu", None, "float32")


def test_floors_are_those_of_the_project_s_table() -> None:
    """Computed from the programs; masks halve the work, and the inputs are read once."""
    wanted = {
        "causal": 86, "rbf": 73, "laplace": 54, "sinkhorn": 21, "kmeans": 21, "linear_ce": 1055,
    }  # fmt: skip
    for row in suites.rows("flash"):
        if "gpu" in row.platforms and row.name in wanted:
            assert _floor_of(row).us == pytest.approx(wanted[row.name], rel=0.05), row.key
    rows = {row.key: row for row in suites.rows("mirage") if "gpu" in row.platforms}
    found = _floor_of(rows["gqa b=16"]).parts
    assert found["memory"] == pytest.approx(11.9, rel=0.02)
    assert found["products"] == pytest.approx(10.7, rel=0.02)
    assert found["special"] == pytest.approx(9.1, rel=0.02)
    assert _floor_of(rows["gatedmlp b=1"]).us == pytest.approx(22.4, rel=0.01)


def _floor_of(row: Workload) -> floor.Floor:
    arrays = [jax.ShapeDtypeStruct(o.shape, o.dtype) for o in row.operands]
    cut = extract.extract(jax.make_jaxpr(row.function)(*arrays), Options(), row.name)  # pyright: ignore
    return floor.floor([region.program for region in cut.regions], device.row("H100"))


def test_a_record_says_how_far_the_floor_is() -> None:
    x = jnp.ones((64, 64), jnp.float32)
    ours = dataclasses.replace(_device(9.0, 2), parts=(("f_parts", 6.0), ("f_combine", 3.0)))
    found = runner._beside_floor(_record(prism=ours), lambda x: jax.nn.softmax(x @ x), (x,))
    assert found.floor_us is not None
    assert 0.0 < found.floor_us < 9.0
    assert "f_combine 3.0" in found.remainder
    shown = cli.render(_run(found))
    assert f"p b=1: {found.remainder}" in shown
    outside = runner._beside_floor(_record(prism=ours), lambda x: jnp.sort(x @ x), (x,))
    assert outside.floor_us is None


def test_torch_that_cannot_start_is_one_sentence() -> None:
    with pytest.raises(RuntimeError, match=r"torch\.compile gave no times"):
        torch_baseline.measure("mirage", ["gqa b=1"], timeout_s=60)


# --- a row from start to end --------------------------------------------------------------------

CHAIN = Workload(
    suite="doc",
    name="chain",
    size="",
    function=lambda x, a, b: x @ (a @ b),
    # as written 20 Mflop, with the product of three begun at the other end 0.03: on any machine
    # that other programs use as well, a plan is worth verifying
    operands=(Operand((4, 1536)), Operand((1536, 2), fan_in=1536), Operand((2, 1536))),
    platforms=("cpu",),
)
QUICK = runner.Settings(seconds=0.01)


def test_a_row_is_measured_compared_and_explained() -> None:
    record = runner.measure(CHAIN, QUICK)
    assert record.inputs == ("float32[4, 1536]", "float32[1536, 2]", "float32[2, 1536]")
    assert record.outputs == ("float32[4, 1536]",)
    assert record.contract is not None
    assert record.contract.kept
    assert record.jit_errors is not None
    assert 0 < record.jit_errors.worst < 1e-5
    assert record.host.pairs >= 7
    assert record.note == ""
    assert len(record.regions) == 1
    total = record.first_call_s[1]
    assert sum(record.split_s.values()) == pytest.approx(total)
    named = {part: seconds for part, seconds in record.split_s.items() if part != "rest"}
    assert min(named.values()) > 0.0
    assert 0.9 * total <= sum(named.values()) <= 1.1 * total
    run = records.Run(suite="doc", protocol=runner.protocol(QUICK), records=(record,))
    assert records.Run.from_json(json.loads(json.dumps(run.to_json()))) == run


def _warm(**changes: Any) -> warm.Warm:
    base = warm.Warm(
        row="p b=1", device="cpu", runs=3, cold_s=9.0, jit_s=0.1, prism_s=0.2, jit_cpu_s=0.1,
        prism_cpu_s=0.19, import_s=0.02, imported=(), same_bytes=True, jax_cache_hits=True,
        found_s=0.28,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def test_a_warm_row_shows_what_it_does_not_keep() -> None:
    assert _warm().good
    assert warm.line(_warm()) == [
        "p b=1", "9.0 s", "100", "200", "100", "90", "20", "same", "hits, 280", "",
    ]  # fmt: skip
    for changes, shown in (
        ({"prism_s": 0.251}, "!"),
        ({"imported": ("triton",)}, "! triton"),
        ({"same_bytes": False}, "!"),
        ({"jax_cache_hits": False}, "!"),
    ):
        assert not _warm(**changes).good
        assert warm.line(_warm(**changes))[-1] == shown


def test_warm_processes_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the command says of a real row; its time is judged where the machine is quiet."""
    monkeypatch.setenv("PRISM_JAX_TUNE_SECONDS", "2")
    monkeypatch.setattr(warm, "LIMIT_SECONDS", math.inf)
    words = ["algebra", "--row", "lowrank r=16", "--warm", "1", "--json", str(tmp_path / "w.json")]
    assert cli.main(words) == 0
    assert "lowrank r=16" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "w.json").read_text())["rows"]
    assert (row["imported"], row["same_bytes"], row["jax_cache_hits"]) == ([], True, True)
    assert row["cold_s"] > row["prism_s"] > row["import_s"] > 0.0
    assert row["found_s"] > row["import_s"]
    with pytest.raises(RuntimeError, match="no suite 'doc'"):
        warm.first(CHAIN, "jit", {})


def test_a_failing_row_does_not_stop_the_others() -> None:
    def broken(*arrays: Any) -> Any:
        raise ValueError("no such thing\nand more")

    rows = [dataclasses.replace(CHAIN, name="broken", function=broken), CHAIN]
    missing = Workload(
        suite="doc", name="absent", size="", platforms=("cpu",), maker=lambda seed: (abs, (seed,)),
        requires=("no_such_library",),
    )  # fmt: skip
    told: list[str] = []

    def done(run: records.Run) -> None:
        told.append(run.records[-1].name)

    run = runner.run("doc", [*rows, missing], QUICK, done=done)
    assert told == ["chain"] == [record.name for record in run.records]
    assert run.skipped == {
        "broken": "ValueError: no such thing",
        "absent": "needs no_such_library: pip install no_such_library",
    }


def test_a_stage_that_fails_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def jit(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            errors.fallback("explore", "chain", RuntimeError("lost"))
            return function(*arguments)

        return jax.jit(call)

    monkeypatch.setattr(runner.prism, "jit", jit)
    first, second = (runner.measure(CHAIN, QUICK) for _ in range(2))
    assert "explore stage failed: RuntimeError: lost" in first.note
    assert second.note == first.note


def test_demo_runs_every_part_and_reports_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = dataclasses.replace(
        CHAIN, name="absent", function=None, operands=(), maker=lambda seed: (abs, (seed,)),
        requires=("no_such_library",),
    )  # fmt: skip
    monkeypatch.setattr(demo, "chosen", lambda suite, names: (CHAIN, absent))
    assert demo.main(seconds=0.01) == 0
    out = capsys.readouterr().out
    assert all(title in out for _, title, _ in demo.PARTS)
    assert "absent: not run; needs no_such_library: pip install no_such_library" in out
    assert "3 of 3 keep the accuracy contract" in out
    lines = [line for line in out.splitlines() if line.startswith(("program", "chain"))]
    assert lines[0].index("found") <= len(lines[1])


def test_demo_has_the_main_job_s_rows() -> None:
    names = [row.name for suite, _, names in demo.PARTS for row in demo.chosen(suite, names)]
    assert {"gqa", "qknorm", "rmsnorm", "gatedmlp", "lora", "ntrans"} <= set(names)
    assert {"lowrank", "linear_attention", "pairwise", "shared"} <= set(names)
    assert {"flax_block", "equinox_block"} & set(names)
