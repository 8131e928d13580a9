"""One suite from start to end: jax.jit and prism.jit side by side, errors of both, what was found.

In: rows. Out: a `Run`. What is timed is the user's call; what is compared is what it returns.

Invariant: a row that fails is reported by name with its reason and does not stop the others, and a
number is never made from a call that raised.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform as host
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import prism_jax as prism
from prism_jax import compat, errors, extract
from prism_jax import device as devices
from prism_jax.bench import accuracy, floor, machine, memory, oracle
from prism_jax.bench.records import DeviceTime, Protocol, Record, Run
from prism_jax.bench.tries import Tries
from prism_jax.bench.workload import Platform, Workload
from prism_jax.measure import device_time as timer
from prism_jax.measure import timing
from prism_jax.report import RegionReport, Report
from prism_jax.verify import again


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run does beyond the rows.

    Attributes:
      seeds: one draw of arguments each; errors are the worst over all, times are of the first.
      seconds: host timing of one row.
      oracle: whether errors against float64 are measured.
      memory: whether peak temporaries are measured, each in a process of its own (CPU only).
      cold: whether kernels are also timed in a chain of distinct layers (GPU only).
      tries: where to store everything that tuning measures.
    """

    seeds: tuple[int, ...] = (0,)
    seconds: float = 2.0
    oracle: bool = True
    memory: bool = False
    cold: bool = False
    tries: Path | None = None


def platform() -> Platform:
    """Where jax runs: `gpu` or `cpu` (which also stands for platforms without kernels of ours)."""
    return "gpu" if jax.default_backend() in ("gpu", "cuda", "rocm") else "cpu"


def run(
    suite: str,
    rows: Sequence[Workload],
    settings: Settings | None = None,
    done: Callable[[Run], None] = lambda run: None,
    others: Mapping[str, Mapping[str, DeviceTime]] | None = None,
) -> Run:
    """Measures every row.

    Args:
      suite: its name, for the records.
      rows: what to measure.
      settings: how long and how often.
      done: is given the run so far after every record, so that one that is cut off is not lost.
      others: device times of other implementations, to stand in the records: by field of the
        record (`torch`, `cudnn`), then by row key.
    """
    settings = settings or Settings()
    records: list[Record] = []
    skipped: dict[str, str] = {}
    conditions, tries = protocol(settings), Tries()

    def so_far() -> Run:
        return Run(suite=suite, protocol=conditions, records=tuple(records), skipped=dict(skipped))

    for row in rows:
        if row.missing:
            names = " ".join(row.missing)
            skipped[row.key] = f"needs {names}: pip install {names}"
            continue
        tries.row = row.key
        try:
            with tries.watching():
                record = measure(row, settings)
        except Exception as error:  # a row's failure is a result, whatever it is
            first_line = (str(error).splitlines() or [""])[0]
            skipped[row.key] = f"{type(error).__name__}: {first_line}"
            continue
        known = {field: times.get(row.key) for field, times in (others or {}).items()}
        record = dataclasses.replace(record, **known)
        records.append(record)
        done(so_far())
        if settings.tries:
            tries.save(settings.tries)
    return so_far()


def measure(row: Workload, settings: Settings) -> Record:
    """One row, measured on jax's default device. Raises whatever the row's own program raises.

    The first call is a cold one, whatever was measured before; the processes that measure memory
    run the plans that it found.
    """
    with tempfile.TemporaryDirectory() as folder, prism.options(cache="on", cache_dir=folder):
        return _measured(row, settings, Path(folder))


def _measured(row: Workload, settings: Settings, plans: Path) -> Record:
    function, arguments = row.build(settings.seeds[0])
    plain, ours = jax.jit(function), prism.jit(function)
    jit_first = _first(plain, arguments)
    before = compat.compile_seconds(only_here=True)
    with _failures() as failures:
        prism_first = _first(ours, arguments)
    xla = compat.compile_seconds(only_here=True) - before
    outputs = accuracy.leaves(ours(*arguments))
    report = prism.explain(function, *arguments)
    record = Record(
        suite=row.suite,
        name=row.name,
        size=row.size,
        inputs=_describe(arguments),
        outputs=tuple(f"{o.dtype}{list(o.shape)}" for o in outputs),
        found=found(report),
        regions=tuple(_region(region) for region in report.regions),
        stages_s=_stages(report),
        split_s=_split(report, prism_first, xla),
        host=_host(plain, ours, arguments, settings.seconds),
        jit_temp_bytes=temporaries(plain, arguments),
        prism_temp_bytes=temporaries(ours, arguments),
        first_call_s=(jit_first, prism_first),
        target_us=row.target_us,
        note="; ".join(failures),
    )
    if settings.memory and platform() == "cpu":
        record = dataclasses.replace(
            record,
            jit_peak_bytes=memory.measure(row.suite, row.key, "jit"),
            prism_peak_bytes=memory.measure(row.suite, row.key, "prism", plans),
        )
    if platform() == "gpu":
        jit, ours_took = device_times(plain, ours, arguments, settings.cold)
        record = dataclasses.replace(record, jit=jit, prism=ours_took)
        record = _beside_floor(record, function, arguments)
    return _with_errors(record, row, plain, ours, settings) if settings.oracle else record


@contextlib.contextmanager
def _failures() -> Generator[list[str]]:
    """Collects what prism_jax says about stages of its own that failed; other warnings pass."""
    said: list[str] = []
    errors.forget()  # a failure that an earlier row had is this row's failure too
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    for warning in caught:
        if isinstance(warning.message, errors.PrismWarning):
            said.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _host(
    plain: Callable[..., Any], ours: Callable[..., Any], arguments: tuple[Any, ...], seconds: float
) -> timing.Paired:
    """Both by the host's clock. What seems slower is measured again, for three times as long:
    among a score of equal programs, chance alone makes one seem so.
    """
    sides = (lambda: plain(*arguments)), (lambda: ours(*arguments))
    paired = timing.compare(*sides, seconds=seconds)
    if paired.high < 1.0:
        paired = timing.compare(*sides, seconds=3 * seconds, pairs=(21, 600))
    return paired


def _first(function: Callable[..., Any], arguments: tuple[Any, ...]) -> float:
    """Seconds of the first call: tracing, everything of ours, XLA's compilation, and one run."""
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def found(report: Report) -> str:
    """What prism made of the function, in one line: each plan that runs and the axioms behind it.

    >>> found(Report(function="f", device="CPU", regions=(), untouched=3))
    "XLA's own version"
    """
    parts: list[str] = []
    for region in report.regions:
        if region.replaced and region.plan not in parts:
            parts.append(region.plan)
    axioms = sorted({name for region in report.regions for name in region.axioms})
    if not parts:
        return "XLA's own version"
    return "; ".join(parts) + (f" by {', '.join(axioms)}" if axioms else "")


def _region(region: RegionReport) -> dict[str, Any]:
    """What a record keeps of a region: the choice and what it was chosen from."""
    return {
        "name": region.name,
        "plan": region.plan,
        "axioms": list(region.axioms),
        "search": region.search,
        "refused": list(region.refused),
        "ranking": [dataclasses.asdict(row) for row in region.ranking],
        "plan_text": region.plan_text,
        "evidence": region.evidence,
        "candidates": [dataclasses.asdict(candidate) for candidate in region.candidates],
    }


def _stages(report: Report) -> dict[str, float]:
    """Seconds per stage over all regions."""
    total: dict[str, float] = {}
    for region in report.regions:
        for stage, seconds in region.stages:
            total[stage] = total.get(stage, 0.0) + seconds
    return total


def _split(report: Report, total: float, xla: float) -> dict[str, float]:
    """What a first call of so many seconds was spent on, so many of them on compiling the result
    (see `Record.split_s`).
    """
    stages = _stages(report)
    parts = {kind: stages.get(kind, 0.0) for kind in ("explore", "compile", "measure", "verify")}
    parts["xla"] = xla
    return parts | {"rest": total - sum(parts.values())}


def temporaries(function: Any, arguments: tuple[Any, ...]) -> int | None:
    """Bytes of temporaries by XLA's own report; None on platforms that give none."""
    with contextlib.suppress(NotImplementedError, AttributeError):
        analysis = function.lower(*arguments).compile().memory_analysis()
        return int(analysis.temp_size_in_bytes)
    return None


def _with_errors(
    record: Record,
    row: Workload,
    plain: Callable[..., Any],
    ours: Callable[..., Any],
    settings: Settings,
) -> Record:
    """The record with the worst errors over all seeds, or with a note that says why not."""
    jit_errors, prism_errors, verdicts = [], [], []
    for seed in settings.seeds:
        function, arguments = row.build(seed)
        exact = oracle.float64(function, *_part(row, arguments))

        def outputs(
            arguments: tuple[Any, ...], exact: Callable[..., Any] = exact
        ) -> accuracy.Outputs:
            return accuracy.Outputs(
                candidate=_sampled(row, ours, arguments),
                reference=_sampled(row, plain, arguments),
                exact=accuracy.leaves(exact(*_part(row, arguments))),
            )

        def rolled(
            number: int, arguments: tuple[Any, ...] = arguments, seed: int = seed
        ) -> accuracy.Outputs:
            leaves, like = jax.tree.flatten(arguments)
            moved = again.moved(leaves, 1000 * seed + number)
            return outputs(jax.tree.unflatten(like, [jnp.asarray(a) for a in moved]))

        try:
            given = outputs(arguments)
        except oracle.NoOracleError as error:
            return dataclasses.replace(record, note=str(error))
        jit_errors.append(accuracy.measure(given.reference, given.exact))
        prism_errors.append(accuracy.measure(given.candidate, given.exact))
        verdicts.append(accuracy.judge(given, rolled))
    return dataclasses.replace(
        record,
        jit_errors=_worst(jit_errors),
        prism_errors=_worst(prism_errors),
        contract=accuracy.Verdict.worst(verdicts),
    )


def _part(row: Workload, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments that the oracle is given: the whole, or what the row's sample needs."""
    return row.sample.arguments(arguments) if row.sample else arguments


def _sampled(row: Workload, function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
    """The function's outputs at the positions that the oracle evaluates."""
    outputs = accuracy.leaves(function(*arguments))
    if row.sample is None:
        return outputs
    where = row.sample.positions(arguments)
    return [np.take(output, where, axis=row.sample.out) for output in outputs]


def _worst(errors: Sequence[accuracy.Errors]) -> accuracy.Errors:
    return accuracy.Errors(
        worst=max(e.worst for e in errors),
        rms=max(e.rms for e in errors),
        differing=max(e.differing for e in errors),
    )


def device_times(
    plain: Callable[..., Any], ours: Callable[..., Any], arguments: tuple[Any, ...], cold: bool
) -> tuple[DeviceTime, DeviceTime]:
    """Kernel time and captured-chain time of one call of each on the accelerator. Kernels are timed
    in the order plain, ours, ours, plain: clocks that sink under load are not only one's.
    """
    cache = devices.current().l2_bytes if cold else 0
    sides = (plain, ours)
    first = [timer.measure(side, arguments, plain, cache) for side in sides]
    again = [timer.device_time(side, arguments) for side in reversed(sides)]
    jit, prism = (
        dataclasses.replace(one, kernel_us=(one.kernel_us + other.median_us) / 2)
        for one, other in zip(first, reversed(again), strict=True)
    )
    return jit, prism


def _beside_floor(
    record: Record, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Record:
    """The record with the floor of its programs; without, where something is outside of them."""
    leaves, tree = jax.tree.flatten(arguments)
    types = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]

    def flat(*values: Any) -> list[Any]:
        return jax.tree.leaves(function(*jax.tree.unflatten(tree, values)))

    cut = extract.extract(jax.make_jaxpr(flat)(*types), prism.Options(), record.name)
    programs = [region.program for region in cut.regions]
    if not programs or len(programs) < len(cut.steps) or record.prism is None:
        return record
    found = floor.floor(programs, devices.current())
    remainder = found.explain(record.prism.kernel_us, record.prism.parts)
    return dataclasses.replace(record, floor_us=found.us, remainder=remainder)


# --- the protocol -------------------------------------------------------------------------------


def protocol(settings: Settings) -> Protocol:
    """How this process measures, and on what."""
    device = jax.devices()[0]
    on_gpu = platform() == "gpu"
    return Protocol(
        device=device.device_kind if on_gpu else machine.processor(),
        platform=platform(),
        clocks=machine.clocks() if on_gpu else "",
        seeds=settings.seeds,
        precision=jax.config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
        timer=(
            "CUPTI kernel durations; difference of two captured chains; paired host clock"
            if on_gpu
            else Protocol.timer
        ),
        l2="warm; in a chain calls share what no computation of theirs would be the same for"
        if on_gpu
        else "warm",
        threads=os.cpu_count() or 1,
        versions={"python": host.python_version(), **dict(machine.versions())},
    )


def _describe(arguments: Any) -> tuple[str, ...]:
    leaves = accuracy.leaves(arguments)
    return tuple(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
