"""From a search result to a measured plan: sizes ranked, compiled, timed, checked."""

from prism_jax.instantiate.choose import Judge, Outcome, Tried, choose
from prism_jax.instantiate.plan import Plan, Schedule

__all__ = ["Judge", "Outcome", "Plan", "Schedule", "Tried", "choose"]
