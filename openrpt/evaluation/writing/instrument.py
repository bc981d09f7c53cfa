"""Writing as an instrument: the same passages for every model, and one table of them all."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from openrpt.config.corpus import CorpusConfig
from openrpt.config.sections import Config
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import read_corpus
from openrpt.data.scored import load_scored
from openrpt.data.skipped import unread_lines
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.loading import load_tokenizer
from openrpt.errors import UserError
from openrpt.evaluation.instrument import Bench, Measured
from openrpt.evaluation.models import NamedModel
from openrpt.evaluation.reports import Report
from openrpt.evaluation.writing.mauve import quantise
from openrpt.evaluation.writing.passages import Passage, passages, passages_key
from openrpt.evaluation.writing.table import writing_report
from openrpt.evaluation.writing.writing import WritingResult, bits_of, completions, feature, halves
from openrpt.extras import require
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run


@dataclass(frozen=True, kw_only=True, eq=False)
class Writing:
    """Completions of held-out prefixes beside the real continuations."""

    text: str
    """The name of the text that the passages are from."""
    passages: Sequence[Passage]
    config: Config
    judge: str
    """The frozen model whose states are the features."""
    kind = WritingResult
    done = "has written before"

    @property
    def settings(self) -> dict[str, Any]:
        """All that a result depends on beside the model's files."""
        config = self.config
        return {
            "seed": config.seed,
            "writing": config.writing.model_dump(),
            "window": config.prompt.window,
            "dtype": config.model.precision,
            "judge": self.judge,
            "passages": passages_key(self.passages),
        }

    @cached_property
    def features(self) -> Engine:
        """The judge, opened when the first model has written."""
        return open_engine(self.config, path=self.judge)

    def title(self, label: str) -> str:
        """Returns the name of the progress of a model's measurement."""
        return f"{label} writes"

    def run(self, bench: Bench) -> WritingResult:
        """Completes each passage once, and measures the completions."""
        given, config, progress, title = self.passages, self.config, bench.progress, bench.title
        progress.begin(title, len(given), "completions")
        made = []
        for row in completions(bench.engine, given, config, bench.kept):
            made.append(row)
            progress.update(len(made))
        progress.begin(f"{title}: real text", len(given), "documents")
        bits, sizes = bits_of(given, config, bench.meter, progress)
        texts = {"real": [p.real for p in given], "generated": [row["text"] for row in made]}
        progress.begin(f"{title}: features", 2 * len(given), "texts")
        found = self._features(texts, progress)
        real_clusters, clusters = quantise(found["real"], found["generated"], seed=config.seed)
        return WritingResult(
            columns={
                "document_id": np.array([p.document_id for p in given]),
                **{kind: np.array(own, dtype=object) for kind, own in texts.items()},
                "stopped": np.array([float(row["stopped"]) for row in made]),
                "bits": bits,
                "bytes": sizes,
                "real_cluster": real_clusters,
                "generated_cluster": clusters,
            },
            features=self.features.model.name,
            settings=config.writing.model_dump(),
            halves={
                kind: halves(found["real"], own, seed=config.seed) for kind, own in found.items()
            },
        )

    def _features(self, texts: dict[str, list[str]], progress: Progress) -> dict[str, np.ndarray]:
        """Returns the features [D, d] of each kind of text."""
        found, done = {}, 0
        for kind, own in texts.items():
            rows = []
            for passage, text in zip(self.passages, own, strict=True):
                rows.append(feature(self.features, passage.prefix, text))
                done += 1
                progress.update(done)
            found[kind] = np.stack(rows)
        return found

    def report(self, measured: Sequence[Measured[WritingResult]]) -> Report:
        """Returns the models together beside the real text; differences are to the first."""
        return writing_report(self.text, measured)


def writing_of(
    run: Run,
    models: Sequence[NamedModel],
    config: Config,
    *,
    corpus: CorpusConfig | None = None,
    progress: Progress = SILENT,
) -> Writing:
    """Returns the instrument on passages of the run's split, or of another corpus, that every
    model's tokenizer gives back.

    Raises UserError where scikit-learn is missing, for a corpus or a tokenizer that can't be
    loaded, and as `passages`.
    """
    require("sklearn", extra="scikit-learn", what="openrpt writing")
    name, texts = _texts(run, config, corpus, progress)
    tokenizers = [load_tokenizer(config.model, model.path) for model in models]
    own = load_tokenizer(config.model, run.config.model.path)
    return Writing(
        text=name,
        passages=passages(texts, config, own, tokenizers),
        config=config,
        judge=config.writing.features or run.config.model.path,
    )


def _texts(
    run: Run, config: Config, corpus: CorpusConfig | None, progress: Progress
) -> tuple[str, Iterable[tuple[str, Callable[[], str]]]]:
    """Returns the text's name; for each document its id, and a function that reads it."""
    if corpus is not None:
        counts = CorpusCounts()
        documents = list(read_corpus(corpus, counts))
        for line in unread_lines(counts):
            progress.say(line)
        return Path(corpus.path).stem, [(d.document_id, lambda d=d: d.text) for d in documents]
    scored, split = load_scored(run.scored), config.evaluate.split
    ids = scored.ids(split)
    if not ids:
        raise UserError(f"{scored.folder}: no document of the {split} split was scored")
    return str(split), [(i, lambda i=i: scored.document(i).text) for i in ids]
