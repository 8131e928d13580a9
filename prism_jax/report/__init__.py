"""What was found, for people and for programs."""

from prism_jax.report.decision import Decision
from prism_jax.report.log import StageFailure, StageLog
from prism_jax.report.report import Bisection, CandidateRow, RankingRow, RegionReport, Report

__all__ = [
    "Bisection",
    "CandidateRow",
    "Decision",
    "RankingRow",
    "RegionReport",
    "Report",
    "StageFailure",
    "StageLog",
]
