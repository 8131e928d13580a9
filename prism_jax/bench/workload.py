"""What a benchmark row is: a function as a user writes it, and its arguments, made from a seed.

In: shapes and dtypes. Out: `Workload.build(seed)`, a function and concrete arguments.

Invariant: equal seeds give equal arguments on every platform (numpy's generator makes them).

>>> row = Workload(
...     suite="doc", name="twice", size="n=4", function=lambda x: x + x,
...     operands=(Operand((4,), "float16"),), platforms=("cpu",))
>>> function, (x,) = row.build(seed=0)
>>> function(x).dtype.name, row.key
('float16', 'twice n=4')
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

Platform = Literal["cpu", "gpu"]
Built = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Operand:
    """One random argument: `normal` (deviation `scale`), `positive`, or `index` (below `scale`).

    A weight matrix with `fan_in` set is divided by its root, as initialisers do, so that products
    of normal data stay of order one in half precision.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    scale: float = 1.0
    fan_in: int = 1
    distribution: Literal["normal", "positive", "index"] = "normal"

    def draw(self, generator: np.random.Generator) -> Any:
        """A jax array of this shape and dtype."""
        if self.distribution == "index":
            return jnp.asarray(generator.integers(0, int(self.scale), self.shape), self.dtype)
        values = generator.standard_normal(self.shape, np.float32)
        if self.distribution == "positive":
            values = np.abs(values) + 0.5
        return jnp.asarray(values * (self.scale / math.sqrt(self.fan_in)), self.dtype)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Which part of the work shows the oracle enough: positions along `out` need one slice of
    inputs.

    Attributes:
      axes: per argument the axis to take `count` positions from, None to pass the argument whole.
      out: the axis of the output that those positions become.
      count: how many positions, spread evenly from the first to the last.
    """

    axes: tuple[int | None, ...]
    out: int = 0
    count: int = 128

    def positions(self, arguments: tuple[Any, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The sampled positions: sorted, distinct, at most `count`."""
        size = next(a.shape[x] for a, x in zip(arguments, self.axes, strict=True) if x is not None)
        return np.unique(np.linspace(0, size - 1, min(self.count, size)).round().astype(np.int64))

    def arguments(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments restricted to the sampled positions."""
        where = self.positions(arguments)
        return tuple(
            value if axis is None else jnp.take(value, where, axis=axis)
            for value, axis in zip(arguments, self.axes, strict=True)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """One row of a suite.

    Attributes:
      suite, name, size: what the row is called; `key` joins the last two.
      function: the program, plain JAX.
      operands: its arguments, drawn in this order from one generator.
      platforms: where the row runs by default. CPU rows are float32 at sizes that two cores bear.
      sample: how the float64 oracle may look at part of the outputs; None evaluates all.
      maker: instead of `function` and `operands`, for rows that build a model: seed to (function,
        arguments).
      requires: import names of the libraries that `maker` needs.
      target_us: device time in microseconds that the project has set itself on an H100.
    """

    suite: str
    name: str
    size: str
    platforms: tuple[Platform, ...]
    function: Callable[..., Any] | None = None
    operands: tuple[Operand, ...] = ()
    sample: Sample | None = None
    maker: Callable[[int], Built] | None = None
    requires: tuple[str, ...] = ()
    target_us: float | None = None

    def __post_init__(self) -> None:
        if (self.function is None) == (self.maker is None):
            raise ValueError(f"{self.key}: give exactly one of `function` and `maker`")
        if self.sample is not None and len(self.sample.axes) != len(self.operands):
            raise ValueError(f"{self.key}: `sample` names {len(self.sample.axes)} arguments")

    @property
    def key(self) -> str:
        """Name and size: unique in a suite."""
        return f"{self.name} {self.size}".strip()

    def retyped(self, dtype: str) -> Workload:
        """The same row with float operands of another dtype. Its target was set for its own.

        Raises:
          ValueError: the row makes its arguments itself.
        """
        if self.maker is not None:
            raise ValueError(f"{self.key} builds a model: its dtype cannot be chosen")
        operands = tuple(
            dataclasses.replace(operand, dtype=dtype) if "float" in operand.dtype else operand
            for operand in self.operands
        )
        if operands == self.operands:
            return self
        size = f"{self.size} {dtype}".strip()
        return dataclasses.replace(self, size=size, operands=operands, target_us=None)

    @property
    def missing(self) -> tuple[str, ...]:
        """Libraries this row needs that are not installed."""
        return tuple(name for name in self.requires if importlib.util.find_spec(name) is None)

    def build(self, seed: int = 0) -> Built:
        """The function and its arguments for this seed."""
        if self.maker is not None:
            return self.maker(seed)
        assert self.function is not None
        generator = np.random.default_rng(seed)
        return self.function, tuple(operand.draw(generator) for operand in self.operands)
