r"""A Hypothesis strategy for small JAX functions, written out as Python source.

>>> f = JaxFunction("def f(x):\n    return jnp.exp(x) / 2", (((2,), "float32"),))
>>> float(f(jnp.zeros(2))[0])
0.5
>>> print(f)
def f(x):  # x: float32[2]
    return jnp.exp(x) / 2
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from prism_jax.testing.arrays import arrays

Spec = tuple[tuple[int, ...], str]
"""The shape and dtype of an argument."""


@dataclass(frozen=True)
class JaxFunction:
    """A function of arrays, from source; equal sources are equal functions. Its text is what a
    failing test shows.
    """

    source: str
    arguments: tuple[Spec, ...]

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The compiled source, with a traceback that shows its lines."""
        name = f"<jax function {hash(self.source):x}>"
        linecache.cache[name] = (len(self.source), None, self.source.splitlines(True), name)
        scope: dict[str, Any] = {"jnp": jnp, "jax": jax, "lax": jax.lax, "np": np}
        exec(compile(self.source, name, "exec"), scope)
        return scope["f"]

    @property
    def __name__(self) -> str:
        return "f"

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __str__(self) -> str:
        first, *rest = self.source.split("\n")
        names = first[first.index("(") + 1 : first.index(")")].split(", ")
        kinds = (f"{d}[{','.join(map(str, s))}]" for s, d in self.arguments)
        notes = ", ".join(f"{n}: {k}" for n, k in zip(names, kinds, strict=True))
        return "\n".join([f"{first}  # {notes}", *rest])

    __repr__ = __str__

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What Hypothesis and notebooks show."""
        del cycle
        for number, line in enumerate(str(self).split("\n")):
            if number:
                printer.break_()
            printer.text(line)

    def inputs(self) -> st.SearchStrategy[tuple[Any, ...]]:
        """Arrays to call it with."""
        return st.tuples(*(arrays(shape, dtype) for shape, dtype in self.arguments))


_UNARY = {
    "jnp.exp({} - jnp.max({}))": "any", "jnp.tanh({})": "any", "jax.nn.sigmoid({})": "any",
    "jax.nn.silu({})": "any", "jax.nn.relu({})": "any", "jnp.abs({})": "any", "-{}": "any",
    "jnp.sqrt(jnp.abs({}) + 1)": "any", "jnp.log1p(jnp.abs({}))": "any", "{} ** 2": "any",
    "1 / (1 + {} ** 2)": "any", "{} * 0.5": "any", "jnp.where({} > 0, {}, 0.1 * {})": "any",
    "jax.nn.softmax({})": "rows", "jax.nn.logsumexp({}, -1, keepdims=True)": "keep",
    "{} - jnp.mean({}, -1, keepdims=True)": "rows",
    "{} / jnp.sqrt(jnp.mean({} ** 2, -1, keepdims=True) + 1e-5)": "rows",
    "jnp.sum({}, -1, keepdims=True)": "keep", "jnp.max({}, -1, keepdims=True)": "keep",
    "jnp.cumsum({}, -1)": "rows", "jnp.sort({}, -1)": "rows", "{}[..., ::-1]": "rows",
    "{}.sum(-1)": "drop", "{}.max(-1)": "drop", "{}.mean(-1)": "drop", "{}.prod(-1)": "drop",
    "{}.T": "turn", "{}.reshape(-1)": "flat", "jnp.concatenate([{}, {}], -1)": "twice",
    "jnp.pad({}, [(0, 0)] * ({}.ndim - 1) + [(1, 1)])": "pad", "{}[..., 1:]": "tail",
    "jnp.take({}, jnp.argmax({}, -1), axis=-1).reshape(-1)": "argmax",
}  # fmt: skip
_BINARY = (
    "{} + {}",
    "{} - {}",
    "{} * {}",
    "{} / (1 + jnp.abs({}))",
    "jnp.maximum({}, {})",
    "jnp.where({} > 0, {}, 1.0)",
)


def _shape_after(kind: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of a result, or None where the operation does not apply."""
    if kind == "any":
        return shape
    if not shape:
        return None
    last = shape[-1]
    return {
        "rows": shape,
        "keep": (*shape[:-1], 1),
        "drop": shape[:-1],
        "turn": shape[::-1],
        "flat": (int(np.prod(shape)),),
        "twice": (*shape[:-1], 2 * last),
        "pad": (*shape[:-1], last + 2),
        "tail": (*shape[:-1], last - 1) if last > 1 else None,
        "argmax": None if len(shape) != 1 else (1,),
    }[kind]


@st.composite
def jax_functions(
    draw: st.DrawFn,
    *,
    steps: int = 6,
    dtypes: tuple[str, ...] = ("float32",),
    largest: int = 6,
) -> JaxFunction:
    """Random small functions: elementwise maths, reductions, matrix products, shapes, now and then
    a scan or a sort.

    Args:
        draw: given by Hypothesis.
        steps: the greatest number of statements.
        dtypes: of the arguments.
        largest: the largest dimension of an argument.
    """
    sizes = [draw(st.integers(1, largest)) for _ in range(3)]
    count = draw(st.integers(1, 3))
    arguments: list[Spec] = []
    values: dict[str, tuple[int, ...]] = {}
    for name in "xyz"[:count]:
        shape = tuple(draw(st.sampled_from(sizes)) for _ in range(draw(st.integers(1, 2))))
        arguments.append((shape, draw(st.sampled_from(dtypes))))
        values[name] = shape
    lines = [f"def f({', '.join(values)}):"]
    for number in range(draw(st.integers(1, steps))):
        text, shape = draw(_statement(dict(values)))
        name = f"a{number}"
        lines.append(f"    {name} = {text}")
        values[name] = shape
    last = list(values)[-1]
    extra = draw(st.sampled_from(["", "", f", {draw(st.sampled_from(sorted(values)))}"]))
    lines.append(f"    return {last}{extra}")
    return JaxFunction("\n".join(lines), tuple(arguments))


@st.composite
def _statement(draw: st.DrawFn, values: dict[str, tuple[int, ...]]) -> tuple[str, tuple[int, ...]]:
    """An expression over the values so far, and its shape. The latest value is used most."""
    newest = list(values)[::-1]
    one = draw(st.sampled_from(newest))
    shape = values[one]
    options: list[tuple[str, tuple[int, ...]]] = []
    for text, kind in _UNARY.items():
        after = _shape_after(kind, shape)
        if after is not None:
            options.append((text.format(*[one] * text.count("{}")), after))
    for other in newest:
        try:
            joint = np.broadcast_shapes(shape, values[other])
        except ValueError:
            joint = None
        if joint is not None:
            options += [(text.format(one, other), joint) for text in _BINARY]
        if len(shape) == 2 and values[other] and values[other][0] == shape[1]:
            options += [(f"{one} @ {other}", (shape[0], *values[other][1:]))] * 4
        if len(shape) == len(values[other]) == 2 and values[other][1] == shape[1]:
            options += [(f"{one} @ {other}.T", (shape[0], values[other][0]))] * 4
    return draw(st.sampled_from(options))
