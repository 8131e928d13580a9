"""Small functions that must behave under prism.jit exactly as under jax.jit: (name, make).

`make()` gives (function, arguments, keywords of jit). Nothing here is meant to become faster.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Case = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
CASES: dict[str, Callable[[], Case]] = {}


def case(*args: Any, **keywords: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function with the arguments of its call; callables among them are made late."""

    def register(fun: Callable[..., Any]) -> Callable[..., Any]:
        made = tuple(args)
        CASES[fun.__name__] = lambda: (
            fun, tuple(a() if isinstance(a, Late) else a for a in made), keywords
        )  # fmt: skip
        return fun

    return register


class Late:
    """An argument made when the case runs."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def __call__(self) -> Any:
        return self.make()


def normal(*shape: int, dtype: Any = jnp.float32, seed: int = 0) -> Late:
    return Late(lambda: jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype))


class Point(NamedTuple):
    x: Any
    y: Any


# -- boundaries: what no program of ours can hold ------------------------------------------------


@case(normal(5, 7))
def sort(x):
    return jnp.sort(x, axis=1), jnp.argsort(x, axis=0)


@case(normal(6), Late(lambda: jnp.arange(6)))
def sort_by_key(k, v):
    return lax.sort((k, v), num_keys=1)


@case(normal(20))
def top_k(x):
    return lax.top_k(x, 3)


@case(normal(4, 8))
def fft(x):
    return jnp.fft.rfft(x), jnp.fft.ifft2(x)


@case(Late(lambda: jax.random.key(1)))
def random_typed_key(key):
    a, b = jax.random.split(key)
    return jax.random.normal(a, (3,)), jax.random.bernoulli(b, 0.3, (4,)), b


@case(Late(lambda: jax.random.PRNGKey(1)))
def random_raw_key(key):
    return jax.random.uniform(key, (3,)) * 2, jax.random.permutation(key, 5)


@case(normal(3, 4), Late(lambda: jax.random.key(0)))
def dropout(x, key):
    return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x / 0.5, 0.0)


@case(Late(lambda: jnp.array([1 + 2j, 3 - 1j], jnp.complex64)))
def complex_numbers(z):
    return z * jnp.conj(z), jnp.abs(z), z.real, jnp.exp(z), jnp.sum(z)


@case(Late(lambda: jnp.arange(-4, 4, dtype=jnp.int8)), Late(lambda: jnp.arange(8, dtype=jnp.uint8)))
def integers(a, b):
    return a * a, a // 3, a % 3, b << 2, b - 1, lax.population_count(b), a.astype(jnp.uint8)


@case(Late(lambda: jnp.array([2**31 - 1, -(2**31)], jnp.int32)))
def integer_overflow(a):
    return a + 1, a * 2, -a, jnp.abs(a), jnp.sum(a)


@case(Late(lambda: jnp.array([True, False, True])))
def booleans(p):
    return p & ~p, p.any(), p.all(), p.sum(), jnp.logical_xor(p, True), p.astype(jnp.float32)


@case(normal(6, 5), 2, 1)
def dynamic_slices(x, i, j):
    part = lax.dynamic_slice(x, (i, j), (3, 2))
    return part, lax.dynamic_update_slice(x, part * 2, (j, i)), x[i], lax.dynamic_index_in_dim(x, j)


@case(normal(6, 5), Late(lambda: jnp.array([0, 5, -1, 9])))
def gather(x, i):
    return x[i], x.at[i].get(mode="fill", fill_value=7.0), jnp.take(x, i, axis=1, mode="clip")


@case(normal(4, 5), Late(lambda: jnp.array([[0, 1, 4, 2]]).T))
def take_along_axis(x, i):
    return jnp.take_along_axis(x, i, axis=1)


@case(normal(6), Late(lambda: jnp.array([0, 0, 5, 9])))
def scatter(x, i):
    return x.at[i].add(1.0), x.at[i].max(3.0), x.at[i[2]].set(0.0), x.at[i].mul(2.0, mode="drop")


@case(normal(1, 3, 9, 9), normal(4, 3, 3, 3))
def convolution(x, w):
    return lax.conv_general_dilated(x, w, (2, 2), "SAME", feature_group_count=1)


@case(normal(2, 8, 3), normal(3, 3, 4))
def convolution_1d(x, w):
    return lax.conv_general_dilated(x, w, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))


@case(normal(1, 8, 8, 2))
def pooling(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@case(normal(4, 4))
def linear_algebra(a):
    spd = a @ a.T + 4 * jnp.eye(4)
    return jnp.linalg.cholesky(spd), jnp.linalg.solve(spd, a), jnp.linalg.eigh(spd)[0]


@case(normal(4, 3))
def decompositions(a):
    q, r = jnp.linalg.qr(a)
    return q, r, jnp.linalg.svd(a, compute_uv=False), jnp.linalg.det(a.T @ a)


@case(normal(3, 3), normal(3))
def triangular_solve(a, b):
    return jax.scipy.linalg.solve_triangular(a, b, lower=True)


@case(normal(5, 3))
def cumulative(x):
    return jnp.cumsum(x, 0), jnp.cumprod(x, 1), lax.cummax(x), lax.cumlogsumexp(x, reverse=True)


@case(normal(16))
def associative_scan(x):
    return lax.associative_scan(jnp.multiply, x)


@case(normal(4))
def pure_callback(x):
    return jax.pure_callback(lambda a: np.asarray(a) * 2, jax.ShapeDtypeStruct((4,), np.float32), x)


@case(normal(4))
def bit_patterns(x):
    bits = lax.bitcast_convert_type(x, jnp.int32)
    return bits, lax.bitcast_convert_type(bits ^ 1, jnp.float32), lax.nextafter(x, x + 1)


# -- sizes, scalars, types -------------------------------------------------------------------------


@case(Late(lambda: jnp.zeros((0,))))
def empty_array(x):
    return x + 1, jnp.sum(x), jnp.prod(x), x.reshape(0, 3)


@case(Late(lambda: jnp.zeros((3, 0, 2))), Late(lambda: jnp.zeros((0, 4))))
def zero_size_axes(x, y):
    return jnp.sum(x, axis=1), y.T @ y, jnp.concatenate([x, x], 1), jnp.mean(x, axis=(0, 2))


@case(2.0, 3, True, 1j)
def python_scalars(f, i, b, c):
    return f * i, i + b, c * f, f, i, b, i / 2, jnp.float32(f) * i


@case(Late(lambda: jnp.float32(2)), 3.0)
def zero_dimensional(x, y):
    return jnp.sin(x) * y, x[None], x**2, jnp.where(x > 0, y, 1)


@case(1.5, Late(lambda: jnp.bfloat16(2.0)))
def weak_types(x, h):
    return x, x * 2, h * x, h + 1, jnp.asarray(x), jnp.exp(x), lax.convert_element_type(x, float)


@case()
def constants_only():
    return 3, 2.5, True, jnp.arange(3), np.float32(1), jnp.float16(2), None


@case(normal(3), {"k": 2.0})
def returns_inputs(x, d):
    return x, d, (x, x), [d["k"]]


@case(normal(3))
def returns_nothing(x):
    return None


@case(normal(3))
def returns_input_and_result_twice(x):
    y = x + 1
    return y, y, x, (y,)


@case(normal(3), normal(3))
def unused_argument(x, y):
    return x * 2


@case(Late(lambda: {"a": jnp.ones(2), "b": (jnp.zeros(3), None, [1.0])}), Point(1, np.ones(2)))
def pytrees(tree, point):
    out = jax.tree.map(lambda v: v + 1, tree)
    return Point(out, point.y * point.x), {"z": (), "y": [None, point]}


@case(Late(lambda: np.arange(3, dtype=np.float32)), Late(lambda: np.int16(4)))
def numpy_arguments(x, n):
    return x * n, n, np.float32(2) * x


@case(normal(3, dtype=jnp.float16), normal(3, dtype=jnp.bfloat16))
def half_precision(a, b):
    return a + b, a * 2, jnp.sum(b), jnp.dot(a, a), b.astype(jnp.float16), jnp.sin(a)


@case(Late(lambda: jnp.array([0.5, 448.0, 1e-3]).astype(jnp.float8_e4m3fn)))
def eight_bit_floats(x):
    return x.astype(jnp.float32) * 3, (x.astype(jnp.float32) / 2).astype(jnp.float8_e4m3fn)


@case(Late(lambda: jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0, 1e-45, 3e38])))
def special_values(x):
    return x + 1, x * 0, jnp.sort(x), jnp.max(x), jnp.sum(x), jnp.sign(x), 1 / x, jnp.isnan(x)


@case(normal(3, 4), 2, "sum", static_argnums=(1, 2))
def static_arguments(x, n, how):
    return getattr(jnp, how)(x, axis=0) * n, x.reshape(4, 3)[:n]


@case(normal(3), static_argnames=("n",))
def static_default(x, n=2):
    return x**n


@case(normal(3), normal(3), donate_argnums=(0,))
def donated(x, y):
    return x + y


@case(normal(3), normal(4), keep_unused=True)
def kept_unused(x, y):
    return x - 1


@case(normal(3), inline=True)
def inlined(x):
    return jnp.cos(x)


# -- control flow and nesting ----------------------------------------------------------------------


@case(normal(6), 2.0)
def scan(x, s):
    return lax.scan(lambda c, a: (c * a + 1, jnp.sin(c)), s, x, unroll=2)


@case(7)
def while_loop(n):
    return lax.while_loop(lambda c: c[0] > 0, lambda c: (c[0] - 1, c[1] * c[0]), (n, 1.0))


@case(normal(3), 5)
def fori_loop(x, n):
    return lax.fori_loop(0, n, lambda i, c: c + jnp.sin(c) * i, x)


@case(normal(3), True)
def cond(x, p):
    return lax.cond(p, lambda a: (a, 1), lambda a: (a * 2, 0), x)


@case(normal(3), 1)
def switch(x, i):
    return lax.switch(i, [jnp.sin, jnp.cos, lambda a: a], x)


@case(normal(3, 4))
def mapped(x):
    return lax.map(lambda row: jnp.sum(row) + row, x)


@case(normal(3))
def nested_jit(x):
    inner = jax.jit(lambda a, n: a * n, static_argnums=1)
    return inner(x, 2) + inner(x, 3)


@case(normal(3))
def checkpointed(x):
    return jax.grad(lambda a: jnp.sum(jax.checkpoint(lambda b: jnp.sin(jnp.sin(b)))(a)))(x)


_clipped: Any = jax.custom_vjp(lambda x: x * 2)
_clipped.defvjp(lambda x: (x * 2, x), lambda res, g: (jnp.clip(g, -0.1, 0.1) + 0 * res,))


@case(normal(3))
def custom_vjp(x):
    return _clipped(x), jax.grad(lambda a: jnp.sum(_clipped(a) ** 2))(x)


_odd: Any = jax.custom_jvp(jnp.sin)
_odd.defjvp(lambda primals, tangents: (_odd(primals[0]), tangents[0] * 5))


@case(normal(3))
def custom_jvp(x):
    return _odd(x), jax.grad(lambda a: jnp.sum(_odd(a)))(x), jax.jvp(_odd, (x,), (x,))


@case(normal(4))
def inner_transformations(x):
    f = lambda a: jnp.sum(jnp.tanh(a) * a)  # noqa: E731
    return jax.value_and_grad(f)(x), jax.hessian(f)(x), jax.vmap(jnp.sin)(x), jax.jvp(f, (x,), (x,))


@case(normal(3), 2)
def float0_tangents(x, n):
    dx, _ = jax.vjp(lambda a, k: a * k, x, n)[1](x)
    tangent = jax.jvp(lambda a, k: a * k, (x, n), (x, np.zeros((), jax.dtypes.float0)))[1]
    return dx, tangent


@case(normal(3))
def custom_linear_solve(b):
    a = jnp.array([[4.0, 1, 0], [1, 3, 0], [0, 0, 2]])
    return jax.scipy.sparse.linalg.cg(lambda v: a @ v, b)[0]


@case(normal(3))
def stop_gradient(x):
    return jax.grad(lambda a: jnp.sum(a * lax.stop_gradient(a)))(x)


@case(normal(2, 3))
def named_axis(x):
    return jax.vmap(lambda a: a / lax.psum(a, "i"), axis_name="i")(x)


@case(Late(lambda: functools.partial(jnp.ones, 3)()), normal(3))
def closed_over_array(x, y, table=np.arange(3.0, dtype=np.float32)):  # noqa: B008
    return x * table + y


@case(normal(3))
def rounding_operators(x):
    return jnp.round(x), lax.reduce_precision(x, 5, 10), jnp.floor(x), x.astype(jnp.int32)


@case(normal(3))
def optimization_barrier(x):
    return lax.optimization_barrier((x, x + 1))


@case(Late(lambda: jnp.arange(12.0)))
def strings_of_views(x):
    y = x.reshape(3, 4)
    return y.T, y[::-1, ::2], jnp.flip(y), jnp.roll(y, 1, 0), jnp.pad(y, 1, mode="reflect"), y[None]


@case(normal(3), normal(3))
def comparisons(x, y):
    return x == y, x < y, jnp.maximum(x, y), jnp.argmax(x), jnp.isclose(x, x), jnp.clip(x, 0, 1)


@case(normal(8))
def statistics(x):
    return jnp.median(x), jnp.quantile(x, 0.3), jnp.var(x), jnp.unique(x, size=4), jnp.histogram(x)
