"""Several jax processes of one job: they must run the same plans, or their collectives do not meet.

A measured plan depends on noise, so in such a job plans are ranked, not measured, and the cache is
not read, unless all processes said at start-up that they see the same cache. `agree` is that
start-up call: it exchanges a hash of the entries and, where all hashes are equal, freezes what this
process may read: an entry that appears or changes later is not used by any of them.

Nothing here is called while a function is traced, which must not wait for another process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from prism_jax import compat, errors
from prism_jax.cache.place import store
from prism_jax.options import Options

Exchange = Callable[[str], Sequence[str]]
"""Gives every process's text, its own among them, to all: waits for them."""

_agreed: dict[str, Mapping[str, str]] = {}


def agree(
    exchange: Exchange | None = None, *, seconds: float = 300.0, options: Options | None = None
) -> bool:
    """Whether every process of this job sees the same cache; if so, its plans may be used.

    Call it once in every process after `jax.distributed.initialize()`, before the first function is
    traced. Without it, or where it returns False, plans are ranked by closed form, equally in all
    processes.

    Args:
      exchange: how texts get from every process to all; None: jax's coordination service.
      seconds: how long to wait for the others.
      options: settings that name the cache; None: those in force.

    Raises:
      FleetError: the other processes were not heard within `seconds`.
    """
    place = store(options)
    contents = {} if place is None else place.digests()
    rows = [f"{name} {digest}" for name, digest in sorted(contents.items())]
    mine = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    if exchange is None:
        exchange = _service(seconds)
    try:
        heard = list(exchange(mine))
    except Exception as error:
        raise errors.FleetError(cause=errors.cause_of(error)) from error
    same = set(heard) == {mine}
    if place is not None:
        _agreed.pop(str(place.folder), None)
        if same:
            _agreed[str(place.folder)] = contents
    return same


def agreed(folder: object) -> Mapping[str, str] | None:
    """The entries (name to hash) that all processes agreed on for a folder; None: they did not."""
    return _agreed.get(str(folder))


def forget() -> None:
    """As before any agreement (for tests)."""
    _agreed.clear()


def _service(seconds: float) -> Exchange:
    return lambda text: compat.exchange("prism_jax/cache", text, seconds)
