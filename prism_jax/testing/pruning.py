"""What each limit of the search costs: a corpus of programs searched with it and without any.

In: how many programs. Out: for every limit in `explore.Pruning`, how often the cheapest plan was
lost to it and by how much, and what it saved. The corpus is drawn by Hypothesis, the same on every
run: small graphs, but axes of real sizes, since between axes of four elements nothing is worth a
kernel boundary. `python -m prism_jax.testing.pruning --json FILE` writes the record;
`kernels/search/pruning.json` is the committed one.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from prism_jax import device
from prism_jax.explore import SearchResult, search
from prism_jax.explore.pruning import DEFAULT, NONE, Pruning
from prism_jax.explore.search import Form
from prism_jax.ir.nodes import Reduce
from prism_jax.ir.program import Program
from prism_jax.testing.programs import programs

__all__ = ["LIMITS", "SOUND", "Loss", "corpus", "losses"]

LARGEST, DEPTH, OUTPUTS = 2048, 6, 3
MOST_REDUCTIONS = 8
"""All sets of more reductions than this are too many to search one by one."""

SOUND = replace(NONE, worth=1.0, options=DEFAULT.options, keep=DEFAULT.keep)
"""Every limit that is claimed never to lose the cheapest plan."""

LIMITS: Mapping[str, Pruning] = {
    "none": NONE,
    "sound: worth 1, options, keep": SOUND,
    f"sound: worth {DEFAULT.worth}": replace(NONE, worth=DEFAULT.worth),
    f"heuristic: mappings {DEFAULT.mappings}": replace(NONE, mappings=DEFAULT.mappings),
    "heuristic: mappings 2": replace(NONE, mappings=2),
    f"heuristic: exhaustive_up_to {DEFAULT.exhaustive_up_to}": replace(
        NONE, exhaustive_up_to=DEFAULT.exhaustive_up_to
    ),
    "heuristic: exhaustive_up_to 0": replace(NONE, exhaustive_up_to=0),
    f"heuristic: climb {DEFAULT.climb}, exhaustive_up_to 0": replace(
        NONE, exhaustive_up_to=0, climb=DEFAULT.climb
    ),
    "default": DEFAULT,
}
"""What is measured. Some limits are measured at a tighter value too: at their own they seldom bind
on programs as small as these.
"""


@dataclass(frozen=True)
class Loss:
    """One limit over a corpus. `lost`: programs whose cheapest plan is dearer than without any
    limit; `mean` (geometric) and `worst`: how many times dearer; `partitions`, `kernels`: what was
    looked into, all programs together; `cut`: counted cuts; `seconds`: processor time.
    """

    limit: str
    programs: int
    lost: int
    mean: float
    worst: float
    partitions: int
    kernels: int
    cut: int
    seconds: float


def corpus(count: int) -> list[Program]:
    """The first `count` different programs with a reduction that Hypothesis draws."""
    found: dict[str, Program] = {}

    @settings(
        max_examples=8 * count, derandomize=True, database=None, deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(programs(largest=LARGEST, depth=DEPTH, outputs=OUTPUTS))
    def draw(program: Program) -> None:
        reductions = sum(isinstance(node, Reduce) for node in program.nodes)
        if len(found) < count and 0 < reductions <= MOST_REDUCTIONS:
            found.setdefault(program.digest, program)

    draw()
    if len(found) < count:
        raise ValueError(f"only {len(found)} of {count} programs were drawn")
    return list(found.values())


def found_with(program: Program, limit: Pruning) -> SearchResult:
    """The program's own form searched for the H100 as long as it takes."""
    return search(program, [Form(program)], device.row("H100"), math.inf, pruning=limit)


def losses(drawn: Sequence[Program], limits: Mapping[str, Pruning] = LIMITS) -> list[Loss]:
    """What each limit loses and saves, the first being what the others are compared with."""
    cheapest: list[float] = []
    rows: list[Loss] = []
    for name, limit in limits.items():
        start = time.process_time()
        results = [found_with(program, limit) for program in drawn]
        seconds = time.process_time() - start
        times = [result.candidates[0].estimate for result in results]
        cheapest = cheapest or times
        ratios = [mine / best for mine, best in zip(times, cheapest, strict=True)]
        counts = [result.statistics for result in results]
        rows.append(
            Loss(
                limit=name,
                programs=len(ratios),
                lost=sum(ratio > 1.0 for ratio in ratios),
                mean=math.exp(sum(map(math.log, ratios)) / len(ratios)),
                worst=max(ratios),
                partitions=sum(c["partitions"] for c in counts),
                kernels=sum(c["kernels"] for c in counts),
                cut=sum(n for c in counts for key, n in c.items() if key.startswith("cut_by")),
                seconds=round(seconds, 2),
            )
        )
    return rows


def render(rows: Sequence[Loss]) -> str:
    """The rows as a table."""
    head = ("limit", "programs", "lost", "mean", "worst", "partitions", "kernels", "cut", "seconds")
    lines = [f"{head[0]:<34}" + "".join(f"{word:>11}" for word in head[1:])]
    for row in rows:
        numbers = (row.programs, row.lost, f"{row.mean:.4f}", f"{row.worst:.3f}")
        more = (row.partitions, row.kernels, row.cut, f"{row.seconds:.1f}")
        lines.append(f"{row.limit:<34}" + "".join(f"{value:>11}" for value in (*numbers, *more)))
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and stores."""
    words = argparse.ArgumentParser(prog="python -m prism_jax.testing.pruning")
    words.add_argument("--programs", type=int, default=240, help="how many (240)")
    words.add_argument("--json", type=Path, metavar="FILE", help="store the record here")
    asked = words.parse_args(arguments)
    rows = losses(corpus(asked.programs))
    print(render(rows))
    if asked.json:
        value = {"largest": LARGEST, "depth": DEPTH, "limits": [asdict(row) for row in rows]}
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(value, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
