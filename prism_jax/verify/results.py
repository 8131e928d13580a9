"""What a run of the accuracy contract says: a line for every draw, and the protocol.

>>> line = DrawResult("normal x 1 (seed 0)", True, 0.5, 1e-7, 1e-7, 1e-8, "y")
>>> result = ContractResult(True, 0.5, (line,), (("accuracy", "2.0"),))
>>> ContractResult.from_json(result.to_json()) == result, result.counting
(True, 1)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class DrawResult:
    """One line of the table: the worst output and row of one draw. `ratio` above 1 is a failure."""

    draw: str
    counts: bool
    ratio: float
    error: float
    reference_error: float
    floor: float
    output: str
    lucky_rows: int = 0
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the contract holds on this draw."""
        return not self.reason

    def __str__(self) -> str:
        line = (
            f"{self.draw:<28} {'counts' if self.counts else 'aside '} "
            f"{self.ratio:>9.3g} of the allowance  error {self.error:.3g}, "
            f"jit's {self.reference_error:.3g}, floor {self.floor:.3g}"
        )
        return f"{line}  FAILS: {self.reason}" if self.reason else line


@dataclass(frozen=True)
class ContractResult:
    """Whether the contract holds; `worst` is the largest share of the allowance used."""

    passed: bool
    worst: float
    table: tuple[DrawResult, ...]
    protocol: tuple[tuple[str, str], ...]
    reason: str = ""

    @property
    def counting(self) -> int:
        """How many draws count."""
        return counting(self.table)

    @property
    def power(self) -> float:
        """The share of draws on which the planted mutant is noticed; the others do not count."""
        return float(dict(self.protocol).get("mutant_caught", "0"))

    def __str__(self) -> str:
        head = (
            f"accuracy contract: {'holds' if self.passed else 'BROKEN'}, "
            f"worst {self.worst:.3g} of the allowance, "
            f"{self.counting} of {len(self.table)} draws count"
        )
        return "\n".join(
            [head + (f"; {self.reason}" if self.reason else ""), *map(str, self.table)]
        )

    def to_json(self) -> str:
        """A text from which `from_json` makes an equal value."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> ContractResult:
        """The value that `to_json` wrote."""
        data = json.loads(text)
        table = tuple(DrawResult(**d) for d in data["table"])
        protocol = tuple((str(a), str(b)) for a, b in data["protocol"])
        return ContractResult(data["passed"], data["worst"], table, protocol, data["reason"])


def counting(table: Iterable[DrawResult]) -> int:
    """How many draws count."""
    return sum(d.counts for d in table)
