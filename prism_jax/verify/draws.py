"""Random inputs of the accuracy contract (design, section 8): cheap, seeded, in every operator's
domain.

In: a program and a seed. Out: `Draw`s, each of which makes all inputs of one test. Large arrays
  repeat a pool of random numbers at a random offset, so that a draw costs a copy; the pool's prime
  length keeps rows different.

>>> [draw.kind for draw in draws(seed=0)][:4]
['normal', 'offset', 'heavy', 'normal']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from prism_jax.ir.nodes import FLOATS, Tensor
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program
from prism_jax.verify.domains import Domain, domains

SCALES = (1e-3, 1.0, 30.0)
_POOL = 65_521  # prime
_KINDS = (
    # The first ones differ most: where the oracle is dear, only as many are drawn as must count.
    ("normal", 1.0, 0),
    ("offset", 1.0, 0),
    ("heavy", 30.0, 0),
    ("normal", 1e-3, 0),
    ("normal", 30.0, 0),
    ("onehot", 30.0, 0),
    ("masked", 1.0, 0),
    ("offset", 1e-3, 0),
    ("constant", 1.0, 0),
    ("heavy", 1.0, 0),
    ("offset", 30.0, 0),
    ("zeros", 0.0, 0),
    ("onehot", 1.0, 0),
    *(("normal", scale, 1) for scale in SCALES),
)


@dataclass(frozen=True)
class Draw:
    """One set of inputs: `kind` and `scale` as in `_KINDS`, `seed` decides the numbers."""

    kind: str
    scale: float
    seed: int

    def __str__(self) -> str:
        return f"{self.kind} x {self.scale:g} (seed {self.seed})"

    def inputs(self, program: Program) -> dict[str, np.ndarray]:
        """Arrays of the program's input dtypes and shapes, by name."""
        facts = domains(program)
        return {
            tensor.name: self._array(tensor, facts[tensor.name], (self.seed, n, _code(self.kind)))
            for n, tensor in enumerate(program.inputs)
        }

    def _array(self, tensor: Tensor, domain: Domain, seed: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([*seed, int(self.scale * 1e4)])
        shape = tuple(int(s) for s in tensor.shape)
        if domain.kind == "bool":
            return self._bools(rng, shape)
        if domain.kind == "integer":
            if self.kind == "wild" and not domain.index:
                return any_integers(rng, shape, tensor.dtype)
            low = max(domain.low, int(np.iinfo(numpy_dtype(tensor.dtype)).min))
            high = min(domain.high, int(np.iinfo(numpy_dtype(tensor.dtype)).max))
            if domain.index and self.kind != "masked":
                low = min(
                    max(low, 1), high
                )  # a length of 0 masks whole rows: only where that is asked
            return rng.integers(low, high, shape, endpoint=True).astype(tensor.dtype)
        return self._reals(rng, shape, tensor.dtype, domain)

    def _bools(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if self.kind in ("zeros", "constant"):
            return np.ones(shape, bool)
        values = rng.random(shape) < 0.7
        if self.kind == "masked" and shape:
            return values & (rng.random((*shape[:-1], 1)) < 0.7)
        return values

    def _reals(
        self, rng: np.random.Generator, shape: tuple[int, ...], dtype: str, domain: Domain
    ) -> np.ndarray:
        assert dtype in FLOATS
        kind = numpy_dtype(dtype)
        if self.kind == "wild":
            return _cast(rng.standard_normal(shape) * self.scale, kind)
        if domain.kind == "unit":
            return _repeat(rng, shape, 0.01 + 0.98 * _pool(rng, shape, rng.random), kind)
        rows = (*shape[:-1], 1) if shape else ()
        signed = domain.kind == "any"
        values: Any
        if self.kind == "normal" or self.kind == "masked":
            pool = _pool(rng, shape, rng.standard_normal) * self.scale
        elif self.kind == "offset":
            shift = 100 * self.scale
            pool = _pool(rng, shape, rng.standard_normal) * self.scale + shift
        elif self.kind == "heavy":
            pool = _pool(rng, shape, lambda n: rng.standard_t(2, n)) * self.scale
        else:
            if self.kind == "zeros":
                values = np.zeros(shape)
            elif self.kind == "constant":
                values = np.broadcast_to(rng.standard_normal(rows) * self.scale, shape)
            else:
                values = np.zeros(shape, np.float32)
                if shape and shape[-1]:
                    hot = rng.integers(0, shape[-1], rows)
                    np.put_along_axis(values, hot, rng.standard_normal(rows) * self.scale, -1)
            return _cast(_into(values, domain, self.scale), kind)
        array = _repeat(rng, shape, _into(pool, domain, self.scale), kind)
        if self.kind == "masked" and signed and len(shape) > 1:
            kept = np.arange(shape[-1]) < rng.integers(1, shape[-1] + 1, rows)
            array = np.where(kept, array, np.zeros((), kind))
        return array


def draws(seed: int = 0) -> tuple[Draw, ...]:
    """The draws of one protocol run. `extra_draws` continues them where too few count."""
    return tuple(Draw(kind, scale, 1000 * seed + n) for kind, scale, n in _KINDS)


def extra_draws(seed: int = 0, limit: int = 12) -> Iterator[Draw]:
    """More draws at moderate scales, for programs whose outputs mostly vanish on the adversarial
    ones.
    """
    for n in range(limit):
        yield Draw("normal", (1.0, 0.1)[n % 2], 1000 * seed + 100 + n)


def wild_draws(program: Program, seed: int = 0) -> tuple[Draw, ...]:
    """One draw outside of the operators' domains, for programs that have inputs with one.

    Where the reference has NaN for a root or a logarithm of a negative number, so must the
    candidate; and integers wrap alike, so they are drawn from all that their dtype has.
    """
    facts = domains(program).values()
    odd = any(
        d.kind in ("positive", "negative", "unit") or (d.kind == "integer" and not d.index)
        for d in facts
    )
    return (Draw("wild", 1.0, 1000 * seed),) if odd else ()


def any_integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Integers of a dtype: small ones, ones from all over its range, and its ends."""
    info = np.iinfo(numpy_dtype(dtype))
    small = rng.integers(max(int(info.min), -8), 8, shape, dtype, endpoint=True)
    large = rng.integers(int(info.min), int(info.max), shape, dtype, endpoint=True)
    ends = rng.choice(np.array([info.min, info.max, info.max - 1, 1, 0], dtype), shape)
    return np.choose(rng.integers(0, 3, shape), [small, large, ends]).astype(dtype)


def _code(kind: str) -> int:
    return sum(map(ord, kind))


def _into(values: np.ndarray, domain: Domain, scale: float) -> np.ndarray:
    """Values moved into a signed domain; zero is kept away from, because logarithms are."""
    if domain.kind == "any":
        return values
    positive = np.abs(values) + 0.05 * (scale or 1.0)
    return positive if domain.kind == "positive" else -positive


def _cast(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        top = float(_largest(kind))
        return np.clip(values, -top, top).astype(kind)


def _largest(kind: np.dtype) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(kind).max)


def _pool(rng: np.random.Generator, shape: tuple[int, ...], make: Any) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64))
    return np.asarray(make(min(size, _POOL)))


def _repeat(
    rng: np.random.Generator, shape: tuple[int, ...], pool: np.ndarray, kind: np.dtype
) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64))
    narrow = _cast(pool, kind)
    if size <= narrow.size:
        return narrow[:size].reshape(shape)
    start = int(rng.integers(0, narrow.size))
    return np.resize(np.roll(narrow, start), size).reshape(shape)
