"""The axioms, one row each. Adding one is adding a row and running ``python -m prism_jax.axioms
evidence``.

Meaning: both sides agree wherever every variable is finite (edge values included) and the
conditions hold; at non-finite values a row without a ``finite`` condition may change *which*
non-finite value appears, never make one from a finite value or the reverse.

Sources: "Mirage" is arXiv 2405.05751 (table 2, abstract expressions, and its implementation's rule
file), "Prism" arXiv 2604.15272 (table 1 and its verifier), "design" the missing or corrected rows
that this project adds.

>>> len({row.name for row in DEFAULT}) == len(DEFAULT)
True
"""

from __future__ import annotations

from prism_jax.axioms.axiom import Axiom

NORMAL = ("normal", "proof")
ORDER = ("order", "proof")
PROOF = ("proof",)

#: What the normal form of sums and products does by construction.
_NORMAL_ROWS = (
    Axiom("add-commute", "x + y = y + x", (), "Mirage A", NORMAL),
    Axiom("add-associate", "(x + y) + z = x + (y + z)", (), "Mirage A", NORMAL),
    Axiom("mul-commute", "x * y = y * x", (), "Mirage A", NORMAL),
    Axiom("mul-associate", "(x * y) * z = x * (y * z)", (), "Mirage A", NORMAL),
    Axiom("sub", "sub(x, y) = x + (-1) * y", (), "design 5", NORMAL),
    Axiom("neg", "neg(x) = (-1) * x", (), "design 5", NORMAL),
    Axiom("div", "div(x, y) = x * y^(-1)", (), "design 5", NORMAL),
    Axiom("sqrt", "sqrt(x) = x^(1/2)", (), "design 5", NORMAL),
    Axiom("rsqrt", "rsqrt(x) = x^(-1/2)", (), "design 5", NORMAL),
    Axiom("collect", "p * x + q * x = q * x + p * x", (), "design 5", NORMAL),
    Axiom("collect-equal", "x + x = 2 * x",
          (), "Prism 5.5: T + T = 2 T, not derivable there", NORMAL),
    Axiom("cancel-sum", "x - x = 0", ("finite x",), "design 5", NORMAL),
    Axiom("zero-product", "0 * x = 0", ("finite x",), "design 5", NORMAL),
    Axiom("square", "x * x = x^2", (), "Mirage: square -> a * a", NORMAL),
    Axiom("reciprocal-square", "x^(-1) * x^(-1) = x^(-2)", (), "design 5", NORMAL),
    Axiom("cancel-product", "x * x^(-1) = 1", ("x != 0", "finite x"), "design 5", NORMAL),
    Axiom("root-square", "x^(1/2) * x^(1/2) = x",
          ("x >= 0",), "Mirage 13.2: sqrt x * sqrt y", NORMAL),
    Axiom("square-root", "(x^2)^(1/2) = x", ("x >= 0",), "design 5", NORMAL),
    Axiom("root-of-product", "(x * y)^(1/2) = x^(1/2) * y^(1/2)",
          ("x >= 0", "y >= 0"), "Mirage 4.1", NORMAL),
    Axiom("reciprocal-of-product", "(x * y)^(-1) = x^(-1) * y^(-1)", (), "Prism A: (ab)^c", NORMAL),
    Axiom("power-of-product", "(x * y)^2 = x^2 * y^2", (), "Prism A: (ab)^c", NORMAL),
    Axiom("divide-twice", "div(div(x, y), z) = div(x, y * z)",
          (), "Mirage A; missing in Prism's verifier", NORMAL),
    Axiom("divide-products", "div(x, z) * div(y, z) = div(x * y, z * z)",
          (), "Prism A, Mirage A", NORMAL),
    Axiom("multiply-quotient", "x * div(y, z) = div(x * y, z)", (), "Mirage A", NORMAL),
    Axiom("scalar-through-sum", "p * (x + y) = p * x + p * y", (), "design 5", NORMAL),
    Axiom("scalar-through-reduce", "sum{k}(p * x) = p * sum{k}(x)", (), "Mirage A", NORMAL),
    Axiom("sum-of-invariant", "sum{k}(x) = size(k) * x",
          ("k not in x",), "Mirage: sum of size 1; design 5", NORMAL),
    Axiom("max-of-invariant", "max{k}(x) = x", ("k not in x",), "design 5", NORMAL),
    Axiom("min-of-invariant", "min{k}(x) = x", ("k not in x",), "design 5", NORMAL),
)  # fmt: skip

#: What the contraction order uses: merging, interchanging and splitting sums.
_ORDER_ROWS = (
    Axiom("sum-interchange", "sum{k}(sum{l}(x)) = sum{l}(sum{k}(x))",
          (), "Mirage A: sum_i sum_j", ORDER),
    Axiom("sum-nest", "sum{k,l}(x) = sum{k}(sum{l}(x))",
          (), "Mirage A: sums of product size", ORDER),
    Axiom("sum-merge", "sum{k}(a... * sum{l}(b...)) = sum{k,l}(a... * b...)", ("l not in a",),
          "Prism A: matmul associative", ORDER),
    Axiom("sum-of-product", "sum{k,l}(a... * b...) = sum{k}(a...) * sum{l}(b...)",
          ("l not in a", "k not in b"),
          "Mirage A: sum_i sum_j (a b)", ORDER),
    Axiom("max-nest", "max{k,l}(x) = max{k}(max{l}(x))",
          (), "design 5: splitting of reductions", ORDER),
)  # fmt: skip

#: What search rewrites, left to right.
_SEARCH_ROWS = (
    Axiom("hoist", "sum{k}(a... * b...) = a... * sum{k}(b...)", ("k not in a",),
          "Mirage A: sum(a b) = sum(a) b; Prism A: (A/v)B = (AB)/v, typed"),
    Axiom("distribute",
          "sum{k}(a... * (p * b + c...)) = p * sum{k}(a... * b) + sum{k}(a... * (c...))",
          (),
          "Prism A: (A + B) C = A C + B C; Mirage A: sum(a + b)",
          wants=("narrower b or contraction b", "pays b", "first b"),
          changes_rounding="cancellation between the parts"),
    Axiom("square-of-sum",
          "sum{k}(a... * (p * b + c...)^2) = p * p * sum{k}(a... * b^2)"
          " + 2 * p * sum{k}(a... * b * (c...)) + sum{k}(a... * (c...)^2)",
          (), "Mirage A: distribution, twice",
          wants=("narrower b", "pays b", "first b"),
          changes_rounding="cancellation in the expanded square"),
    Axiom("factor",
          "p * sum{k}(a... * b) + q * sum{k}(a... * c) + d..."
          " = sum{k}(a... * (p * b + q * c)) + d...",
          (),
          "Prism A: A B + A C = A (B + C)", wants=("b like c",)),
    Axiom("factor-product", "p * a... * b + q * a... * c + d... = a... * (p * b + q * c) + d...",
          (),
          "Mirage A: a b + a c = a (b + c), a/b + c/b = (a + c)/b", wants=("b like c",)),
    Axiom("max-shift", "max{k}(a... + b...) = (a...) + max{k}(b...)",
          ("k not in a",), "design 5: monotone maps"),
    Axiom("min-shift", "min{k}(a... + b...) = (a...) + min{k}(b...)",
          ("k not in a",), "design 5: monotone maps"),
    Axiom("max-scale", "max{k}(a... * b...) = a... * max{k}(b...)",
          ("k not in a", "a >= 0", "finite b"), "design 5"),
    Axiom("min-scale", "min{k}(a... * b...) = a... * min{k}(b...)",
          ("k not in a", "a >= 0", "finite b"), "design 5"),
    Axiom("max-positive", "max{k}(p * x) = p * max{k}(x)", ("p > 0",), "design 5"),
    Axiom("min-positive", "min{k}(p * x) = p * min{k}(x)", ("p > 0",), "design 5"),
    Axiom("max-negative", "max{k}(p * x) = p * min{k}(x)", ("p < 0",), "design 5"),
    Axiom("min-negative", "min{k}(p * x) = p * max{k}(x)", ("p < 0",), "design 5"),
    Axiom("argmax-shift", "argmax{k}(a... + b...) = argmax{k}(b...)",
          ("k not in a", "finite a"), "design 5"),
    Axiom("argmin-shift", "argmin{k}(a... + b...) = argmin{k}(b...)",
          ("k not in a", "finite a"), "design 5"),
    Axiom("argmax-positive", "argmax{k}(p * x) = argmax{k}(x)", ("p > 0",), "design 5"),
    Axiom("argmin-positive", "argmin{k}(p * x) = argmin{k}(x)", ("p > 0",), "design 5"),
    Axiom("max-of-exp", "max{k}(exp(x)) = exp(max{k}(x))", (), "design 5: monotone maps"),
    Axiom("abs-nonnegative", "abs(x) = x", ("x >= 0",), "design 5: sign conditions"),
    Axiom("abs-square", "abs(x)^2 = x^2", (), "design 5"),
    Axiom("max-equal", "max(x, x) = x", (), "design 5: semilattice"),
    Axiom("min-equal", "min(x, x) = x", (), "design 5: semilattice"),
    Axiom("where-equal", "where(cond, x, x) = x", (), "design 5"),
)  # fmt: skip

#: Exponential, logarithm and power laws; as rewrites they derive exp(s) / sum exp(s), so search
#: never uses them.
_PROOF_ROWS = (
    Axiom("exp-of-sum", "exp(x + y) = exp(x) * exp(y)", (), "Mirage 13.2", PROOF),
    Axiom("exp-of-negative", "exp(neg(x)) = exp(x)^(-1)", (), "design 5", PROOF),
    Axiom("exp2-of-sum", "exp2(x + y) = exp2(x) * exp2(y)", (), "design 5", PROOF),
    Axiom("log-of-product", "log(x * y) = log(x) + log(y)", ("x > 0",), "design 5", PROOF),
    Axiom("log-of-reciprocal", "log(x^(-1)) = (-1) * log(x)", (), "design 5", PROOF),
    Axiom("log-of-exp", "log(exp(x)) = x", (), "design 5", PROOF),
    Axiom("exp-of-log", "exp(log(x)) = x", ("x >= 0",), "design 5", PROOF),
    Axiom("pow-of-sum", "pow(x, y + z) = pow(x, y) * pow(x, z)", ("x > 0", "finite x"),
          "Prism A: a^(b+c)", PROOF),
    Axiom("pow-of-product", "pow(x * y, z) = pow(x, z) * pow(y, z)",
          ("x >= 0", "y >= 0", "finite z"), "Prism A: (ab)^c", PROOF),
    Axiom("logistic", "logistic(x) = (1 + exp((-1) * x))^(-1)", (), "design 5", PROOF),
    Axiom("tanh", "tanh(x) = 2 * logistic(2 * x) - 1", (), "design 5", PROOF),
    Axiom("max-commute", "max(x, y) = max(y, x)", (), "design 5: semilattice", PROOF),
    Axiom("max-associate", "max(max(x, y), z) = max(x, max(y, z))",
          (), "design 5: semilattice", PROOF),
    Axiom("max-add", "max(x + z, y + z) = max(x, y) + z", (), "design 5: (max, +)", PROOF),
    Axiom("max-times", "max(x * z, y * z) = max(x, y) * z", ("z >= 0", "finite x", "finite y"),
          "design 5", PROOF),
    Axiom("min-negate", "min(x, y) = (-1) * max((-1) * x, (-1) * y)", (), "design 5", PROOF),
    Axiom("max-of-sums", "max{k}(max(x, y)) = max(max{k}(x), max{k}(y))", (), "design 5", PROOF),
    Axiom("where-through-product", "where(cond, x, y) * z = where(cond, x * z, y * z)",
          (), "design 5", PROOF),
    Axiom("where-through-sum", "where(cond, x, y) + z = where(cond, x + z, y + z)",
          (), "design 5", PROOF),
    Axiom("exp-of-where", "exp(where(cond, x, y)) = where(cond, exp(x), exp(y))",
          (), "design 5", PROOF),
    Axiom("distribute-product", "x * (y + z) = x * y + x * z", (), "Mirage A, Prism A", PROOF),
    Axiom("distribute-quotient", "div(x + y, z) = div(x, z) + div(y, z)",
          (), "Mirage A, Prism A", PROOF),
    Axiom("sum-of-sum", "sum{k}(x + y) = sum{k}(x) + sum{k}(y)", (), "Mirage A", PROOF),
    Axiom("prod-of-product", "prod{k}(x * y) = prod{k}(x) * prod{k}(y)", (), "design 5", PROOF),
    Axiom("exp-of-sum-reduction", "exp(sum{k}(x)) = prod{k}(exp(x))", (), "design 5", PROOF),
)  # fmt: skip

DEFAULT: tuple[Axiom, ...] = (*_NORMAL_ROWS, *_ORDER_ROWS, *_SEARCH_ROWS, *_PROOF_ROWS)
