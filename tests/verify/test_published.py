"""Every algebraic and reduction identity of Mirage's and Prism's sets, in index notation: it
survives the trials of evidence, and the checker proves instances of it both ways.

A product of matrices is a sum over a shared axis; a divisor or a factor that leaves a sum has the
condition that the published rules forgot. Rules that move partitions and replicas through an
operator have no counterpart here, since an index says which part it is; `test_proof` has the tiled
programs that they are for.
"""

from __future__ import annotations

import numpy as np
import pytest

from prism_jax.axioms.axiom import Axiom
from prism_jax.axioms.trials import float_trials
from prism_jax.verify import prove
from tests.verify.test_axioms import sides

PUBLISHED: dict[str, tuple[str, tuple[str, ...]]] = {
    "a + b = b + a": ("x + y = y + x", ()),
    "(a + b) + c = a + (b + c)": ("(x + y) + z = x + (y + z)", ()),
    "a b = b a": ("x * y = y * x", ()),
    "(a b) c = a (b c)": ("(x * y) * z = x * (y * z)", ()),
    "(A B) C = A (B C)": (
        "sum{l}(c * sum{k}(a... * b...)) = sum{k}(a... * sum{l}(b... * c))",
        ("l not in a", "k not in c"),
    ),
    "(a + b) c = a c + b c": ("(x + y) * z = x * z + y * z", ()),
    "a (b + c) = a b + a c": ("x * (y + z) = x * y + x * z", ()),
    "(a + b) / c = a / c + b / c": ("div(x + y, z) = div(x, z) + div(y, z)", ()),
    "(A + B) C = A C + B C": ("sum{k}((x + y) * z) = sum{k}(x * z) + sum{k}(y * z)", ()),
    "A (B + C) = A B + A C": ("sum{k}(x * (y + z)) = sum{k}(x * y) + sum{k}(x * z)", ()),
    "(A / v) B = (A B) / v": ("sum{k}(div(x, y) * z) = div(sum{k}(x * z), y)", ("k not in y",)),
    "(a b)^c = a^c b^c": (
        "pow(x * y, z) = pow(x, z) * pow(y, z)",
        ("x >= 0", "y >= 0", "finite z"),
    ),
    "(a b)^n = a^n b^n": ("(x * y)^3 = x^3 * y^3", ()),
    "a^(b + c) = a^b a^c": ("pow(x, y + z) = pow(x, y) * pow(x, z)", ("x > 0", "finite x")),
    "RMSnorm = t / RMS, RMS = sqrt(sum t^2 / n)": (
        "x * rsqrt(div(sum{k}(x * x), size(k) * 1)) = div(x, sqrt(div(sum{k}(x^2), size(k) * 1)))",
        (),
    ),
    "(a / c) (b / c) = (a b) / (c c)": ("div(x, z) * div(y, z) = div(x * y, z * z)", ()),
    "a (b / c) = (a b) / c": ("x * div(y, z) = div(x * y, z)", ()),
    "(a / b) / c = a / (b c)": ("div(div(x, y), z) = div(x, y * z)", ()),
    "sum_i sum_j a = sum_j sum_i a": ("sum{k}(sum{l}(x)) = sum{l}(sum{k}(x))", ()),
    "sum_i sum_j a = sum_ij a": ("sum{k}(sum{l}(x)) = sum{k,l}(x)", ()),
    "sum (a + b) = sum a + sum b": ("sum{k}(x + y) = sum{k}(x) + sum{k}(y)", ()),
    "sum (a b) = (sum a) b": ("sum{k}(x * y) = sum{k}(x) * y", ("k not in y",)),
    "sum (a / b) = (sum a) / b": ("sum{k}(div(x, y)) = div(sum{k}(x), y)", ("k not in y",)),
    "sum_i sum_j (a b) = (sum_i a) (sum_j b)": (
        "sum{k}(sum{l}(x * y)) = sum{k}(x) * sum{l}(y)",
        ("l not in x", "k not in y"),
    ),
    "a sum over one element": ("sum{k}(x) = size(k) * x", ("k not in x",)),
    "exp x exp y = exp(x + y)": ("exp(x) * exp(y) = exp(x + y)", ()),
    "sqrt x sqrt y = sqrt(x y)": ("sqrt(x) * sqrt(y) = sqrt(x * y)", ("x >= 0", "y >= 0")),
    "square a = a a": ("x^2 = x * x", ()),
    "silu x = x sigmoid(x)": ("x * logistic(x) = div(x, 1 + exp(neg(x)))", ()),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_identities_hold_and_are_proved(name: str) -> None:
    equation, when = PUBLISHED[name]
    row = Axiom("published", equation, when, "Mirage or Prism")
    float_trials(row)
    for seed in range(4):
        left, right = sides(row, seed)
        for one, other in ((left, right), (right, left)):
            result = prove(one, other)
            assert result.passed, f"seed {seed}: {result}"


@pytest.mark.parametrize("name", [n for n, (_, when) in PUBLISHED.items() if when])
def test_without_its_condition_an_identity_is_refuted(name: str) -> None:
    equation, when = PUBLISHED[name]
    with_less = [tuple(w for w in when if w != one) for one in when]
    assert any(_refuted(Axiom("published", equation, less, "")) for less in with_less)


def _refuted(row: Axiom) -> bool:
    from prism_jax.axioms.trials import Refuted

    try:
        with np.errstate(all="ignore"):
            float_trials(row, 400)
    except Refuted:
        return True
    return False
