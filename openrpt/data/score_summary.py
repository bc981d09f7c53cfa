"""What became of a corpus at scoring: `scored.json`, which its folder holds beside the shards."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrpt.json_files import read_json

SCORED = "scored.json"


@dataclass(kw_only=True)
class ScoreSummary:
    """The state of a corpus's scoring; in the end, what became of the corpus."""

    shards: int = 0
    documents_read: int = 0
    """Documents read from the corpus, those that were not scored included."""
    documents: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    """Scored tokens (= positions) of each split."""
    skipped_short: int = 0
    """Documents with fewer tokens than corpus.min_tokens (or than a position needs)."""
    skipped_unencodable: int = 0
    """Documents that the tokenizer does not give back."""
    first: dict[str, list[str]] = field(default_factory=dict)
    """Names of the first 3 documents of each of these two counts, by the count's name."""
    positions_dropped: int = 0
    """Positions where a scorer with another tokenizer has no boundary."""
    corpus_hash: str = ""
    """Hash over the documents read, in order: their ids and splits."""

    @property
    def num_tokens(self) -> int:
        """Scored tokens of all splits."""
        return sum(self.tokens.values())


def read_scored_json(folder: Path) -> dict[str, Any] | None:
    """Returns the folder's `scored.json`; None where there is none. Raises UserError if it is
    broken."""
    path = folder / SCORED
    if not path.is_file():
        return None
    return read_json(path, advice="delete it and score again")
