"""What tuning measured, kept: the closed form's ranking is judged by it, and its constants fitted
to it, where there is no device.

In: a benchmark run on a GPU. Out: a JSON file of kernels, each with the sizes and schedules that
were tried and the seconds they took; and what a ranking makes of such a file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_jax import device
from prism_jax.instantiate import tune
from prism_jax.instantiate.plan import Plan
from prism_jax.instantiate.plan_text import parse_plan, print_plan
from prism_jax.instantiate.quality import Quality, Summary, judge, summarise
from prism_jax.instantiate.rank import Ranking
from prism_jax.ir.sgraph import Kernel

__all__ = ["Tries", "judged", "load"]

SCHEMA = 2
GRAPH = "\nsgraph "
"""What separates a plan's numbers from its structure."""


@dataclass
class Tries:
    """Measured tries: of each kernel, by the row that it was tuned for and the kernel's digest."""

    row: str = ""
    found: dict[tuple[str, str], list[tuple[Plan, float]]] = field(
        default_factory=dict[tuple[str, str], list[tuple[Plan, float]]]
    )

    def add(self, plan: Plan, seconds: float) -> None:
        """One try, for the row that is being measured."""
        self.found.setdefault((self.row, plan.sgraph.digest), []).append((plan, seconds))

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Everything that is measured in the context is added."""
        tune.watchers.append(self.add)
        try:
            yield
        finally:
            tune.watchers.remove(self.add)

    def save(self, path: Path) -> None:
        """Writes the file: each kernel once, with the numbers of each of its tries."""
        kernels: list[dict[str, Any]] = []
        for (row, _), tries in self.found.items():
            texts = [print_plan(plan).partition(GRAPH) for plan, _ in tries]
            measured = [
                [numbers, round(seconds * 1e6, 4)]
                for (numbers, _, _), (_, seconds) in zip(texts, tries, strict=True)
            ]
            kernels.append({"row": row, "sgraph": texts[0][2], "tries": measured})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schema": SCHEMA, "kernels": kernels}, indent=1) + "\n")


def load(path: Path) -> Tries:
    """The tries that `Tries.save` wrote. Raises ValueError for another file."""
    found = Tries()
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']} is not {SCHEMA}")
        for kernel in data["kernels"]:
            found.row, graph = str(kernel["row"]), str(kernel["sgraph"])
            for numbers, microseconds in kernel["tries"]:
                found.add(parse_plan(f"{numbers}{GRAPH}{graph}"), float(microseconds) * 1e-6)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no tries: {error}") from error
    return found


def judged(tries: Tries) -> tuple[dict[str, tuple[Quality, ...]], Summary | None]:
    """What the ranking of today makes of the tries: of each row's kernels, and of all."""
    rows: dict[str, list[tuple[str, Any, Any, float, float]]] = {}
    for (row, digest), measured in tries.found.items():
        first, _ = measured[0]
        [kernel] = first.sgraph.nodes
        assert isinstance(kernel, Kernel)
        ranking = Ranking(kernel, device.row(first.device), {})
        known = [(plan, seconds, _estimate(ranking, plan)) for plan, seconds in measured]
        rows.setdefault(row, []).extend(
            (f"{kernel.name} {digest[:6]}", plan.sizes, plan.schedules[0], estimate, seconds)
            for plan, seconds, estimate in known
            if estimate is not None
        )
    found = {row: judge(made) for row, made in rows.items()}
    return found, summarise(found.values())


def _estimate(ranking: Ranking, plan: Plan) -> float | None:
    """Seconds that the ranking expects of a try; None where it holds that it does not run."""
    numbers, schedule = plan.numbers, plan.schedules[0]
    sizes = tuple((symbol, numbers[symbol]) for symbol in sorted(ranking.kernel.symbols))
    if sizes not in ranking.rows:
        return None
    return ranking.shapes(sizes).get((schedule.num_warps, schedule.num_stages))
