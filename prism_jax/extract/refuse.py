"""The one exception of this folder: a sentence saying which equation cannot be lifted, and why."""

from __future__ import annotations


class NotLiftable(Exception):
    """A jaxpr, or one of its equations, has no program; the text names primitive and reason.

    A refusal is a note and not a failure: the equations run exactly as jax would run them.
    """
