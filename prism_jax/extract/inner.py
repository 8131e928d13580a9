"""Equations with inner jaxprs (`scan`, `cond`, nested `jit`, ...) rebuilt over rewritten bodies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prism_jax import compat

_CUSTOM = ("custom_jvp_call", "custom_vjp_call")


def rewrite_subjaxprs(
    eqn: compat.JaxprEqn, rewrite: Callable[[compat.ClosedJaxpr], compat.ClosedJaxpr]
) -> compat.JaxprEqn:
    """The same equation over rewritten bodies; the equation itself where no body changes.

    Args:
      eqn: any equation. Bodies of `scan`, `while`, `cond`, nested `jit` and `checkpoint` are
        rewritten, and the body of `custom_jvp_call` and `custom_vjp_call`, whose rules stay.
      rewrite: gives a closed jaxpr of the same inputs and outputs (or the one it was given). It
        may close over constants only where the one it was given does.

    Raises:
      TypeError: a rewritten body has other types.
    """
    replaced = {
        place: new
        for place, old in compat.inner_jaxprs(eqn).items()
        if (new := _checked(eqn, old, rewrite(old))) is not old
    }
    if replaced:
        return compat.with_inner_jaxprs(eqn, replaced)
    if eqn.primitive.name in _CUSTOM:
        params: dict[str, Any] = dict(eqn.params)
        old = params["call_jaxpr"]
        new = _checked(eqn, old, rewrite(old))
        if new is not old:
            return eqn.replace(params={**params, "call_jaxpr": new})
    return eqn


def _checked(
    eqn: compat.JaxprEqn, old: compat.ClosedJaxpr, new: compat.ClosedJaxpr
) -> compat.ClosedJaxpr:
    if new is old:
        return old
    for what, before, after in (
        ("inputs", old.in_avals, new.in_avals),
        ("outputs", old.out_avals, new.out_avals),
    ):
        if [str(aval) for aval in before] != [str(aval) for aval in after]:
            name = eqn.primitive.name
            raise TypeError(f"the rewritten body of {name} has {what} {after}, not {before}")
    if compat.constants(new) and not compat.constants(old):
        return old  # an open body has no place for constants
    return new
