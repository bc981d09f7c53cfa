"""Perplexity of plain text: how well a model still (or better) knows a language.

Over all tokens of the documents, each predicted from its window's prefix, as the scorer reads
text. Errors are by document. Tokenizers differ, so models with different ones are compared in
bits a byte only.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from openrpt.config.corpus import CorpusConfig
from openrpt.config.sections import Config
from openrpt.costs.meters import WorkMeter
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import read_corpus
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.data.skipped import unread_lines
from openrpt.data.tokens import encode_document
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.scorer import score_ids
from openrpt.errors import UserError
from openrpt.evaluation.columns import Columns
from openrpt.evaluation.instrument import Bench, measure
from openrpt.evaluation.models import default_label, latest_model, model_path
from openrpt.evaluation.records import record_perplexity
from openrpt.evaluation.statistics import Estimate, ratio_by_document
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run, works_in_run
from openrpt.seeding import generator
from openrpt.types import Split


@dataclass(frozen=True, kw_only=True, eq=False)
class Perplexity(Columns):
    """The perplexity of a text. Columns, a value a document: `nats` and `tokens` (those that were
    predicted), and the `bytes` of their text."""

    skipped: int
    """Documents that the model's tokenizer does not give back, or of a single token."""

    @cached_property
    def nats_per_token(self) -> Estimate:
        """Mean negative log-likelihood of a token."""
        return ratio_of_documents(self.columns["nats"], self.columns["tokens"])

    @cached_property
    def bits_per_byte(self) -> Estimate:
        """Mean negative log-likelihood in bits, over the bytes of the tokens; its n is bytes."""
        return ratio_of_documents(self.columns["nats"] / math.log(2), self.columns["bytes"])

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood of a token."""
        return math.exp(self.nats_per_token.value)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the perplexity, from the normal interval of the nats; not a number
        for a single document."""
        reach = 1.96 * self.nats_per_token.standard_error
        value = self.nats_per_token.value
        return math.exp(value - reach), math.exp(value + reach)

    def describe(self) -> str:
        """Returns one line: `perplexity 12.3 [11.9, 12.8] · 2.51 ± 0.02 nats a token · …`; no
        error from a single document."""
        nats, bits = self.nats_per_token, self.bits_per_byte
        low, high = self.interval
        reach = f" [{low:.4g}, {high:.4g}]" if nats.documents > 1 else ""

        def shown(estimate: Estimate) -> str:
            error = f" ± {estimate.standard_error:.4f}" if estimate.documents > 1 else ""
            return f"{estimate.value:.4f}{error}"

        skipped = f" ({self.skipped:,} skipped)" if self.skipped else ""
        spent = ""
        if self.cost:
            spent = " · took {:.2g} FLOPs, {:.0f} s".format(
                *map(self.cost.get, ("flops", "seconds"))
            )
        return (
            f"perplexity {self.perplexity:.4g}{reach} · {shown(nats)} nats a token"
            f" · {shown(bits)} bits a byte · tokens {nats.n:,}, bytes {bits.n:,},"
            f" documents {nats.documents:,}{skipped}{spent}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as it stands in `evaluation.json`."""
        low, high = self.interval
        return {
            "perplexity": {"value": self.perplexity, "low": low, "high": high},
            "nats_per_token": self.nats_per_token.as_dict(),
            "bits_per_byte": self.bits_per_byte.as_dict(),
            "skipped": self.skipped,
            "cost": self.cost,
        }


def measure_perplexity(
    engine: Engine,
    texts: Iterable[str],
    *,
    window: int,
    max_tokens: int = 0,
    meter: WorkMeter | None = None,
    progress: Progress = SILENT,
) -> Perplexity:
    """Measures perplexity; each text is a document. After the one that reaches `max_tokens` (0 =
    none) it stops.

    A text's first token counts only behind a BOS token. Raises UserError if no text can be used,
    or the window is longer than the model can hold.
    """
    nats: list[float] = []
    tokens: list[int] = []
    sizes: list[int] = []
    skipped = 0
    for text in texts:
        try:
            ids, pieces = encode_document(engine.model.tokenizer, text)
        except UserError:  # a byte that this tokenizer loses; counted
            skipped += 1
            continue
        scores = score_ids(engine, ids, window=window, min_context=1)
        if meter is not None:
            meter.add_scoring(len(ids), window=window, min_context=1)
        losses = scores.negative_log_likelihood.astype(np.float64)
        known = ~np.isnan(losses)
        if not known.any():
            skipped += 1
            continue
        nats.append(float(losses[known].sum()))
        tokens.append(int(known.sum()))
        sizes.append(sum(len(p) for p, k in zip(pieces, known, strict=True) if k))
        done = sum(tokens)
        progress.update(done, f"{done:,} tokens of {len(tokens):,} documents")
        if max_tokens and done >= max_tokens:
            break
    if not tokens:
        raise UserError(f"no text to measure: {skipped} documents, none with a token to predict")
    columns = {"nats": np.array(nats), "tokens": np.array(tokens), "bytes": np.array(sizes)}
    return Perplexity(columns=columns, skipped=skipped)


def ratio_of_documents(sums: np.ndarray, sizes: np.ndarray) -> Estimate:
    """Returns Σ sums / Σ sizes of documents [D], with the error by document; its n is Σ sizes."""
    found = ratio_by_document(sums, sizes, np.arange(len(sums)))
    return replace(found, n=int(sizes.sum()))


def sampled_texts(corpus: ScoredCorpus, split: Split, *, tokens: int, seed: int) -> Iterator[str]:
    """Yields documents of a split in a keyed order, until they have that many of the scorer's
    tokens."""
    ids = corpus.ids(split)
    left = tokens
    for place in generator(seed, "perplexity", split).permutation(len(ids)):
        if left <= 0:
            return
        left -= corpus.entries[ids[place]].num_tokens
        yield corpus.document(ids[place]).text


def _split_texts(corpus: ScoredCorpus, split: Split) -> Iterator[str]:
    """Yields all scored documents of a split. Raises UserError where there are none."""
    ids = corpus.ids(split)
    if not ids:
        raise UserError(f"{corpus.folder}: no document of the {split} split was scored")
    return (corpus.document(document_id).text for document_id in ids)


@dataclass(frozen=True, kw_only=True, eq=False)
class TextPerplexity:
    """The instrument: perplexity of one text, read as a model reads it.

    Its result is a line of `evaluation.json`; the text is read anew each time, so nothing of it is
    taken from the run's folder.
    """

    config: Config
    name: str
    """The text's name."""
    texts: Iterable[str]
    max_tokens: int
    """The number of the model's tokens after which reading stops; 0 = at the end."""
    expected: int
    """The number of tokens, about."""
    kind = Perplexity
    done = "was measured before"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a result depends on beside the model's files and the text."""
        return {
            "text": self.name,
            "max_tokens": self.max_tokens,
            "window": self.config.prompt.window,
            "dtype": self.config.model.precision,
        }

    def title(self, label: str) -> str:
        """Returns the name of the progress of a model's measurement."""
        return f"perplexity of {label} on {self.name}"

    def run(self, bench: Bench) -> Perplexity:
        """Reads the text once."""
        bench.progress.begin(bench.title, self.expected, "tokens")
        return measure_perplexity(
            bench.engine,
            self.texts,
            window=self.config.prompt.window,
            max_tokens=self.max_tokens,
            meter=bench.meter,
            progress=bench.progress,
        )


@works_in_run
def model_perplexity(
    run: Run,
    model: str | None,
    config: Config,
    *,
    corpus: CorpusConfig | None = None,
    label: str = "",
    record: bool = True,
    progress: Progress = SILENT,
) -> tuple[str, str, Perplexity]:
    """Measures a model (see `model_path`; default: the run's latest) and records it.

    On the scored documents of the split `config.evaluate.split`, or on another corpus: every
    document of it, whatever its split, since none of it was trained on here. Returns the label,
    the text's name and the result. Raises UserError for whatever can't be loaded.
    """
    model = model or (latest_model(run) if record else config.model.path)
    label = label or default_label(run, model, run.config)
    path, counts = model_path(run, model), CorpusCounts()
    if corpus is None:
        instrument = _of_split(run, config)
    else:
        instrument = TextPerplexity(
            config=config,
            name=Path(corpus.path).name,
            texts=(document.text for document in read_corpus(corpus, counts)),
            max_tokens=config.score.max_tokens,
            expected=config.score.max_tokens,
        )
    progress.begin(f"load {path}", 0)
    engine = open_engine(config, path=path)
    measured = measure(instrument, engine, title=instrument.title(label), progress=progress)
    for line in unread_lines(counts):
        progress.say(line)
    if record:
        entry = {"model": path, "window": config.prompt.window} | measured.as_dict()
        record_perplexity(run, label, instrument.name, entry)
    return label, instrument.name, measured


def _of_split(run: Run, config: Config) -> TextPerplexity:
    split, scored = config.evaluate.split, load_scored(run.scored)
    return TextPerplexity(
        config=config,
        name=str(split),
        texts=_split_texts(scored, split),
        max_tokens=0,
        expected=sum(scored.entries[i].num_tokens for i in scored.ids(split)),
    )
