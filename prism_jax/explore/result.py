"""What a search returns: ranked sGraphs, what was counted on the way, why it stopped, and what is
proved about the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import SGraph


@dataclass(frozen=True)
class Candidate:
    """One sGraph with the model's view of it.

    `bound` (seconds) holds for every instance; `estimate` is what ranks; `sizes` gives the
    estimate's numbers; `axioms` are the rules that made the form; `why` describes the structure in
    words. The sGraph and the form are made when they are first asked for.
    """

    make: Callable[[], tuple[SGraph, Program]] = field(repr=False, compare=False)
    bound: float
    estimate: float
    sizes: tuple[tuple[str, int], ...]
    axioms: tuple[str, ...]
    why: str
    kernels: int
    """Launches of kernels of ours."""

    @cached_property
    def _made(self) -> tuple[SGraph, Program]:
        return self.make()

    @property
    def sgraph(self) -> SGraph:
        """The structure."""
        return self._made[0]

    @property
    def form(self) -> Program:
        """The equivalent program that the structure computes."""
        return self._made[1]


@dataclass(frozen=True)
class Certificate:
    """What is known of everything that was not chosen.

    `floor`: seconds that no implementation of the program can beat (it must read its inputs and
    write its outputs once). `best_bound`: the lowest bound, by terms proved to be lower bounds
    only, of anything in `scope` that was not chosen, be it a candidate, a cut branch or what was
    not looked at. `gap`: the chosen plan's time over that bound, at least 1; `floor_gap`: over
    `floor`. `complete`: everything in scope was considered or cut; `saturated`: the e-graph holds
    every form that its rules can make. `heuristic_cuts`: cuts that prove nothing, since they
    compare with a value of the model or follow a limit; `incumbent` says what kind of time the
    bounds were compared with.
    """

    scope: str
    complete: bool
    floor: float
    best_bound: float
    heuristic_cuts: int
    saturated: bool = True
    incumbent: Literal["model", "measured"] = "model"
    gap: float = math.inf
    floor_gap: float = math.inf

    def __str__(self) -> str:
        state = "complete" if self.complete else "not complete"
        rules = "saturated" if self.saturated else "not saturated"
        return (
            f"{self.scope}: {state}, {rules}; floor {self.floor * 1e6:.2f} us, best bound of the "
            f"rest {self.best_bound * 1e6:.2f} us; the plan is within {self.gap:.2f}x of it and "
            f"{self.floor_gap:.2f}x of the floor; {self.heuristic_cuts} cuts against a "
            f"{self.incumbent} value or by a limit"
        )


@dataclass(frozen=True)
class SearchResult:
    """`candidates`: best estimate first; the user's own program by XLA is always among them
    (`Candidate.why == "XLA"`). `family`: the search that this is an instance of, and whether it was
    there before.
    """

    candidates: tuple[Candidate, ...]
    stop: str
    statistics: Mapping[str, int]
    prove: Callable[[], Certificate] = field(repr=False, compare=False)
    seconds: float
    saturation: Mapping[str, object] = field(default_factory=dict[str, object])
    reused: bool = False

    @cached_property
    def certificate(self) -> Certificate:
        """What is proved about everything else; found when it is first asked for."""
        return self.prove()

    @property
    def sgraphs(self) -> tuple[SGraph, ...]:
        """The ranked sGraphs."""
        return tuple(candidate.sgraph for candidate in self.candidates)

    def __str__(self) -> str:
        rows = [
            f"search stopped: {self.stop}, {self.seconds:.3f} s; "
            + ", ".join(f"{k} {v}" for k, v in self.statistics.items())
        ]
        rows.append(str(self.certificate))
        for n, c in enumerate(self.candidates):
            sizes = " ".join(f"{s}={v}" for s, v in c.sizes)
            rows.append(
                f"{n:3d}. {c.estimate * 1e6:9.2f} us (bound {c.bound * 1e6:.2f})  "
                f"{c.kernels} kernels: {c.why}  {sizes}"
            )
        return "\n".join(rows)
