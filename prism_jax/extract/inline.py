"""Nested `jit` calls replaced by their bodies, so that regions form across them.

In: a closed jaxpr. Out: a closed jaxpr of the same inputs, outputs and values. Calls that ask for
shardings, layouts, compiler options or effects stay, and so do all calls with rules of their own
(`custom_jvp_call`, `custom_vjp_call`, `checkpoint`). Equations keep the name of the call in their
name stack, for profilers.

>>> import jax
>>> closed = jax.make_jaxpr(lambda x: jax.nn.silu(x) + jax.nn.silu(-x))(1.0)
>>> [eqn.primitive.name for eqn in inline(closed).jaxpr.eqns]
['logistic', 'mul', 'neg', 'logistic', 'mul', 'add']
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prism_jax import compat
from prism_jax.extract.flat import body_of, open_jaxpr


def inline(closed: compat.ClosedJaxpr) -> compat.ClosedJaxpr:
    """The closed jaxpr without nested jits; the very same one where it has none.

    Its outputs are the same variables: a call that returns one of its own arguments, or a number,
    as an output of the whole stays.
    """
    jaxpr = closed.jaxpr
    kept: set[compat.Var] = set()
    while True:
        if not any(_body(eqn, kept) for eqn in jaxpr.eqns):
            return closed
        env: dict[compat.Var, Any] = {}
        eqns: list[compat.JaxprEqn] = []
        _append(jaxpr.eqns, env, eqns, (), {}, kept)
        lost = {var for var in jaxpr.outvars if not _literal(var) and _read(env, var) is not var}
        if not lost:
            return compat.with_equations(closed, eqns, jaxpr.outvars)
        kept |= lost


def _body(eqn: compat.JaxprEqn, kept: set[compat.Var]) -> Any | None:
    """The body to put in the place of an equation, or None."""
    if eqn.primitive.name not in ("jit", "pjit") or not kept.isdisjoint(eqn.outvars):
        return None
    params = eqn.params
    if any(params.get("compiler_options_kvs", ())) or not getattr(
        params.get("ctx_mesh"), "empty", True
    ):
        return None
    body = body_of(eqn)
    return None if body is None or open_jaxpr(body)[1] else body


def _append(
    equations: Sequence[compat.JaxprEqn],
    env: dict[compat.Var, Any],
    eqns: list[compat.JaxprEqn],
    path: tuple[compat.JaxprEqn, ...],
    names: Mapping[compat.Var, compat.Var],
    kept: set[compat.Var],
) -> None:
    """Appends equations with their variables replaced by `env`.

    `path`: the calls around them; `names`: the outer variables to give to some of their outputs.
    """
    for eqn in equations:
        body = _body(eqn, kept)
        if body is None:
            eqns.append(_renamed(eqn, env, path, names))
            continue
        inner, _ = open_jaxpr(body)
        below = dict(zip(inner.invars, (_read(env, v) for v in eqn.invars), strict=True))
        given: dict[compat.Var, compat.Var] = {}
        for outside, inside in zip(eqn.outvars, inner.outvars, strict=True):
            name = names.get(outside) if path else outside
            if name is not None and not _literal(inside):
                given.setdefault(inside, name)
        _append(inner.eqns, below, eqns, (*path, eqn), given, kept)
        for outside, inside in zip(eqn.outvars, inner.outvars, strict=True):
            found = _read(below, inside)
            if found is not outside:
                env[outside] = found


def _read(env: Mapping[compat.Var, Any], atom: Any) -> Any:
    return atom if _literal(atom) else env.get(atom, atom)


def _renamed(
    eqn: compat.JaxprEqn,
    env: dict[compat.Var, Any],
    path: tuple[compat.JaxprEqn, ...],
    names: Mapping[compat.Var, compat.Var],
) -> compat.JaxprEqn:
    if not path and env.keys().isdisjoint(v for v in eqn.invars if not _literal(v)):
        return eqn
    invars = [_read(env, v) for v in eqn.invars]
    if not path:
        return eqn.replace(invars=invars)
    outvars = [names.get(v) or compat.Var(v.aval) for v in eqn.outvars]
    env.update(zip(eqn.outvars, outvars, strict=True))
    return compat.renamed(eqn, invars, outvars, path)


def _literal(atom: Any) -> bool:
    return isinstance(atom, compat.Literal)
