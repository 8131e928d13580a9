"""The cache as a stage of the pipeline: what was decided before, or deciding now and keeping it.

In: a region, the device, settings, and a function that plans the region. Out: a `Decision`.
Invariants: whatever the cache does, no error of it reaches the user: it is noted (logger
`prism_jax`) and the region is planned as if there were no cache; what comes from it has the same
digest, and so the same code, as what was kept; under `tune="never"` nothing is planned.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prism_jax import background, compat, errors, progress
from prism_jax.cache import fleet, plans
from prism_jax.cache.data import ForeignError
from prism_jax.cache.key import BUDGETS, Key, key
from prism_jax.cache.place import store
from prism_jax.cache.store import Store
from prism_jax.launch import Executable, rooms
from prism_jax.launch.assemble import Built, assemble
from prism_jax.options import Options
from prism_jax.report import Decision, RegionReport

Anew = Callable[[Options], Decision]


def remembered(region: Any, device: rooms.Target, options: Options, anew: Anew) -> Decision:
    """What the cache holds for a region; where it holds nothing, what `anew(options)` decides.

    Args:
      region: with a `program`, and its own equations.
      device: what is planned for.
      options: settings; `cache`, `cache_dir`, `trust_cache` and `tune` say what may happen.
      anew: plans the region under the settings it is given.
    """
    start = time.perf_counter()
    fleet_of_many = compat.process_count() > 1
    place = _guarded(lambda: _place(region, device, options, fleet_of_many))
    if place is not None and (found := _guarded(place.recall)) is not None:
        seconds = time.perf_counter() - start
        report = dataclasses.replace(found.report, stages=(("cache", seconds),))
        return dataclasses.replace(found, report=report)
    if options.tune == "never":
        return _missing(region, device)
    visible = options.progress == "auto" and options.tune != "background"

    def decide(settings: Options) -> Decision:
        with progress.showing(region.name, visible):
            decision = anew(settings)
        if place is not None and options.cache == "on" and not fleet_of_many:
            _guarded(functools.partial(place.keep, decision))
        return decision

    if fleet_of_many:
        return decide(options.replace(tune="off"))
    if options.tune == "background":
        return _beside(region, device, options, decide)
    return decide(options)


def _beside(region: Any, device: rooms.Target, options: Options, decide: Anew) -> Decision:
    """What the background job of a region decided, or XLA's version until it has."""
    measured = options.replace(tune="auto")
    key = region.program.digest, options.key(), device.name
    job = background.queue.job(key, lambda: decide(measured))
    if job.done and job.error is None:
        return job.result
    report = RegionReport(region.name, program=str(region.program), refused=("being tuned",))
    if job.error is not None:
        errors.note(f"background: {errors.cause_of(job.error)}; XLA's version stays", job.error)
        return Decision(None, report)
    background.awaited(job)
    return Decision(None, report, lasting=False)


def _guarded(run: Callable[[], Any]) -> Any:
    """The result, or None with a note where the cache itself has a defect."""
    try:
        return run()
    except Exception as error:
        errors.note(f"cache: {errors.cause_of(error)}; going on without it", error)
        return None


def _missing(region: Any, device: rooms.Target) -> Decision:
    program = region.program.digest[:12]
    warning = errors.PlanMissing(where=region.name, program=program, device=device.name)
    errors.warn(warning, ("cache", region.name, program))
    report = RegionReport(
        region.name, program=str(region.program), refused=("the cache has no plan, and tune=never",)
    )
    return Decision(None, report)


def _place(
    region: Any, device: rooms.Target, options: Options, fleet_of_many: bool
) -> _Place | None:
    folder = store(options)
    if folder is None:
        return None
    name = key(region.program.digest, device.identity, options)
    digest = None
    if fleet_of_many:
        digest = (fleet.agreed(folder.folder) or {}).get(name.name)
        if digest is None:
            return None
    return _Place(folder, name, region, device, options, digest)


@dataclass(frozen=True)
class _Place:
    """Where the decision about one region is kept. `digest`: of the bytes that all processes of a
    job agreed on.
    """

    store: Store
    key: Key
    region: Any
    device: rooms.Target
    options: Options
    digest: str | None

    def recall(self) -> Decision | None:
        """The decision that is kept, or None."""
        entry = self.store.read(self.key.name, self.digest)
        if entry is None:
            return None
        try:
            found = plans.kept(entry)
            if self.options.tune != "never" and self._had_less_time(found):
                return None
            return self._decision(found)
        except ForeignError as error:
            self.store.note(self.key.name, f"does not fit: {error}")
            return None

    def _had_less_time(self, found: plans.Kept) -> bool:
        asked = [getattr(self.options, name) for name in BUDGETS]
        return any(had < wanted for had, wanted in zip(found.budgets, asked, strict=True))

    def _decision(self, found: plans.Kept) -> Decision | None:
        report = dataclasses.replace(
            found.report, name=self.region.name, kept=_origin(self.key, found)
        )
        if found.plan is None:
            return Decision(None, report)
        plans.fits(found.plan, self.region.program)
        built = self._built(found.plan, found)
        if isinstance(built, str):
            raise ForeignError(built)
        return Decision(Executable(found.digest, found.plan.backend, built.call), report)

    def _built(self, plan: Any, found: plans.Kept) -> Built | str:
        if self.options.trust_cache == "off":
            return rooms.rebuild(self.region, plan, self.device, self.options)
        try:
            for launch in found.launches:
                if problem := rooms.misfit(launch.binary, self.device):
                    return problem
            return assemble(plan, found.launches, found.sources)
        except (ValueError, NotImplementedError) as error:
            return str(error)

    def keep(self, decision: Decision) -> None:
        """Keeps a decision that would be made again; what failed or could not be judged is not."""
        chosen = decision.chosen
        if decision.failure is None and chosen is not None and chosen.conclusive:
            entry = plans.entry(self.key, self.region.program, decision, self.options)
            self.store.write(self.key.name, entry)


def _origin(key: Key, found: plans.Kept) -> str:
    """Where a plan comes from, for people."""
    day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(max(0.0, min(found.made, 4e9))))
    seconds = ", ".join(f"{stage} {s:.3g} s" for stage, s in found.report.stages)
    return f"entry {key.name[:12]}, made {day} UTC in {seconds}"
