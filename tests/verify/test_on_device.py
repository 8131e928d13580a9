"""The oracle that XLA computes: the same values as numpy's, and a contract that decides alike."""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_jax import compat
from prism_jax.bench import suites
from prism_jax.bench.workload import Workload
from prism_jax.emit import jnp as plain
from prism_jax.extract import lift
from prism_jax.ir.nodes import Axis, Const, Iota, Load, Tensor, Within, affine, at
from prism_jax.ir.program import Program
from prism_jax.testing import programs
from prism_jax.testing.arrays import program_inputs
from prism_jax.verify import again, contract, effort, on_device, oracles
from prism_jax.verify.contract import check
from prism_jax.verify.draws import draws, wild_draws
from prism_jax.verify.luck import Noisy
from prism_jax.verify.on_device import OnDevice
from prism_jax.verify.sample import Sample, choose, oracle
from tests.verify.build import add, causal, div, exp, mul, op, out, program, red, sub, t, total

B, H, I, J, D = Axis("b", 2), Axis("h", 3), Axis("i", 24), Axis("j", 40), Axis("d", 8)  # noqa: E741


def emit(whole: Program) -> Any:
    return plain.emit(whole).call


def here(whole: Program, samples: Any) -> OnDevice:
    """On whatever device there is: what a contract is lent instead of `on_gpu`."""
    return OnDevice(whole, samples, emit)


def compare(whole: Program, inputs: Any, samples: Any, memory: float | None = None) -> OnDevice:
    """Asserts that both oracles agree, to 1e-12 of a row's largest value or to what a few units of
    rounding in float64 do to it. Whether an integer steps there is not compared.
    """
    found = OnDevice(whole, samples, emit, memory)
    with np.errstate(all="ignore"):
        wanted = oracle(whole, inputs, samples)
        moves = [Noisy(2.0**-48, np.random.default_rng(n)) for n in range(4)]
        others = [oracle(whole, inputs, samples, noisy) for noisy in moves]
        for n, (got, want) in enumerate(zip(found(inputs), wanted, strict=True)):
            assert (got.shape, got.dtype) == (want.shape, want.dtype)
            near = [o[n] for o in others]
            if want.dtype.kind != "f":
                steady = np.logical_and.reduce([want == o for o in near])
                np.testing.assert_array_equal(got[steady], want[steady])
                continue
            finite = np.isfinite(want) & np.logical_and.reduce([np.isfinite(o) for o in near])
            change = np.max([np.where(finite, np.abs(o - want), 0) for o in near], axis=0)
            top = np.max(np.where(finite, np.abs(want), 0), axis=1, keepdims=True, initial=0.0)
            # A cast or a floor may step: then the whole row may, as far as the noise shows it.
            allowed = 1e-12 * top + 4 * change.max(1, keepdims=True, initial=0.0)
            close = np.where(finite, np.abs(got - want) <= allowed, True)
            assert close.all(), f"{got[~close]} is not {want[~close]}"
            still = ~np.isfinite(want) & np.logical_and.reduce([~np.isfinite(o) for o in near])
            np.testing.assert_array_equal(got[still], want[still])
    return found


@given(whole=programs(), data=st.data(), budget=st.sampled_from([1, 64, 1 << 30]))
def test_random_programs_have_numpys_values(
    whole: Program, data: st.DataObject, budget: int
) -> None:
    compare(whole, data.draw(program_inputs(whole)), choose(whole, budget, seed=3))


@given(whole=programs(tame=False), seed=st.integers(0, 99))
def test_nan_and_infinities_stand_where_numpy_has_them(whole: Program, seed: int) -> None:
    for draw in wild_draws(whole, seed):
        compare(whole, draw.inputs(whole), choose(whole, 1, seed))


# ---- the suites


def small(row: Workload) -> Program:
    """The program of a row at sizes of a few elements, equal ones where the row has equal ones."""
    sizes = sorted({n for o in row.operands for n in o.shape if n > 4})
    fewer = {n: 6 + 2 * k for k, n in enumerate(sizes)}
    shapes = [tuple(fewer.get(n, n) for n in o.shape) for o in row.operands]
    given = [jax.ShapeDtypeStruct(s, o.dtype) for s, o in zip(shapes, row.operands, strict=True)]
    function = row.function
    assert function is not None
    return lift(jax.make_jaxpr(lambda *a: jax.tree.leaves(function(*a)))(*given), row.name)


ROWS = {
    f"{name} {row.name} {row.operands[0].dtype}": row
    for name in suites.NAMES
    for row in suites.rows(name)
    if row.maker is None
}


@pytest.mark.parametrize("name", ROWS)
def test_the_suites_programs_have_numpys_values(name: str) -> None:
    whole = small(ROWS[name])
    for n in (0, 1, 5):
        draw = draws(n)[n]
        for budget in (1, 1 << 30):
            compare(whole, draw.inputs(whole), choose(whole, budget, seed=n))


# ---- what is easily got wrong


def attention(otherwise: float = float("-inf")) -> Program:
    s = causal(I, J, total(mul(t("q", B, H, I, D), t("k", B, H, J, D)), D), otherwise)
    p = exp(sub(s, red("max", s, J)))
    value = total(mul(div(p, total(p, J)), t("v", B, H, J, D)), J)
    return program("attention", out(value, B, H, I, D), out(red("max", s, J), B, H, I, name="m"))


def rounded(dtype: str) -> Program:
    """The error of rounding a value to a dtype: nothing at all if the cast were optimised away."""
    x = t("x", I, J)
    narrow = op("cast", op("mul", x, 3.0), parameter=dtype)
    return program("rounded", out(sub(op("mul", x, 3.0), narrow), I, J, dtype="float64"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e5m2", "int8"])
def test_opaque_casts_round(dtype: str) -> None:
    whole = rounded(dtype)
    if dtype == "int8":
        x = op("cast", t("x", I, J), parameter="int8")
        whole = program("steps", out(sub(t("x", I, J), op("cast", x, parameter="float32")), I, J))
    inputs = {"x": np.random.default_rng(0).standard_normal((24, 40)).astype(np.float32)}
    samples = choose(whole, 1 << 30, 0)
    compare(whole, inputs, samples)
    assert np.abs(OnDevice(whole, samples, emit)(inputs)[0]).max() > 0


def test_a_precision_record_rounds_nothing() -> None:
    from prism_jax.ir.nodes import Precision

    record = Precision("float16", "float32", "float16")
    product = mul(t("a", I, D), t("b", D, J))
    whole = program("p", out(red("sum", product, D, precision=record), I, J, dtype="float16"))
    compare(whole, draws()[0].inputs(whole), choose(whole, 1 << 30, 0))


def test_gathers_guards_and_positions() -> None:
    table = Tensor("table", (30, 8), "bfloat16")
    ids = Load(Tensor("ids", (24,), "int32"), (at(I),))
    shifted = affine([(I, 1)], -3)
    looked = Load(table, (at(ids), at(D)))
    padded = Load(Tensor("x", (24,), "float32"), (shifted,), (Within(shifted, 0, 24),), Const(7.0))
    value = add(mul(looked, padded), op("cast", Iota(D), parameter="float32"))
    count = red("sum", op("cast", op("gt", value, 0.0), parameter="int32"), D)
    best = red("argmax", mul(value, -1.0), D)
    whole = program(
        "gathers",
        out(value, I, D, dtype="bfloat16"),
        out(count, I, name="n", dtype="int32"),
        out(best, I, name="a", dtype="int32"),
        out(op("lt", count, op("cast", best, parameter="int32")), I, name="less", dtype="bool"),
    )
    for draw in draws()[:4]:
        for budget in (1, 1 << 30):
            compare(whole, draw.inputs(whole), choose(whole, budget, seed=1))


def test_rows_are_cut_where_memory_is_short() -> None:
    whole = attention()
    inputs = draws()[0].inputs(whole)
    for samples in (choose(whole, 1 << 30, 0), choose(whole, 3000, 0)):
        enough = compare(whole, inputs, samples)
        fewer = compare(whole, inputs, samples, memory=100_000)
        assert len(enough.pieces) == 1
        assert len(fewer.pieces) > 1
        assert len({p for p, _ in fewer.pieces}) == 1, "one program is compiled for all"
        with pytest.raises(MemoryError):
            OnDevice(whole, samples, emit, memory=1000)


# ---- how it is run


def test_it_is_compiled_once_for_all_draws_and_candidates() -> None:
    made: list[Program] = []

    def counted(whole: Program) -> Any:
        made.append(whole)
        return emit(whole)

    whole = attention()
    samples = choose(whole, 3000, 0)
    for _ in range(2):
        found = OnDevice(whole, samples, counted)
        for draw in draws()[:3]:
            found(draw.inputs(whole))
    assert len(made) == 1


@pytest.mark.parametrize("wide", [False, True])
def test_64_bit_types_stay_as_they_were(wide: bool) -> None:
    whole = attention()
    samples = choose(whole, 3000, 0)
    inputs = draws()[0].inputs(whole)
    with jax.enable_x64(wide):
        here(whole, samples)(inputs)
        assert jax.config.read("jax_enable_x64") == wide
        assert jnp.asarray(np.float64(1)).dtype == ("float64" if wide else "float32")

        def broken(whole: Program) -> Any:
            raise RuntimeError("no such program")

        with pytest.raises(RuntimeError):
            OnDevice(whole, samples, broken)(inputs)
        assert jax.config.read("jax_enable_x64") == wide


def test_nothing_is_recorded_in_a_function_that_is_being_traced() -> None:
    whole = attention()
    samples = choose(whole, 3000, 0)
    inputs = draws()[0].inputs(whole)
    found: list[Any] = []

    def traced(x: Any) -> Any:
        found.append(here(whole, samples)(inputs))
        assert compat.is_tracing()
        return x + 1

    closed = jax.make_jaxpr(jax.jit(traced))(1.0)
    assert len(closed.jaxpr.eqns[0].params["jaxpr"].eqns) == 1
    for got, want in zip(found[0], oracle(whole, inputs, samples), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


def test_only_a_gpu_is_asked() -> None:
    whole = attention()
    if on_device.default_device().platform == "cpu":
        assert on_device.on_gpu(whole, choose(whole, 1, 0), emit) is None


# ---- the contract with it


def reference(k: Any, q: Any, v: Any) -> Any:
    s = jnp.einsum("bhid,bhjd->bhij", q, k, precision="highest")
    s = jnp.where(jnp.arange(24)[:, None] >= jnp.arange(40)[None], s, -jnp.inf)
    return jnp.einsum("bhij,bhjd->bhid", jax.nn.softmax(s, -1), v, precision="highest"), s.max(-1)


def honest(k: Any, q: Any, v: Any) -> Any:
    s = jnp.einsum("bhid,bhjd->bhij", q, k, precision="highest")
    s = jnp.where(jnp.arange(24)[:, None] >= jnp.arange(40)[None], s, -jnp.inf)
    e = jnp.exp(s - s.max(-1, keepdims=True))
    o = jnp.einsum("bhij,bhjd->bhid", e, v, precision="highest")
    return o / e.sum(-1)[..., None], s.max(-1)


def planted(k: Any, q: Any, v: Any) -> Any:
    """Wrong in one column of one head only."""
    o, m = honest(k, q, v)
    return o.at[:, 1, :, 5].multiply(1.001), m


def test_the_contract_decides_as_with_numpys_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attention()
    monkeypatch.setattr(oracles, "DEAR", 0.0)
    for candidate, right in ((honest, True), (planted, False)):
        call = jax.jit(candidate)
        by_numpy = check(whole, jax.jit(reference), call, stop_early=False)
        by_xla = check(whole, jax.jit(reference), call, stop_early=False, fast=here)
        assert by_numpy.passed == by_xla.passed == right, f"{by_numpy}\n{by_xla}"
        assert "float64 by numpy; elements" in dict(by_numpy.protocol)["oracle"]
        assert "float64 by XLA on cpu; elements" in dict(by_xla.protocol)["oracle"]
        assert [(d.draw, d.counts, d.passed) for d in by_numpy.table] == [
            (d.draw, d.counts, d.passed) for d in by_xla.table
        ]


def test_cheap_programs_are_left_to_numpy() -> None:
    result = check(attention(), jax.jit(reference), jax.jit(honest), fast=here)
    assert result.passed
    assert "by numpy" in dict(result.protocol)["oracle"]


class Failing:
    """Gives out after a while, as a device that others use does."""

    name, seconds = "a device", 0.0

    def __init__(self, whole: Program, samples: tuple[Sample, ...], good: int) -> None:
        self.inner, self.good = here(whole, samples), good

    def __call__(self, inputs: Any) -> Any:
        self.good -= 1
        if self.good < 0:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand more")
        return self.inner(inputs)


@pytest.mark.parametrize("good", [0, 3])
def test_where_it_fails_numpy_goes_on(monkeypatch: pytest.MonkeyPatch, good: int) -> None:
    monkeypatch.setattr(oracles, "DEAR", 0.0)
    lent = lambda whole, samples: Failing(whole, samples, good)  # noqa: E731
    result = check(attention(), jax.jit(reference), jax.jit(honest), fast=lent)
    assert result.passed, str(result)
    said = dict(result.protocol)["oracle"]
    assert "by numpy, since a device failed: RuntimeError: RESOURCE_EXHAUSTED: Out of memo" in said
    assert not check(attention(), jax.jit(reference), jax.jit(planted), fast=lent).passed


def test_where_it_cannot_be_made_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracles, "DEAR", 0.0)

    def none(whole: Program, samples: Any) -> Any:
        raise ValueError("no device")

    result = check(attention(), jax.jit(reference), jax.jit(honest), fast=none)
    assert result.passed
    assert "by numpy, since the faster oracle failed: ValueError" in dict(result.protocol)["oracle"]


LARGE = Axis("n", 4096), Axis("m", 50304), Axis("c", 2048)


def loss() -> Program:
    """A sum over everything, which cannot be sampled."""
    n, m, c = LARGE
    return program("loss", out(total(op("exp", total(mul(t("x", n, c), t("w", c, m)), c)), n, m)))


def test_what_is_too_dear_for_numpy_is_left_to_the_faster_one() -> None:
    whole, asked = loss(), []

    class Stub:
        name, seconds = "a device", 0.1

        def __call__(self, inputs: Any) -> Any:
            asked.append(inputs)
            raise RuntimeError("RESOURCE_EXHAUSTED")

    refused = check(whole, lambda *_: None, lambda *_: None, seconds=1.0)
    assert "oracle would take" in refused.reason
    tried = check(whole, lambda *_: None, lambda *_: None, seconds=1.0, fast=lambda *_: Stub())
    assert len(asked) == 1
    assert not tried.passed
    assert "oracle would take" in tried.reason
    assert "a device failed: RuntimeError: RESOURCE_EXHAUSTED" in tried.reason
    assert on_device.OnDevice(whole, choose(whole, 1, 0), emit, 1e12).seconds < 2.0
    slow = type("Slow", (Stub,), {"seconds": 1.0})
    check(whole, lambda *_: None, lambda *_: None, seconds=1.0, fast=lambda *_: slow())
    assert len(asked) == 1, "eight draws would take eight seconds"


def unlucky(size: float, salt: int) -> Any:
    """The sum of squares, off by a normal number of this relative size that only its inputs decide,
    as the last rounding of a long chain is.
    """

    def run(x: Any) -> Any:
        values = np.asarray(x, np.float64)
        rng = np.random.default_rng([salt, zlib.crc32(np.asarray(x).tobytes())])
        return np.float32((values**2).sum() * (1 + size * rng.standard_normal()))

    return run


@pytest.mark.parametrize(("dear", "size", "passes"), [
    (True, 1e-4, True), (True, 1e-3, False), (False, 1e-4, False)])  # fmt: skip
def test_luck_is_judged_by_other_inputs_where_numpy_takes_long(
    dear: bool, size: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two equally good sums one is often more than twice as far off: with one output, one number
    decides. Ten times as far off on all inputs is no luck.
    """
    monkeypatch.setattr(oracles, "DEAR", 0.0)
    monkeypatch.setattr(contract, "COMPARED", 0.0)
    x = t("x", I, J)
    whole = program("squares", out(total(mul(x, x), I, J)))
    lent = (lambda *asked: Failing(*asked, good=10**6)) if dear else None
    reference = unlucky(1e-4, 1)
    found = [
        check(whole, reference, unlucky(size, 2), seed=seed, stop_early=False, fast=lent)
        for seed in range(4)
    ]
    # Nine inputs leave one unlucky draw in forty.
    assert sum(result.passed for result in found) in ((3, 4) if passes else (0,)), str(found)
    said = {dict(result.protocol)["luck"].partition(";")[0] for result in found}
    rolled = f"root mean squares over {again.TIMES + 1} inputs nearly the same"
    assert said == {rolled if dear else "not judged"}
    if passes:
        assert any(draw.lucky_rows for result in found for draw in result.table)


class Off:
    """Wrong by a hundred-thousandth in one row, on some of its calls."""

    name, seconds = "a device", 0.0

    def __init__(self, whole: Program, samples: Any, calls: range) -> None:
        self.inner, self.calls, self.count = here(whole, samples), calls, 0

    def __call__(self, inputs: Any) -> Any:
        found = self.inner(inputs)
        if self.count in self.calls:
            found[0][0] *= 1 + 1e-5
        self.count += 1
        return found


def test_an_oracle_of_another_program_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emitters make the candidate, too: what they get wrong must not vouch for itself."""
    monkeypatch.setattr(oracles, "DEAR", 0.0)
    lent = lambda whole, samples: Off(whole, samples, range(99))  # noqa: E731
    result = check(attention(), jax.jit(reference), jax.jit(honest), fast=lent)
    assert not result.passed
    assert "a device has other float64 values than numpy" in result.reason
    monkeypatch.setattr(oracles, "COMPARED", 0.0)
    assert check(attention(), jax.jit(reference), jax.jit(honest), fast=lent).passed


def test_oracles_are_compared_inside_the_operators_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracles, "DEAR", 0.0)
    whole = program("logs", out(op("log", t("x", I, J)), I, J))
    assert wild_draws(whole)
    logs = jax.jit(lambda x: jnp.log(x))
    for calls, right in ((range(1), True), (range(1, 2), False)):
        lent = lambda whole, samples, calls=calls: Off(whole, samples, calls)  # noqa: E731
        assert check(whole, logs, logs, fast=lent).passed == right


def test_dear_draws_in_threads_are_those_made_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracles, "DEAR", 0.0)
    tables: list[list[str]] = []
    for count in (1, 3, 16):
        monkeypatch.setattr(effort, "cores", lambda count=count: count)
        result = check(attention(), jax.jit(reference), jax.jit(honest))
        assert result.passed
        tables.append([str(line) for line in result.table])
    assert tables[0] == tables[1] == tables[2]
