"""What a search returns: ranked sGraphs, what was counted on the way, why it stopped, and what is
proved about the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import SGraph


@dataclass(frozen=True)
class Candidate:
    """One sGraph with the model's view of it.

    `bound` (seconds) holds for every instance; `estimate` is what ranks; `sizes` gives the
    estimate's numbers; `axioms` are the rules that made the form; `why` describes the structure in
    words.
    """

    sgraph: SGraph
    form: Program
    bound: float
    estimate: float
    sizes: tuple[tuple[str, int], ...]
    axioms: tuple[str, ...]
    why: str

    @property
    def kernels(self) -> int:
        """Launches of kernels of ours."""
        return len(self.sgraph.kernels)


@dataclass(frozen=True)
class Certificate:
    """What is known of everything that was not chosen.

    `floor`: seconds that no implementation of the program can beat (it must read its inputs and
    write its outputs once). `best_bound`: the lowest bound among candidates and cut branches.
    `heuristic_cuts`: cuts against a model value, which prove nothing; where there are none and
    `complete`, `best_bound` bounds the whole space of `scope`.
    """

    scope: str
    complete: bool
    floor: float
    best_bound: float
    heuristic_cuts: int


@dataclass(frozen=True)
class SearchResult:
    """`candidates`: best estimate first; the user's own program by XLA is always among them
    (`Candidate.why == "XLA"`).
    """

    candidates: tuple[Candidate, ...]
    stop: str
    statistics: Mapping[str, int]
    certificate: Certificate
    seconds: float
    saturation: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def sgraphs(self) -> tuple[SGraph, ...]:
        """The ranked sGraphs."""
        return tuple(candidate.sgraph for candidate in self.candidates)

    def __str__(self) -> str:
        rows = [
            f"search stopped: {self.stop}, {self.seconds:.3f} s; "
            + ", ".join(f"{k} {v}" for k, v in self.statistics.items())
        ]
        rows.append(
            f"floor {self.certificate.floor * 1e6:.2f} us, "
            f"best bound {self.certificate.best_bound * 1e6:.2f} us"
        )
        for n, c in enumerate(self.candidates):
            sizes = " ".join(f"{s}={v}" for s, v in c.sizes)
            rows.append(
                f"{n:3d}. {c.estimate * 1e6:9.2f} us (bound {c.bound * 1e6:.2f})  "
                f"{c.kernels} kernels: {c.why}  {sizes}"
            )
        return "\n".join(rows)
