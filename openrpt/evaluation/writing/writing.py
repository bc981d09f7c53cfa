"""A model's writing: its completions of held-out prefixes beside the real continuations.

Perplexity says how well a model predicts what others wrote; this says what it writes itself, by
diversity, repetition and a MAUVE-like similarity to the continuations, the real text behind the
same prefixes, whose own values stand beside the model's as the reference.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openrpt.config.sections import Config
from openrpt.costs.meters import WorkMeter
from openrpt.data.prompts import Layout, build_layout
from openrpt.data.request import Request
from openrpt.data.tokens import encode_document
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.evaluation.columns import Columns
from openrpt.evaluation.intervals import Resampled
from openrpt.evaluation.kept import Kept
from openrpt.evaluation.patterns.measures import distinct, words_of
from openrpt.evaluation.perplexity.perplexity import measure_perplexity
from openrpt.evaluation.resamples import document_weights
from openrpt.evaluation.writing.mauve import divergence_area, histograms, quantise
from openrpt.evaluation.writing.passages import Passage
from openrpt.json_lines import Row
from openrpt.progress import Progress
from openrpt.seeding import generator, key_of

_REPEATED = 4
_HALVINGS = 20
"""Random halves of the documents over which the like-for-like distance is averaged."""
MEASURES = {
    "bits_per_byte": "bits a byte of the real text, prefix and continuation",
    "distinct_1": "different words of all completions, over all words",
    "distinct_2": "different pairs of words, over all pairs",
    "distinct_3": "different triples of words, over all triples",
    "rep_4": "4-grams of words that a completion has said before (seq-rep-4)",
    "words": "words and signs of a completion",
    "stopped": "completions that the model ended itself",
    "mauve_like": "likeness to the real continuations, 1 = no difference",
    "mauve_like_halves": "… of one half of the documents to the real ones of the other half",
}
DECIMALS = {"bits_per_byte": 4, "words": 1}
"""Digits of the measures that are no shares."""
OF_REAL = ("distinct_1", "distinct_2", "distinct_3", "rep_4", "words", "mauve_like_halves")
"""Measures that the continuations have as well."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WritingResult(Columns):
    """The texts of a model and what was measured of them. Columns, one row a document:
    `document_id`, `real` and `generated` (texts), `stopped`, `bits` and `bytes` (of the real text
    under the model), `real_cluster` and `generated_cluster` (of the quantised features)."""

    features: str
    """The frozen model whose states the features are."""
    settings: dict[str, Any]
    """The settings: [writing] of the configuration."""
    halves: dict[str, float]
    """By `generated` and `real`, the mean MAUVE-like value of _HALVINGS, one half against the real
    texts of the other."""

    @property
    def documents(self) -> int:
        """The number of documents completed."""
        return len(self.columns["document_id"])

    def measure(self, name: str, kind: str = "generated") -> Resampled:
        """Returns one of MEASURES, of the completions or (OF_REAL) the continuations. Resamples of
        two results on the same documents are the same."""
        count = self.documents
        texts = [words_of(text) for text in self.columns[kind].tolist()]
        if name.startswith("distinct"):
            value, draws = pooled_distinct(texts, int(name[-1]))
            return Resampled(value=value, draws=draws, documents=count, jackknife=True)
        if name == "mauve_like_halves":
            none = np.array([])  # no interval: halves of the same documents overlap
            return Resampled(value=self.halves[kind], draws=none, documents=count)
        if name == "mauve_like":
            return self._mauve_like()
        if name == "bits_per_byte":
            sums, sizes = self.columns["bits"], self.columns["bytes"]
        elif name == "rep_4":
            unique = [distinct([words], _REPEATED) for words in texts]
            sums = np.array([0.0 if u is None else 1 - u for u in unique])
            sizes = np.array([float(u is not None) for u in unique])
        else:
            values = [len(words) for words in texts] if name == "words" else self.columns[name]
            sums, sizes = np.asarray(values, dtype=float), np.ones(count)
        return _ratio(sums, sizes)

    def _mauve_like(self) -> Resampled:
        clusters = [self.columns[f"{kind}_cluster"] for kind in ("real", "generated")]
        count = int(max(own.max() for own in clusters)) + 1

        def area(weights: np.ndarray) -> np.ndarray:
            p, q = (histograms(own, count, weights) for own in clusters)
            return divergence_area(p, q)

        draws = [area(part) for part in np.array_split(document_weights(self.documents), 40)]
        value = float(area(np.ones(self.documents)))
        return Resampled(value=value, draws=np.concatenate(draws), documents=self.documents)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Returns, under `generated` and `real`, each measure's value, low, high, n, documents."""
        return {
            "generated": {name: self.measure(name).interval().as_dict() for name in MEASURES},
            "real": {name: self.measure(name, "real").interval().as_dict() for name in OF_REAL},
        }


def _ratio(sums: np.ndarray, sizes: np.ndarray) -> Resampled:
    """Returns Σ sums / Σ sizes of documents [D]; not a number where there is nothing."""
    weights = document_weights(len(sums))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(np.float64(sums.sum()) / np.float64(sizes.sum()))
        draws = (weights @ sums) / (weights @ sizes)
    return Resampled(value=value, draws=draws, documents=len(sums))


def pooled_distinct(texts: Sequence[Sequence[str]], n: int) -> tuple[float, np.ndarray]:
    """Returns distinct-n over all texts together (Li et al., arXiv 1510.03055), and [D] with each
    one left out: a bootstrap would count a text that is drawn twice as repetition.

    >>> value, without = pooled_distinct([["a", "b"], ["a", "c"], ["a"]], 1)
    >>> value, without.tolist()
    (0.6, [0.6666666666666666, 0.6666666666666666, 0.75])
    """
    own = [Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in texts]
    holders = Counter(gram for grams in own for gram in grams)
    alone = np.array([sum(holders[gram] == 1 for gram in grams) for grams in own], dtype=float)
    sizes = np.array([grams.total() for grams in own], dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.float64(len(holders)) / sizes.sum()
        return float(value), (len(holders) - alone) / (sizes.sum() - sizes)


def halves(real: np.ndarray, other: np.ndarray, *, seed: int) -> float:
    """Halves features [D, d] of the same documents → the mean MAUVE-like value of one half of
    `other` against the other half's real texts. For `other` = real it is what real text itself
    reaches: the level that a perfect writer would have at this many documents."""
    count, values = len(real), []
    for number in range(_HALVINGS):
        order = generator(seed, "writing halves", number).permutation(count)
        one, two = order[: count // 2], order[count // 2 :]
        p, q = quantise(real[two], other[one], seed=number)
        size = int(max(p.max(), q.max())) + 1
        counts = [histograms(own, size, np.ones(len(own))) for own in (p, q)]
        values.append(float(divergence_area(*counts)))
    return float(np.mean(values))


def feature(engine: Engine, prefix: str, text: str) -> np.ndarray:
    """Returns [d] the mean of the last layer's states over a text behind its prefix; over the
    prefix's last one where the text is empty."""
    policy = engine.model
    before = [*policy.bos_ids, *encode_document(policy.tokenizer, prefix)[0]]
    own = policy.table.plain_tokenizer.encode(text, add_special_tokens=False).ids
    room = policy.max_length - len(own)
    _require_room(policy, len(own) + 1)
    before = before[-room:]
    states = _states(engine, before + own)
    return states[min(len(before), len(states) - 1) :].mean(0)


def _states(engine: Engine, ids: Sequence[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        (hidden,) = engine.states([ids])
        return hidden.double().cpu().numpy()


def _require_room(policy: Model, tokens: int) -> None:
    if tokens > policy.max_length:
        raise UserError(
            f"model '{policy.name}' holds {policy.max_length} tokens, {tokens} are needed: lower"
            " writing.prefix_tokens or writing.completion_tokens"
        )


def completions(
    engine: Engine, passages: Sequence[Passage], config: Config, kept: Kept
) -> Iterator[Row]:
    """Yields each passage's completion in turn: its text, tokens, and whether the model ended it.

    Raises UserError for what is too long for the model.
    """
    policy, settings = engine.model, config.writing
    layout = build_layout(policy.tokenizer, config.prompt, policy.bos_ids).plain
    sampling = Sampling.plain(settings.completion_tokens, temperature=settings.temperature)
    table = policy.table.bytes

    def make(new: Sequence[Passage]) -> Iterator[Row]:
        requests = [_request(policy, passage, config, layout) for passage in new]
        each = engine.generate_each(requests, layout, sampling)
        for passage, (outcome,) in zip(new, each, strict=True):
            (completion,) = outcome.completions
            pieces = [table[i] for i in completion.token_ids if i < len(table)]
            yield {
                "document_id": passage.document_id,
                "text": b"".join(pieces).decode("utf-8", errors="replace"),
                "tokens": len(completion.token_ids),
                "stopped": completion.finish_reason == "stop",
            }

    return kept.each({p.document_id: p for p in passages}, make, key="document_id")


def _request(policy: Model, passage: Passage, config: Config, layout: Layout) -> Request:
    ids, _ = encode_document(policy.tokenizer, passage.prefix)
    prefix = (*layout.head_ids, *ids)
    _require_room(policy, len(prefix) + config.writing.completion_tokens)
    key = key_of(config.seed, "writing", passage.document_id)
    return Request.at_end(prefix, [key])


def bits_of(
    passages: Sequence[Passage],
    config: Config,
    meter: WorkMeter,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bits [D] and bytes [D] of each passage's real text under the model."""
    bits, sizes, window = [], [], config.prompt.window
    for number, passage in enumerate(passages, 1):
        found = measure_perplexity(meter.engine, [passage.prefix + passage.real], window=window)
        bits.append(found.bits_per_byte.value * found.bits_per_byte.n)
        sizes.append(float(found.bits_per_byte.n))
        meter.add_scoring(found.nats_per_token.n + 1, window=window, min_context=1)
        progress.update(number)
    return np.array(bits), np.array(sizes)
