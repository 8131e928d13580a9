"""What was decided for a region, by the stages or by the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prism_jax.report.log import StageFailure
from prism_jax.report.report import RegionReport

if TYPE_CHECKING:
    from prism_jax.launch import Executable


@dataclass(frozen=True)
class Decision:
    """The result of planning a region; `runs` is None where XLA's own version stays.

    `chosen` is what instantiation decided, for the cache to keep. `lasting` is false for an answer
    that only holds until a better one is ready.
    """

    runs: Executable | None
    report: RegionReport
    failure: StageFailure | None = None
    chosen: Any = None
    lasting: bool = True
