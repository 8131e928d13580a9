"""The one exception of this folder: a sentence saying which equation cannot be lifted, and why."""

from __future__ import annotations


class NotLiftable(Exception):  # noqa: N818 - the name says what the caller asks about
    """A jaxpr, or one of its equations, has no program. The text names the primitive and the reason.

    A refusal is a note and not a failure: the equations run exactly as jax would run them.
    """
