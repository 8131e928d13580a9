"""Benchmarks: programs as users write them, measured by one protocol, stored as records.

* `workload` - what a row is: a function, its arguments from a seed, where it runs.
* `suites/` - the rows: `mirage`, `prism`, `flash`, `algebra`, `models`.
* `oracle` - the same function in float64, from its jaxpr alone.
* `accuracy` - errors against the oracle, and the accuracy contract.
* `records` - protocol and results as values, in JSON; `table` - records as text and Markdown.
* `runner` - one suite from start to end; `torch_baseline` - torch.compile beside it.

Clocks are those of `prism_jax.measure`.

Invariant: nothing here is imported by the compiler, and no row is known to it.
"""
