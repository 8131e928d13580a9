"""`assert_equivalent`: two functions agree under the accuracy contract (design, section 8).

The first function is the reference. Its float64 meaning is the oracle: the program it lifts to
where it can be lifted, else itself run with float64 arguments. The second may err `accuracy` times
as much as the first, plus a few units in the last place; NaN and infinities stand in the same
places; structure, shapes and dtypes are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import currently_in_test_context, given, note, settings
from hypothesis import strategies as st

from prism_jax.extract import NotLiftable, lift
from prism_jax.ir.nodes import FLOATS
from prism_jax.ir.program import Program
from prism_jax.ir.text import print_program
from prism_jax.verify import contract, sample
from prism_jax.verify.draws import Draw
from prism_jax.verify.measure import rows


def assert_equivalent(
    f: Callable[..., Any],
    g: Callable[..., Any],
    *args: Any,
    accuracy: float = 2.0,
    max_examples: int | None = None,
) -> None:
    """Asserts that `g` may stand for `f`.

    With arrays (or pytrees of them) as arguments, both are called with them. With Hypothesis
    strategies (at least one), both are called with what the strategies draw, and a failure is
    shrunk to a small example.

    Args:
        f: the reference, a function of arrays.
        g: the candidate, for instance `prism.jit(f)`.
        *args: arguments, or strategies for them.
        accuracy: how many times the reference's error the candidate may make.
        max_examples: how many examples strategies draw; None: as Hypothesis's profile says.

    Raises:
        AssertionError: they differ; says where, by how much, and shows the program where there is
        one.

    >>> import jax.numpy as jnp
    >>> x = np.linspace(-1, 1, 8, dtype=np.float32)
    >>> assert_equivalent(lambda x: jnp.exp(x) * jnp.exp(-2 * x), lambda x: jnp.exp(-x), x)
    >>> assert_equivalent(jnp.exp, lambda x: 1 + x, x)
    Traceback (most recent call last):
        ...
    AssertionError: output 0 differs: largest error 0.718 in row 0 is ...
    """
    if not any(isinstance(a, st.SearchStrategy) for a in args):
        _compare(f, g, args, accuracy)
        return
    drawn = st.tuples(*(a if isinstance(a, st.SearchStrategy) else st.just(a) for a in args))

    def test(values: tuple[Any, ...]) -> None:
        _compare(f, g, values, accuracy)

    # No deadline: the first call of a jitted function compiles.
    count = settings().max_examples if max_examples is None else max_examples
    settings(max_examples=count, deadline=None)(given(drawn)(test))()


def _compare(
    f: Callable[..., Any], g: Callable[..., Any], args: tuple[Any, ...], accuracy: float
) -> None:
    leaves, tree = jax.tree.flatten(args)
    leaves = [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in leaves]
    args = jax.tree.unflatten(tree, leaves)
    reference, structure = jax.tree.flatten(f(*args))
    candidate, other = jax.tree.flatten(g(*args))
    assert structure == other, f"the outputs are {other}, not {structure}"
    r, c = [np.asarray(x) for x in reference], [np.asarray(x) for x in candidate]
    for n, (a, b) in enumerate(zip(r, c, strict=True)):
        same = a.shape == b.shape and a.dtype == b.dtype
        assert same, f"output {n} is {b.dtype}{list(b.shape)}, not {a.dtype}{list(a.shape)}"
    if not r:
        return
    found = _lifted(f, leaves, tree)
    if found is None:
        _by_float64(f, args, r, c, accuracy)
        return
    program, inputs = found
    draw = _Given("the arguments", 1.0, 0, inputs)
    whole = tuple(sample.Sample(o.shape, max((1, *o.shape[-1:]))) for o in r)
    values = functools.partial(sample.oracle, program, samples=whole)
    session = contract.Session(program, lambda *_: r, lambda *_: c, accuracy, whole, values)
    result = session.run(draw, inputs, values(inputs))
    if not result.passed:
        if currently_in_test_context():
            note(print_program(program))
        names = [store.tensor.name for store in program.outputs]
        number = names.index(result.output) if result.output in names else 0
        raise AssertionError(f"output {number} differs: {result.reason}\n{print_program(program)}")


@dataclass(frozen=True)
class _Given(Draw):
    """A draw of the contract that is what the test drew."""

    given: dict[str, Any] = field(default_factory=dict[str, Any])

    def inputs(self, program: Program) -> dict[str, Any]:
        return self.given


def _lifted(
    f: Callable[..., Any], leaves: Sequence[Any], tree: Any
) -> tuple[Program, dict[str, Any]] | None:
    """The program of a function at these arguments, and its inputs; None where it has none."""

    def flat(*values: Any) -> Any:
        return f(*jax.tree.unflatten(tree, values))

    closed = jax.make_jaxpr(flat)(*leaves)
    try:
        program = lift(closed, getattr(f, "__name__", "f"))
    except NotLiftable:
        return None
    arrays = [x for x in closed.consts if np.ndim(x)]
    if len(program.inputs) != len(leaves) + len(arrays):
        return None
    values = (np.asarray(x) for x in (*leaves, *arrays))
    return program, {t.name: x for t, x in zip(program.inputs, values, strict=True)}


def _by_float64(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    r: Sequence[Any],
    c: Sequence[Any],
    accuracy: float,
) -> None:
    """The same comparison with the function itself, in float64, as the oracle."""
    with jax.enable_x64(True):
        wide = jax.tree.map(_widened, args)
        oracle = [np.asarray(x) for x in jax.tree.leaves(f(*wide))]
    for n, (o, a, b) in enumerate(zip(oracle, r, c, strict=True)):
        if a.dtype.name not in FLOATS:
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "c"), f"output {n} differs"
            continue
        width = a.shape[-1] if a.shape else 1
        if not a.size:
            continue
        o, a_, b_ = (np.asarray(x, np.float64).reshape(-1, width) for x in (o, a, b))
        result = rows(o, a_, b_, a.dtype.name, accuracy)
        assert not result.misplaced.any(), f"output {n} has NaN or infinities where it should not"
        worst = float(result.ratio.max())
        assert worst <= 1, f"output {n} differs: {worst:.3g} times the error that is allowed"


def _widened(x: Any) -> Any:
    array = np.asarray(x)
    return array.astype(np.float64) if array.dtype.name in FLOATS else x
