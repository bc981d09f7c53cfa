"""Random choices that depend on nothing but their own name.

Every draw is a pure function of a key such as (seed, step, document, position, rollout, token):
it does not depend on what else was in the batch, on the number of workers or on a restart.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def key_of(*parts: int | str) -> int:
    """A signed 64-bit key from any parts, by BLAKE2b."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator for choices made on the host (which documents, which positions)."""
    return np.random.Generator(np.random.Philox(key=key_of(*parts) & (2**64 - 1)))


def uniforms(keys: Tensor, token: int) -> Tensor:
    """One uniform in [0, 1) a key: the `token`-th output of SplitMix64 seeded by the key.

    keys [B] int64 → [B] float64, on the keys' device, with no host synchronisation.
    """
    z = keys + _wrap(_GOLDEN * (token + 1))
    z = (z ^ _shift_right(z, 30)) * _MIX1
    z = (z ^ _shift_right(z, 27)) * _MIX2
    z = z ^ _shift_right(z, 31)
    return _shift_right(z, 11).to(torch.float64) * 2.0**-53


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's own keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63
