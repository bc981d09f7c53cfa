"""How much text a corpus has: as it was scored, or guessed from its files and first documents."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, get_args

from openrpt.config.sections import Config
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.corpus_files import list_files
from openrpt.data.documents import read_corpus
from openrpt.data.score_summary import read_scored_json
from openrpt.data.scored import load_scored
from openrpt.data.splits import split_shares
from openrpt.errors import foreign
from openrpt.types import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


BYTES_A_TOKEN = 4
"""Bytes of text a token, about, where nothing has been tokenized yet."""
_GZIP_RATIO = 3
"""Bytes of text a byte of a .gz file gives, about."""
_GUESSED_TOKENS = 50_000
"""Tokens of a corpus whose size can't be seen: the default corpus has about as many."""
_SAMPLED_DOCUMENTS = 200
"""Documents that are read to see how long they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSize:
    """The amount of text in a corpus."""

    lengths: Sequence[int]
    """Tokens of its documents, or of the first ones: long documents are scored in windows that
    overlap, so the mean would not do."""
    documents_of: Mapping[str, float]
    """Documents of each split that is scored."""
    known: bool
    """Whether it was scored already; else it is a guess from the size of its files and of its first
    documents."""

    @property
    def tokens(self) -> float:
        """Tokens of all splits that are scored."""
        return sum(self.documents_of.values()) * mean(self.lengths)


def expected_tokens(config: Config) -> float:
    """Returns the corpus's tokens, guessed from its files; at most what score.max_tokens asks
    for."""
    return sum(split_tokens(config).values())


def split_tokens(config: Config) -> dict[str, float]:
    """Returns the tokens of each split that is scored, guessed: its share of the files, at most
    score.max_tokens."""
    corpus, limit = config.corpus, config.score.max_tokens or float("inf")
    size = _tokens_of(corpus.path)
    tokens = {split: share * size for split, share in split_shares(corpus).items()}
    if corpus.heldout_path:
        tokens["heldout"] = _tokens_of(corpus.heldout_path)
    return {split: min(limit, tokens[split]) for split in config.score.splits}


def _tokens_of(path: str) -> float:
    files = list_files(Path(path)).found if Path(path).exists() else []
    return sum(_text_bytes(file) for file, _ in files) / BYTES_A_TOKEN or _GUESSED_TOKENS


def _text_bytes(file: Path) -> int:
    return file.stat().st_size * (_GZIP_RATIO if file.suffix.lower() == ".gz" else 1)


def corpus_size(config: Config, tokenizer: "PreTrainedTokenizerBase") -> CorpusSize:
    """Returns the size by the run folder's own scores where it has them, else a guess."""
    folder = Path(config.run) / "scored"
    scored = read_scored_json(folder)
    if scored is not None and scored["finished"]:
        corpus = load_scored(folder)
        return CorpusSize(
            lengths=corpus.entries.num_tokens.tolist(),
            documents_of={split: float(len(corpus.numbers(split))) for split in get_args(Split)},
            known=True,
        )
    lengths = _first_lengths(config, tokenizer)
    documents_of = {split: n / mean(lengths) for split, n in split_tokens(config).items()}
    return CorpusSize(lengths=lengths, documents_of=documents_of, known=False)


def _first_lengths(config: Config, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Returns the tokens of the corpus's first documents; a window's where none can be read
    here."""
    if not Path(config.corpus.path).exists():
        return [config.prompt.window]
    with closing(read_corpus(config.corpus, CorpusCounts())) as documents:
        texts = [document.text for document in islice(documents, _SAMPLED_DOCUMENTS)]
    with foreign("the tokenizer fails on the corpus's first texts"):
        return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
