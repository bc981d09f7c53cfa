"""The side of the split on which a document stands: by a hash of its key, or as a field says."""

from hashlib import sha256
from typing import Any

from openrpt.config.corpus import CorpusConfig
from openrpt.errors import UserError
from openrpt.types import Split

_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "development": "development",
    "dev": "development",
    "validation": "development",
    "valid": "development",
    "val": "development",
    "heldout": "heldout",
    "held-out": "heldout",
    "test": "heldout",
}
"""The names that corpora have for the sides."""


def split_of_key(key: str, config: CorpusConfig) -> Split:
    """Returns the side of the split for a key: its SHA-256 as a uniform number in [0, 1), cut by
    shares.

    It depends on nothing else, so a document's side survives any change of the others. Where
    `config.heldout_path` gives the held-out documents, none is by its key.
    """
    # 53 bits: as many as a float holds, so that rounding never gives 1.
    uniform = (int.from_bytes(sha256(key.encode()).digest()[:8], "big") >> 11) / 2**53
    shares = split_shares(config)
    if uniform < shares["heldout"]:
        return "heldout"
    if uniform < shares["heldout"] + shares["development"]:
        return "development"
    return "train"


def split_shares(config: CorpusConfig) -> dict[Split, float]:
    """Returns the share of the documents of `config.path` that each side of the split gets."""
    heldout = 0.0 if config.heldout_path else config.heldout_fraction
    development = config.development_fraction
    return {"train": 1 - heldout - development, "development": development, "heldout": heldout}


def split_named(value: Any, name: str, source: str) -> Split:
    """Returns the side that a field says. Raises UserError, with file and line, for what is none.

    >>> split_named("Test", "part", "problems.jsonl:1")
    'heldout'
    """
    side = _NAMES.get(value.strip().lower()) if isinstance(value, str) else None
    if side is None:
        shown = f"'{value}'" if isinstance(value, str) else type(value).__name__
        raise UserError(
            f"{source}: field '{name}' (corpus.split) is {shown}, not a side of the split:"
            " train, development (dev, validation) or heldout (test)"
        )
    return side
