"""Plans that outlive the process: one folder of checked files, shared by processes and machines.

`prism.cache` is this module: `entries`, `show`, `verify`, `prune`, `export`, `load`, `folder`, and
`agree` for jobs of several processes. What is kept and what decides it: `key`; how it lies in the
folder: `entry` and `store`; how a decision becomes an entry: `plans`; how the pipeline uses it:
`remember`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prism_jax.cache.fleet import agree
    from prism_jax.cache.manage import entries, export, folder, load, prune, show, verify
    from prism_jax.cache.remember import remembered

__all__ = [
    "agree",
    "entries",
    "export",
    "folder",
    "load",
    "prune",
    "remembered",
    "show",
    "verify",
]


def __getattr__(name: str) -> Any:  # `import prism_jax` imports this module and needs none of it
    if name == "agree":
        from prism_jax.cache.fleet import agree

        return agree
    if name == "remembered":
        from prism_jax.cache.remember import remembered

        return remembered
    if name in __all__:
        from prism_jax.cache import manage

        return getattr(manage, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
