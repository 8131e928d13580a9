"""The cache as a stage: what it keeps, what it gives back, that no fault of it is the user's."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax import compat, errors
from prism_jax.cache import fleet, plans, remember
from prism_jax.cache import store as files
from prism_jax.cache.entry import Entry, decode, encode
from prism_jax.cache.key import key
from prism_jax.cache.place import store
from prism_jax.cache.remember import remembered
from prism_jax.launch import rooms
from prism_jax.launch.cuda import TARGETS
from prism_jax.options import Options
from prism_jax.report import Decision, RegionReport, StageFailure
from tests.cache.examples import TARGET, built, decision, plan, region, softmax_product

BACKENDS = ("jnp", "lax", "triton")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    errors.forget()
    files.forget()
    fleet.forget()
    yield
    fleet.forget()


@pytest.fixture
def here(tmp_path: Path) -> Options:
    return Options(cache="on", cache_dir=str(tmp_path / "cache"))


class Planner:
    """Plans by giving the decision it was made with, and counts how often it was asked."""

    def __init__(self, answer: Decision) -> None:
        self.answer, self.asked = answer, list[Options]()

    def __call__(self, options: Options) -> Decision:
        self.asked.append(options)
        return self.answer


def ask(
    options: Options, backend: str | None = "jnp", rows: int = 64, device: Any = TARGET
) -> tuple[Decision, list[Options]]:
    """The stage's answer, and the settings under which it had to plan."""
    planner = Planner(decision(backend, rows))
    return remembered(region(rows), device, options, planner), planner.asked


def entry_file(options: Options) -> Path:
    (path,) = Path(options.cache_dir or "").glob("*.prism")
    return path


def rewrite(options: Options, change: Callable[[Entry], Entry]) -> None:
    path = entry_file(options)
    path.write_bytes(encode(change(decode(path.read_bytes()))))


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_a_second_process_is_answered_without_planning(backend: str | None, here: Options) -> None:
    first, planned = ask(here, backend)
    assert len(planned) == 1
    second, planned = ask(here, backend)
    assert planned == []
    if backend is None:
        assert second.runs is None
    else:
        assert first.runs == second.runs
        assert second.report.source == built(backend).source
    assert second.report.kept.startswith("entry ")
    assert "explore 0.25 s" in second.report.kept
    assert [stage for stage, _ in second.report.stages] == ["cache"]
    assert second.report.candidates == first.report.candidates
    assert "from the cache" in str(second.report)


@pytest.mark.parametrize("backend", ["jnp", "lax"])
def test_what_comes_back_computes_the_same(backend: str, here: Options) -> None:
    ask(here, backend)
    found, _ = ask(here, backend)
    assert found.runs is not None
    x, y = (jax.random.normal(jax.random.key(n), s) for n, s in enumerate(((64, 32), (32, 48))))
    order = [t.name for t in region().program.inputs]
    arrays = dict(zip(order, (x, y) if x.shape == _shape(order[0]) else (y, x), strict=True))
    (got,) = found.runs.call(*arrays.values())
    np.testing.assert_allclose(got, softmax_product(x, y), rtol=2e-5, atol=1e-6)


def _shape(name: str) -> Any:
    return next(t.shape for t in region().program.inputs if t.name == name)


def test_kernels_come_back_with_their_launches(here: Options) -> None:
    ask(here, "triton")
    found = plans.kept(decode(entry_file(here).read_bytes()))
    assert found.plan == plan("triton")
    assert found.launches == built("triton").launches
    assert found.budgets == (here.search_seconds, here.tune_seconds)
    again, _ = ask(here, "triton")
    shapes = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in region().program.inputs]
    texts = {
        jax.jit(call).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
        for call in (again.runs.call, built("triton").call)  # type: ignore[union-attr]
    }
    assert len(texts) == 1
    (text,) = texts
    assert any(target in text for target in TARGETS)


def test_every_part_of_the_key_counts(here: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    from prism_jax.cache import key as keys

    ask(here)
    assert ask(here)[1] == []
    changes: list[Callable[[], Any]] = [
        lambda: ask(here, rows=32),
        lambda: ask(here.replace(accuracy=3.0)),
        lambda: ask(here.replace(min_gain=0.5)),
        lambda: ask(here.replace(tune="off")),
        lambda: ask(here, device=rooms.Target("H100", {"platform": "other"}, lambda: TARGET.row)),
    ]
    for name in ("sources", "versions"):
        changes.append(lambda name=name: _patched(monkeypatch, keys, name, lambda: "other", here))
    flags = lambda: {"XLA_FLAGS": "--xla_x"}  # noqa: E731
    changes.append(lambda: _patched(monkeypatch, keys, "compiler_environment", flags, here))
    for setting in (jax.enable_x64(True), jax.default_matmul_precision("highest")):
        changes.append(lambda setting=setting: _within(setting, here))
    for number, change in enumerate(changes):
        assert len(change()[1]) == 1, number
    assert ask(here)[1] == []
    for budget in ("search_seconds", "tune_seconds", "on_error", "shadow"):
        value = "raise" if budget == "on_error" else 0.5
        assert ask(here.replace(**{budget: value}))[1] == [], budget


def _patched(monkeypatch: Any, module: Any, name: str, value: Any, options: Options) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(module, name, value)
        return ask(options)


def _within(context: Any, options: Options) -> Any:
    with context:
        return ask(options)


def test_a_longer_budget_plans_again_and_replaces(here: Options) -> None:
    ask(here.replace(tune_seconds=1.0))
    assert len(ask(here.replace(tune_seconds=9.0))[1]) == 1
    assert ask(here.replace(tune_seconds=5.0))[1] == []
    assert ask(here.replace(tune_seconds=90.0, tune="never"))[1] == []


def test_off_and_read_write_nothing(here: Options) -> None:
    for mode in ("off", "read"):
        assert len(ask(here.replace(cache=mode))[1]) == 1
        assert not Path(here.cache_dir or "").exists()
    ask(here)
    assert ask(here.replace(cache="read"))[1] == []
    assert len(ask(here.replace(cache="off"))[1]) == 1


def test_never_plans_nothing_and_says_what_is_missing_once(here: Options) -> None:
    never = here.replace(tune="never")
    with pytest.warns(errors.PlanMissing, match="softmax_product") as caught:
        missing, planned = ask(never)
    assert len(caught) == 1
    assert planned == []
    assert missing.runs is None
    assert missing.report.refused
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ask(never)[1] == []
    ask(here, "lax")
    found, planned = ask(never)
    assert planned == []
    assert found.runs is not None


def test_what_failed_or_may_run_another_time_is_not_kept(here: Options) -> None:
    report = RegionReport("f")
    failed = Decision(None, report, StageFailure("explore", ValueError("no")))
    crowded = decision(None)
    crowded.chosen.trials.refuse("not measured: needs 9 bytes of the GPU, measuring may use 1")
    slow = decision(None)
    slow.chosen.trials.refuse("spills registers: 8 bytes of stack")
    for answer, kept in ((failed, False), (Decision(None, report), False), (crowded, False),
                         (slow, True)):  # fmt: skip
        planner = Planner(answer)
        for _ in range(2):
            remembered(region(), TARGET, here, planner)
        assert len(planner.asked) == (1 if kept else 2)


# -- faults ----------------------------------------------------------------------------------------


def _values(**changes: Any) -> Callable[[Entry], Entry]:
    return lambda entry: Entry({**entry.values, **changes}, entry.blobs)


def _plan_changes(**changes: Any) -> Callable[[Entry], Entry]:
    def change(entry: Entry) -> Entry:
        return Entry({**entry.values, "plan": {**entry.values["plan"], **changes}}, entry.blobs)

    return change


WRONG: dict[str, Callable[[Entry], Entry]] = {
    "no plan text": _plan_changes(sgraph="nonsense"),
    "another plan": _plan_changes(unroll=3),
    "another back end": _plan_changes(backend="jnp"),
    "unknown back end": _plan_changes(backend="cuda"),
    "a field of a newer version": _plan_changes(of_a_later_version=4),
    "a missing size": _plan_changes(sizes=[]),
    "no kernels": _values(launches=[]),
    "no sources": _values(sources=[]),
    "an unknown part": _values(extra=1),
    "no report": _values(report=None),
    "no blobs": lambda entry: Entry(entry.values),
    "a damaged kernel": lambda entry: Entry(entry.values, tuple(b[:-1] for b in entry.blobs)),
    "nothing": lambda entry: Entry({"key": entry.values["key"]}),
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_an_entry_that_does_not_fit_is_planned_again(
    wrong: str, here: Options, caplog: pytest.LogCaptureFixture
) -> None:
    ask(here, "triton")
    rewrite(here, WRONG[wrong])
    with caplog.at_level(logging.INFO, "prism_jax"):
        found, planned = ask(here, "triton")
    assert len(planned) == 1
    assert found.runs == decision("triton").runs
    assert any("does not fit" in record.getMessage() for record in caplog.records)
    assert ask(here, "triton")[1] == []


def test_a_plan_for_other_arrays_is_refused(here: Options) -> None:
    """An entry whose parts fit each other but not the program that its key names."""
    ask(here, "jnp", rows=32)
    other = decode(entry_file(here).read_bytes())
    place, name = store(here), key(region().program.digest, TARGET.identity, here)
    assert place is not None
    place.write(name.name, Entry({**other.values, "key": dict(name.parts)}, other.blobs))
    assert len(ask(here, "jnp")[1]) == 1


def test_a_kernel_for_another_device_is_refused(here: Options) -> None:
    small = dataclasses.replace(TARGET.row, smem_per_block=512)
    device = rooms.Target("H100", TARGET.identity, lambda: small)
    ask(here, "triton")
    assert len(ask(here, "triton", device=device)[1]) == 1


@pytest.mark.parametrize("where", ["_place", "key", "store", "assemble"])
def test_a_defect_of_the_cache_is_not_the_users(
    where: str, here: Options, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ask(here, "lax")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(remember, where, broken)
    found, planned = ask(here, "lax")
    assert len(planned) == 1
    assert found.runs == decision("lax").runs
    assert any("a defect" in record.getMessage() for record in caplog.records)


# -- trust -----------------------------------------------------------------------------------------


def test_signed_entries_need_the_key(
    here: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(b"0123456789abcdef\n")
    signed = here.replace(trust_cache="signed", cache_key=str(tmp_path / "key"))
    ask(here)
    assert len(ask(signed)[1]) == 1  # what stands there is not signed; it is replaced
    assert ask(signed)[1] == []
    monkeypatch.setenv("PLAN_KEY", "0123456789abcdef")
    assert ask(signed.replace(cache_key="env:PLAN_KEY"))[1] == []
    monkeypatch.setenv("PLAN_KEY", "fedcba9876543210")
    assert len(ask(signed.replace(cache_key="env:PLAN_KEY", cache="read"))[1]) == 1
    assert ask(here)[1] == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (None, "cache_key is not set"),
        ("env:NO_SUCH_VARIABLE", "the variable NO_SUCH_VARIABLE is not set"),
        ("{tmp}/none", "No such file or directory"),
        ("{tmp}/short", "holds fewer than 16 bytes"),
    ],
)
def test_without_a_key_nothing_signed_is_used(
    source: str | None, problem: str, here: Options, tmp_path: Path
) -> None:
    (tmp_path / "short").write_bytes(b"123")
    ask(here)
    path = source and source.format(tmp=tmp_path)
    signed = here.replace(trust_cache="signed", cache_key=path)
    with pytest.warns(errors.SecretMissing, match=problem) as caught:
        assert len(ask(signed)[1]) == 1
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ask(signed)[1]) == 1


def test_untrusted_plans_are_compiled_and_tested_again(
    here: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def rebuild(region: Any, plan: Any, device: Any, options: Any) -> Any:
        asked.append(plan)
        return built("triton") if len(asked) == 1 else "a row differs"

    monkeypatch.setattr(rooms, "rebuild", rebuild)
    monkeypatch.setattr(remember, "assemble", None)  # nothing that lies there is run
    ask(here, "triton")
    careful = here.replace(trust_cache="off")
    found, planned = ask(careful, "triton")
    assert planned == []
    assert found.runs == decision("triton").runs
    assert asked == [plan("triton")]
    assert len(ask(careful, "triton")[1]) == 1


@pytest.mark.parametrize("right", [True, False])
def test_rebuilding_proves_and_tests(right: bool) -> None:
    """A plan of another program with the same arrays does not get past the checks."""
    from prism_jax.extract import extract

    def other(x: Any, y: Any) -> Any:
        return jax.nn.softmax(x @ y if right else -(x @ y), axis=-1)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 32), (32, 48))]
    (mine,) = extract(jax.make_jaxpr(other)(*shapes), name="softmax_product").regions
    device = rooms.target(Options(device="CPU"))
    result = rooms.rebuild(mine, plan("lax"), device, Options())
    assert isinstance(result, str) != right, result


# -- several processes of one job ------------------------------------------------------------------


def test_a_fleet_ranks_unless_it_agreed(here: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(here, "lax")
    monkeypatch.setattr(compat, "process_count", lambda: 4)
    found, planned = ask(here, "lax")
    assert [o.tune for o in planned] == ["off"]
    assert not fleet.agree(lambda mine: [mine, mine, "other", mine], options=here)
    assert [o.tune for o in ask(here, "lax")[1]] == ["off"]
    assert fleet.agree(lambda mine: [mine] * 4, options=here)
    found, planned = ask(here, "lax")
    assert planned == []
    assert found.report.kept
    # An entry that appears later is not used: another process may not see it.
    assert [o.tune for o in ask(here, "lax", rows=32)[1]] == ["off"]
    monkeypatch.setattr(compat, "process_count", lambda: 1)
    ask(here, "lax", rows=32)
    rewrite_all(here)
    monkeypatch.setattr(compat, "process_count", lambda: 4)
    assert [o.tune for o in ask(here, "lax", rows=32)[1]] == ["off"]
    assert [o.tune for o in ask(here, "lax")[1]] == ["off"]  # not the bytes that were agreed on
    with pytest.warns(errors.PlanMissing):
        assert ask(here.replace(tune="never"), "lax")[1] == []


def rewrite_all(options: Options) -> None:
    for path in Path(options.cache_dir or "").glob("*.prism"):
        entry = decode(path.read_bytes())
        path.write_bytes(encode(Entry({**entry.values, "made": 0.0}, entry.blobs)))


def test_equal_folders_give_equal_hashes(here: Options, tmp_path: Path) -> None:
    from prism_jax.cache import manage

    ask(here, "lax")
    ask(here, "jnp", rows=32)
    manage.export(tmp_path / "plans.zip", here)
    other = here.replace(cache_dir=str(tmp_path / "other"))
    manage.load(tmp_path / "plans.zip", other)
    hashes: list[str] = []
    for options in (here, other, here.replace(cache="off")):
        fleet.agree(lambda mine: [hashes.append(mine) or mine], options=options)
    assert hashes[0] == hashes[1] != hashes[2]


def test_one_process_agrees_with_itself_and_silence_is_an_error(here: Options) -> None:
    assert fleet.agree(options=here)  # no jax.distributed: nobody to ask

    def silent(_: str) -> Any:
        raise TimeoutError("30 s")

    with pytest.raises(errors.FleetError, match="30 s"):
        fleet.agree(silent, options=here)
