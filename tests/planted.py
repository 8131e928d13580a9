"""Kernels that are wrong on purpose."""

from __future__ import annotations

import dataclasses

from prism_jax.emit.binary import KernelSource

STORE = "tl.store("
FAR = 100_000_000_007
"""Elements from any array to memory that no process has."""


def planted(source: KernelSource) -> KernelSource:
    """The kernel, writing where nothing is.

    Raises:
      ValueError: it has no store to change.
    """
    if STORE not in source.text:
        raise ValueError(f"kernel {source.name} stores nothing by pointer")
    return dataclasses.replace(source, text=source.text.replace(STORE, f"{STORE}{FAR} + "))
