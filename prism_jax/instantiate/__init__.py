"""From a search result to a measured plan: sizes ranked, compiled, timed, checked.

A plan is a value that launchers and caches need alone, so what makes plans is imported when it is
first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prism_jax.instantiate.plan import Plan, Schedule

if TYPE_CHECKING:
    from prism_jax.instantiate.choice import Choice, Judge, Outcome, Tried, choose

__all__ = ["Choice", "Judge", "Outcome", "Plan", "Schedule", "Tried", "choose"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from prism_jax.instantiate import choice

        return getattr(choice, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
