"""Which folder, how large, signed with what: the `Store` that the settings in force ask for."""

from __future__ import annotations

import functools
from pathlib import Path

from prism_jax import errors
from prism_jax.cache.store import Store
from prism_jax.options import Options, cache_folder, current, variable

_ENVIRONMENT = "env:"
#: Shorter keys are refused: they can be guessed.
LEAST_KEY_BYTES = 16


class NoSecretError(ValueError):
    """The key to sign with cannot be had. The message is the end of a sentence."""


def store(options: Options | None = None) -> Store | None:
    """The cache's folder, or None where there is none to use: switched off, no place for it, or
    signatures are asked for and there is no key (which is said once).
    """
    settings = options or current()
    folder = cache_folder(settings)
    if settings.cache == "off" or folder is None:
        return None
    try:
        key = secret(settings.cache_key)
        if key is None and settings.trust_cache == "signed":
            raise NoSecretError("cache_key is not set")
    except NoSecretError as error:
        where = ("cache", folder, str(error))
        errors.warn(errors.SecretMissing(problem=str(error)), where)
        return None
    return Store(
        Path(folder),
        limit=settings.cache_megabytes * 2**20,
        secret=key if settings.trust_cache == "signed" else None,
        sign_with=key,
    )


def secret(source: str | None) -> bytes | None:
    """The key that `cache_key` names; None where it names none.

    Raises:
      NoSecretError: it cannot be read, or is too short.
    """
    if source is None:
        return None
    if source.startswith(_ENVIRONMENT):
        name = source.removeprefix(_ENVIRONMENT)
        value = variable(name)
        if not value:
            raise NoSecretError(f"the variable {name} is not set")
        return _long_enough(value.encode(), f"the variable {name}")
    return _long_enough(_file(source), f"the file {source}")


@functools.lru_cache(maxsize=8)
def _file(source: str) -> bytes:
    try:
        return Path(source).read_bytes().strip()
    except OSError as error:
        raise NoSecretError(f"{source}: {error.strerror}") from None


def _long_enough(key: bytes, what: str) -> bytes:
    if len(key) < LEAST_KEY_BYTES:
        raise NoSecretError(f"{what} holds fewer than {LEAST_KEY_BYTES} bytes")
    return key
