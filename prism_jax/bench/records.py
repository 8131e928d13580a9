"""Benchmark results as values: protocol, one record per row, one run per suite; JSON in and out.

Invariant: `Run.from_json(run.to_json()) == run`, also after a trip through `json`, and a file of
another schema is refused with a sentence.

>>> text = json.dumps(Run(suite="doc", protocol=Protocol(device="none", platform="cpu")).to_json())
>>> Run.from_json(json.loads(text)).protocol.device
'none'
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prism_jax.bench.accuracy import FACTOR, FLOOR_ULPS, Errors, Verdict
from prism_jax.measure.device_time import DeviceTime
from prism_jax.measure.timing import Paired
from prism_jax.verify.again import TIMES

SCHEMA = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the numbers were taken: the same for every row of a run.

    Attributes:
      device: what jax or the operating system calls it.
      platform: `cpu` or `gpu`.
      clocks: clock settings as the driver reports them, where it does.
      reference: what errors are measured against.
      comparison: the statistic and the constants of the accuracy contract.
      inputs: distribution and scale of the arguments.
      seeds: one draw of arguments each; errors are the worst over them, times are of the first.
      precision: `jax_default_matmul_precision`; on a GPU None lets float32 products use TF32.
      timer: which clocks were read.
      l2: whether operands may stay in the cache between calls.
      command_buffers: XLA's setting, the same for every row.
      threads: host threads that searching and compiling could use.
      versions: of everything that makes the numbers.
    """

    device: str
    platform: str
    clocks: str = ""
    reference: str = "the function's own jaxpr in float64, highest matmul precision"
    comparison: str = (
        f"per row of the last axis, largest and rms error; candidate <= {FACTOR:g} x jax.jit's"
        f" + {FLOOR_ULPS:g} ulp of the row's largest value; a row that exceeds it is judged by the"
        f" root mean squares of both errors over {TIMES + 1} inputs of nearly the same size"
    )
    inputs: str = "normal, deviation 1; weights over the root of their fan-in"
    seeds: tuple[int, ...] = (0,)
    precision: str | None = None
    timer: str = (
        "paired host clock, alternating order, medians, bootstrap interval; measured again where"
        " prism seems slower"
    )
    l2: str = "warm"
    command_buffers: str = "XLA's default"
    threads: int = 0
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One row, measured.

    Attributes:
      suite, name, size: the row.
      inputs, outputs: dtype and shape of every array, in order.
      found: what prism made of it, in one line.
      host: jax.jit against prism.jit by the host's clock.
      jit, prism, torch, cudnn: device time of each on an accelerator (the last two where asked
        for: torch.compile's, and cuDNN's attention through torch where the row is attention).
      jit_errors, prism_errors: against the oracle.
      contract: whether prism's outputs satisfy the accuracy contract beside jax.jit's, by how much,
        and how many rows were judged again.
      jit_temp_bytes, prism_temp_bytes: XLA's own report of temporaries, None where it has none.
      jit_peak_bytes, prism_peak_bytes: temporaries as the system sees them (CPU, where asked for).
      first_call_s: seconds of the first call under jax.jit and under prism.jit.
      stages_s: seconds of search, verification, compilation and measuring, as far as reported.
      split_s: the same first call of prism.jit by what it was spent on; the sum is that call.
        `explore`: structure search. `compile`: of candidates, by our compiler and by XLA.
        `measure`, `verify`: of candidates. `xla`: lowering and compiling what runs. `rest`: what
        is imported, traced, ranked, and run.
      regions: per region the plan, the axioms, and every candidate with its bound, estimate,
        measured time and fate.
      target_us: the project's own target for this row on an H100.
      floor_us: what no implementation can beat on this device (`bench.floor`), None where unknown.
      remainder: how far prism's version is from it and where the rest is.
      counters: hardware counters of its kernels (`bench.counters`), where asked for.
      note: why a number is missing, and which stages of ours failed.
    """

    suite: str
    name: str
    size: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    found: str
    host: Paired
    jit: DeviceTime | None = None
    prism: DeviceTime | None = None
    torch: DeviceTime | None = None
    cudnn: DeviceTime | None = None
    jit_errors: Errors | None = None
    prism_errors: Errors | None = None
    contract: Verdict | None = None
    jit_temp_bytes: int | None = None
    prism_temp_bytes: int | None = None
    jit_peak_bytes: int | None = None
    prism_peak_bytes: int | None = None
    first_call_s: tuple[float, float] = (0.0, 0.0)
    stages_s: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    split_s: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    regions: tuple[Mapping[str, Any], ...] = ()
    target_us: float | None = None
    floor_us: float | None = None
    remainder: str = ""
    counters: tuple[Mapping[str, Any], ...] = ()
    note: str = ""

    @property
    def key(self) -> str:
        """What the row is called, as `Workload.key`."""
        return f"{self.name} {self.size}".strip()

    @property
    def broken(self) -> bool:
        """Whether the result is known to break the accuracy contract: it has no speed then."""
        return self.contract is not None and not self.contract.kept

    @property
    def speedup(self) -> float:
        """How many times faster than jax.jit: by kernel time where known, else by the host."""
        if self.jit is not None and self.prism is not None and self.prism.kernel_us > 0:
            return self.jit.kernel_us / self.prism.kernel_us
        return self.host.ratio

    @property
    def slower(self) -> bool:
        """Whether prism is slower than jax.jit beyond noise: the whole interval is below 1."""
        return self.host.high < 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A suite on one device: protocol, records, and the rows that could not be run and why."""

    suite: str
    protocol: Protocol
    records: tuple[Record, ...] = ()
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Plain values only."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Run:
        """The run that `to_json` wrote. Raises ValueError for another schema."""
        if values.get("schema") != SCHEMA:
            raise ValueError(
                f"this is a record of schema {values.get('schema')!r}, and this version reads"
                f" {SCHEMA}: run the benchmark again"
            )
        protocol = dict(values["protocol"])
        protocol["seeds"] = tuple(protocol["seeds"])
        return Run(
            suite=values["suite"],
            protocol=Protocol(**protocol),
            records=tuple(_record(record) for record in values["records"]),
            skipped=dict(values["skipped"]),
        )

    def save(self, path: Path) -> None:
        """Writes the run as JSON that reads well in a diff."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n")

    @staticmethod
    def load(path: Path) -> Run:
        """The run in a file. Raises OSError or ValueError."""
        return Run.from_json(json.loads(path.read_text()))


_NESTED: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "host": lambda values: Paired(**values),
    **dict.fromkeys(("jit", "prism", "torch", "cudnn"), DeviceTime.from_json),
    **dict.fromkeys(("jit_errors", "prism_errors"), lambda values: Errors(**values)),
    "contract": lambda values: Verdict(**values),
}


def _record(values: Mapping[str, Any]) -> Record:
    fields = dict(values)
    for key, kind in _NESTED.items():
        if fields.get(key) is not None:
            fields[key] = kind(fields[key])
    for key in ("inputs", "outputs", "first_call_s", "regions", "counters"):
        fields[key] = tuple(fields.get(key, ()))
    return Record(**fields)
