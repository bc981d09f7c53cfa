"""Perplexity of plain text: how well a model still (or better) knows a language.

Over all tokens of the documents, each predicted from its window's prefix, as the scorer reads
text. Errors are by document. Tokenizers differ, so models with different ones are compared in
bits a byte only.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from openrpt.costs.meters import WorkMeter
from openrpt.data.scored import ScoredCorpus
from openrpt.data.tokens import encode_document
from openrpt.engine.engine import Engine
from openrpt.engine.scorer import score_ids
from openrpt.errors import UserError
from openrpt.evaluation.columns import Columns
from openrpt.evaluation.statistics import Estimate, ratio_by_document
from openrpt.progress import SILENT, Progress
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
