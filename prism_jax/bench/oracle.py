"""A function in float64, from its jaxpr alone: the reference that errors are measured against.

In: a function and arguments of any floating dtype. Out: what the same equations give when every
floating value is float64, so that a cast between floating types is the identity and products run at
full precision. Shares no code with our own IR or search.

Invariant: integers, booleans and the control flow they decide are exactly those of the program.

>>> import jax.numpy as jnp
>>> third = lambda x: (x / 3).astype(jnp.float16)
>>> float(evaluate(third, jnp.ones((), jnp.float16)))
0.3333333333333333
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from prism_jax.bench import accuracy


class NoOracleError(Exception):
    """The program has an equation that cannot be evaluated in float64; the message names it."""


def evaluate(function: Callable[..., Any], *arguments: Any) -> Any:
    """The outputs of `function(*arguments)` in float64, as numpy arrays in the function's own tree.

    Raises:
      NoOracleError: the program has a loop or a call whose body is not a plain jaxpr.
    """
    return float64(function, *arguments)(*arguments)


def float64(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """`function` in float64, for arguments like these: compiled once, however often it is called.

    Raises, when it is called, what `evaluate` raises.
    """
    closed, tree = jax.make_jaxpr(function, return_shape=True)(*arguments)
    constants = [np.asarray(constant) for constant in closed.consts]
    structure = jax.tree.structure(tree)

    # One jit: XLA frees what is dead and fuses, so that a broadcast of gigabytes need not exist.
    @jax.jit
    def run(constants: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
        return _walk(closed.jaxpr, constants, leaves)

    def call(*arguments: Any) -> Any:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(arguments)]
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            outputs = run([_widen(c) for c in constants], [_widen(leaf) for leaf in leaves])
            return jax.tree.unflatten(structure, [np.asarray(o) for o in outputs])

    return call


def _widen(value: Any) -> Any:
    if accuracy.is_float(value):
        return jnp.asarray(np.asarray(value), jnp.float64)
    return jnp.asarray(value)


def _walk(jaxpr: jex.Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Evaluates the equations in order with floating values widened."""
    values: dict[jex.Var, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return _widen(atom.val) if isinstance(atom, jex.Literal) else values[atom]

    for equation in jaxpr.eqns:
        results = _equation(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(equation: jex.JaxprEqn, inputs: list[Any]) -> list[Any]:
    name, parameters = equation.primitive.name, equation.params
    if name == "convert_element_type" and _is_floating(parameters["new_dtype"]):
        return [jnp.asarray(inputs[0], jnp.float64)]
    if name == "cond":
        branches = [_closed(branch) for branch in parameters["branches"]]
        index, *operands = inputs
        return list(jax.lax.switch(index, branches, *operands))
    if name == "scan":
        return _scan(parameters, inputs)
    if name == "while":
        return _while(parameters, inputs)
    body = next((parameters[key] for key in _BODIES if key in parameters), None)
    if body is not None:
        return list(_closed(body)(*inputs))
    if any(_is_jaxpr(value) for value in parameters.values()):
        raise NoOracleError(f"`{name}` has a body that the float64 reference does not evaluate")
    widened = {key: _parameter(value) for key, value in parameters.items()}
    results = equation.primitive.bind(*inputs, **widened)
    return list(results) if equation.primitive.multiple_results else [results]


#: Where calls keep the body that computes their value: `jit`, `remat`, and the custom rules.
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def _closed(body: Any) -> Callable[..., tuple[Any, ...]]:
    jaxpr, constants = (
        (body.jaxpr, [_widen(c) for c in body.consts]) if hasattr(body, "jaxpr") else (body, [])
    )
    return lambda *arguments: tuple(_walk(jaxpr, constants, arguments))


def _scan(parameters: dict[str, Any], inputs: list[Any]) -> list[Any]:
    if "num_consts" in parameters:
        constants, carried = parameters["num_consts"], parameters["num_carry"]
    else:  # jax 0.11 keeps the arguments' structure instead of their numbers
        constants, carried, _ = (len(part) for part in parameters["ft_in"].unpack())
    body = _closed(parameters["jaxpr"])
    fixed, carry = inputs[:constants], inputs[constants : constants + carried]

    def step(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = body(*fixed, *carry, *row)
        return list(outputs[:carried]), list(outputs[carried:])

    last, stacked = jax.lax.scan(
        step,
        carry,
        inputs[constants + carried :],
        length=parameters["length"],
        reverse=parameters["reverse"],
    )
    return [*last, *stacked]


def _while(parameters: dict[str, Any], inputs: list[Any]) -> list[Any]:
    first, second = parameters["cond_nconsts"], parameters["body_nconsts"]
    condition, body = _closed(parameters["cond_jaxpr"]), _closed(parameters["body_jaxpr"])
    condition_constants, body_constants = inputs[:first], inputs[first : first + second]
    return list(
        jax.lax.while_loop(
            lambda carry: condition(*condition_constants, *carry)[0],
            lambda carry: list(body(*body_constants, *carry)),
            inputs[first + second :],
        )
    )


def _parameter(value: Any) -> Any:
    """An equation's parameter with floating dtypes widened, and reduced precision undone."""
    if isinstance(value, np.dtype | type) and _is_floating(value):
        return np.dtype(np.float64)
    return value


def _is_floating(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, jex.Jaxpr | jex.ClosedJaxpr)
