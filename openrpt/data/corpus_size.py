"""How much text a corpus has: as it was scored, or guessed from its files (of one that is
made at run time: from the number of its documents) and first documents."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, get_args

from openrpt.config.corpus import CorpusConfig
from openrpt.config.sections import Config
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.corpus_files import list_files
from openrpt.data.documents import read_corpus
from openrpt.data.made_corpora import made_documents, made_records
from openrpt.data.score_summary import read_scored_json
from openrpt.data.scored import load_scored
from openrpt.data.splits import split_shares
from openrpt.errors import foreign
from openrpt.types import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_BYTES_A_TOKEN = 4
"""Bytes of text a token, about, of a corpus that can't be read here."""
_GZIP_RATIO = 3
"""Bytes of text a byte of a .gz file gives, about."""
_GUESSED_BYTES = 200_000
"""Bytes of a corpus whose size can't be seen: the default corpus has about as many."""
_SAMPLED_DOCUMENTS = 200
"""Documents that are read to see how long they are."""
_SAMPLED_BYTES = 2_000_000
"""Bytes of documents behind which no further one is read for that."""


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


def expected_bytes(config: Config) -> float:
    """Returns the bytes of text in all splits that are scored, guessed from the corpus's files."""
    return sum(_split_bytes(config).values())


def expected_tokens(config: Config, tokenizer: "PreTrainedTokenizerBase") -> float:
    """Returns the corpus's tokens, guessed from its files and first documents; at most what
    score.max_tokens asks for."""
    return sum(split_tokens(config, _first_documents(config, tokenizer).bytes_a_token).values())


def split_tokens(config: Config, bytes_a_token: float) -> dict[str, float]:
    """Returns the tokens of each split that is scored, guessed: its share of the files, at most
    score.max_tokens."""
    limit = config.score.max_tokens or float("inf")
    return {split: min(limit, size / bytes_a_token) for split, size in _split_bytes(config).items()}


def _split_bytes(config: Config) -> dict[str, float]:
    corpus = config.corpus
    size = _bytes_of(corpus)
    found = {split: share * size for split, share in split_shares(corpus).items()}
    if corpus.heldout_path:
        found["heldout"] = _bytes_of(corpus.model_copy(update={"path": corpus.heldout_path}))
    return {split: found[split] for split in config.score.splits}


def _bytes_of(corpus: CorpusConfig) -> float:
    path = Path(corpus.path)
    files = list_files(path).found if path.exists() else []
    size = sum(_text_bytes(file) for file, _ in files)
    return size or _made_bytes(corpus) or _GUESSED_BYTES


def _made_bytes(corpus: CorpusConfig) -> float:
    documents = made_documents(corpus)
    if not documents:
        return 0.0
    first = islice(made_records(corpus), _SAMPLED_DOCUMENTS)
    return documents * mean(len(record["text"].encode()) for _, record in first)


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
    first = _first_documents(config, tokenizer)
    documents_of = {
        split: n / mean(first.lengths)
        for split, n in split_tokens(config, first.bytes_a_token).items()
    }
    return CorpusSize(lengths=first.lengths, documents_of=documents_of, known=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _FirstDocuments:
    """The first documents of a corpus."""

    lengths: Sequence[int]
    """Tokens of each."""
    bytes_a_token: float
    """Bytes of text a token, all together."""


def _first_documents(config: Config, tokenizer: "PreTrainedTokenizerBase") -> _FirstDocuments:
    """Tokenizes the corpus's first documents; where none can be read here, one is as long as a
    window."""
    if not (Path(config.corpus.path).exists() or made_documents(config.corpus)):
        return _FirstDocuments(lengths=[config.prompt.window], bytes_a_token=_BYTES_A_TOKEN)
    texts, size = list[str](), 0
    with closing(read_corpus(config.corpus, CorpusCounts())) as documents:
        for document in islice(documents, _SAMPLED_DOCUMENTS):
            texts.append(document.text)
            size += len(document.text.encode())
            if size > _SAMPLED_BYTES:
                break
    with foreign("the tokenizer fails on the corpus's first texts"):
        found = tokenizer(texts, add_special_tokens=False)["input_ids"]
    lengths = [len(ids) for ids in found]
    return _FirstDocuments(lengths=lengths, bytes_a_token=size / max(sum(lengths), 1))
