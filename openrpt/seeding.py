"""Random choices that depend on nothing but their own name.

Every draw is a pure function of a key such as (seed, step, document, position, rollout, token):
it does not depend on what else was in the batch, on the number of workers or on a restart.
"""

import hashlib

import numpy as np


def key_of(*parts: int | str) -> int:
    """Returns a signed 64-bit key from any parts, by BLAKE2b."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def keys_of(count: int, *parts: int | str) -> tuple[int, ...]:
    """Returns the keys of `count` things of one name: 0, 1, … behind its parts."""
    return tuple(key_of(*parts, number) for number in range(count))


def generator(*parts: int | str) -> np.random.Generator:
    """Returns a NumPy generator for choices made on the host (which documents, which positions)."""
    return np.random.Generator(np.random.Philox(key=key_of(*parts) & (2**64 - 1)))
