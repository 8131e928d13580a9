"""How the pipeline enters the heavy rooms: what it lends to them, and when it imports what.

In: a region, what the search found for it, a device, options. Out: `instantiate`'s outcome, whose
`function` runs the plan. Compiling, measuring and testing run aside from the function being traced
(a thread of its own), so nothing of theirs is recorded in it. Search, checker and compilers are
imported, and worker processes started, when something has to be found: a plan from the cache needs
none of them. Invariant: the reference that a plan has to beat and the one whose error it may double
are the user's own equations under `jax.jit`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax

from prism_jax import background, compat
from prism_jax import device as devices
from prism_jax.emit.binary import Binary, fits
from prism_jax.options import Options, cache_folder

if TYPE_CHECKING:
    from prism_jax.explore import SearchResult
    from prism_jax.instantiate.plan import Plan
    from prism_jax.ir.sgraph import SGraph
    from prism_jax.launch.assemble import Built
    from prism_jax.measure.pairs import Comparison, Pairs

Function = Callable[..., Sequence[Any]]
background.queue.at_close.append(compat.end_asides)

REBUILD_SECONDS = 60.0
OVERTIME, LEAST_OVERTIME = 1.05, 0.05
"""When tuning is not waited for any longer: this many times its budget, plus seconds."""


@dataclass(frozen=True, eq=False)
class Target:
    """The device that is planned for. Its row is made when it is first asked for: a CPU's is
    measured, which a plan from the cache does not need.

    Attributes:
      name: of the row.
      identity: what makes it the device it is, as JSON types: part of the cache's keys.
      make: gives the row.
      nominal: gives it without measuring, where `make` measures.
    """

    name: str
    identity: Mapping[str, Any]
    make: Callable[[], devices.Device]
    nominal: Callable[[], devices.Device] | None = None

    @functools.cached_property
    def row(self) -> devices.Device:
        """The row of the device table."""
        return self.make()

    def row_for(self, options: Options) -> devices.Device:
        """The row to plan with: under `tune="off"` nothing is measured, and all processes decide
        alike.
        """
        return self.nominal() if self.nominal and options.tune == "off" else self.row


def target(options: Options) -> Target:
    """The device of these settings: the one that jax uses, unless `options.device` names a row."""
    present = compat.device_facts()
    if options.device is None and present["platform"] != "cpu" and present["platform"] in GPUS:
        row = devices.for_gpu(present["kind"], present.get("core_count"))
    elif options.device is None or options.device.upper() == "CPU":
        machine = {"processor": devices.processor(), "cores": devices.cores()}
        store = _row_folder(options, machine)
        make = functools.partial(devices.cpu, store)
        return Target("CPU", {**present, **machine}, make, devices.nominal_cpu)
    else:
        row = devices.row(options.device)
    return Target(row.name, {**present, "row": row.to_json()}, lambda: row)


GPUS = ("gpu", "cuda", "rocm")


def _row_folder(options: Options, machine: Mapping[str, Any]) -> Path | None:
    """Where the row of this kind of machine is kept: machines may share the cache's folder."""
    folder = cache_folder(options)
    if options.cache == "off" or folder is None:
        return None
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()
    place = Path(folder) / "rows" / digest[:16]
    return place if options.cache == "on" or place.is_dir() else None


def explore(program: Any, device: Target, options: Options) -> SearchResult:
    """What the search finds for a program; meanwhile what tuning will need gets ready."""
    from prism_jax.explore import explore as search

    row = device.row_for(options)
    if row.kind == "gpu" and options.tune != "off":
        from prism_jax.emit import compile as toolchain
        from prism_jax.launch.build import Builder
        from prism_jax.measure import worker

        # a core for the search, and one for the device's worker; the others start when needed
        toolchain.prepare(row.compute_capability, max(1, Builder(row).workers - 2))
        worker.prepare()
    return search(program, row, options)


def choose(region: Any, found: SearchResult, device: Target, options: Options) -> Any:
    """The fastest plan for a region that is right, or none (see `instantiate.choose`)."""
    from prism_jax import instantiate
    from prism_jax.launch.build import Builder
    from prism_jax.measure.clock import kernel_clock
    from prism_jax.measure.host import host_clock
    from prism_jax.measure.inputs import random_inputs
    from prism_jax.measure.pairs import Pairs

    program, row, reference = region.program, device.row_for(options), _reference(region)
    preparing: list[Future[Any]] = []

    @functools.cache
    def pairs() -> Pairs:
        return Pairs(reference, random_inputs(program.inputs))

    def prepare(expected_s: float) -> None:
        preparing.append(compat.begin(lambda: pairs().prepare(expected_s)))

    def pair(_: Function, candidate: Function) -> Comparison:
        wait(preparing)
        return pairs().against(candidate)

    def device_clock(
        functions: Sequence[Function], sgraph: SGraph, deadline: float
    ) -> list[float | str]:
        # Nothing is timed while XLA compiles the reference: it may be trying kernels itself.
        wait(preparing, max(0.0, deadline - time.monotonic()))
        return kernel_clock(functions, sgraph, deadline)

    check = functools.partial(_check, region, device.name, options, reference)
    clock = device_clock if row.kind == "gpu" else host_clock
    judge = instantiate.Judge(clock, pair, check, prepare)
    builder = cast(Any, Builder(row))
    choice = instantiate.Choice(program, found, row, options, builder, reference, judge)
    if options.tune == "off":
        return compat.aside(choice.run)
    background.queue.at_close.append(choice.stop)
    try:
        return compat.aside(choice.run, options.tune_seconds * OVERTIME + LEAST_OVERTIME)
    except TimeoutError:  # XLA's compiler cannot be interrupted: it is left to end alone
        return choice.outcome()
    finally:
        choice.stop()
        background.queue.at_close.remove(choice.stop)


def misfit(binary: Binary, device: Target) -> str | None:
    """Why a compiled kernel must not run on the device, or None."""
    return fits(binary, device.row)


def rebuild(region: Any, plan: Plan, device: Target, options: Options) -> Built | str:
    """A plan that nobody vouches for, compiled, proved and tested again; or why it is refused."""
    from prism_jax.launch.build import Builder

    def run() -> Built | str:
        deadline = time.monotonic() + REBUILD_SECONDS
        [built] = Builder(device.row).functions([plan], deadline)
        if isinstance(built, str):
            return built
        reference = _reference(region)
        accepted, _, reason, _ = _check(region, device.name, options, reference, plan, built)
        return built if accepted else reason

    return compat.aside(run)


def _reference(region: Any) -> Function:
    def reference(*args: Any) -> list[Any]:
        return compat.evaluate(region.jaxpr, *args)

    return reference


def _check(
    region: Any, device: str, options: Options, reference: Function, plan: Plan, function: Function
) -> tuple[bool, float, str, object]:
    """Whether a plan passes the checker. `jax.jit` compiles one function only once, whoever asks:
    `reference` and `function` are those that were timed.
    """
    from prism_jax import verify

    evidence = verify.verify(
        region.program,
        plan.sgraph,
        plan.numbers,
        jax.jit(reference),
        jax.jit(function),
        accuracy=options.accuracy,
        device=device,
        fast=_fast,
    )
    return evidence.accepted, evidence.worst, evidence.reason, evidence


def _fast(program: Any, samples: Any) -> Any:
    """The contract's oracle where numpy takes long: by XLA, if jax's device is a GPU."""
    from prism_jax.verify import on_device

    return on_device.on_gpu(program, samples, _plain)


def _plain(program: Any) -> Function:
    from prism_jax.emit import jnp as plain

    return plain.emit(program).call
