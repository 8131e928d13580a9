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
      rewrite: gives a closed jaxpr of the same inputs and outputs (or the one it was given). One
        that does not fit (other types or effects, constants where there were none) is not used.
    """
    replaced = {
        place: new
        for place, old in compat.inner_jaxprs(eqn).items()
        if (new := _fitting(old, rewrite(old))) is not old
    }
    if replaced:
        return compat.with_inner_jaxprs(eqn, replaced)
    if eqn.primitive.name in _CUSTOM:
        params: dict[str, Any] = dict(eqn.params)
        old = params["call_jaxpr"]
        new = _fitting(old, rewrite(old))
        if new is not old:
            return eqn.replace(params={**params, "call_jaxpr": new})
    return eqn


def _fitting(old: compat.ClosedJaxpr, new: compat.ClosedJaxpr) -> compat.ClosedJaxpr:
    fits = list(old.in_avals) == list(new.in_avals) and compat.same_types(new, old)
    return new if fits else old
