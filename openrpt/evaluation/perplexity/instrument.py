"""Perplexity of a run's models, on its scored split or on another text, and its record."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.config.corpus import CorpusConfig
from openrpt.config.sections import Config
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import read_corpus
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.data.skipped import unread_lines
from openrpt.engine.engine import open_engine
from openrpt.errors import UserError
from openrpt.evaluation.instrument import Bench, measure
from openrpt.evaluation.models import default_label, latest_model, model_path
from openrpt.evaluation.perplexity.perplexity import Perplexity, measure_perplexity
from openrpt.evaluation.records import record_perplexity
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run, works_in_run
from openrpt.types import Split


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


def _split_texts(corpus: ScoredCorpus, split: Split) -> Iterator[str]:
    """Yields all scored documents of a split. Raises UserError where there are none."""
    ids = corpus.ids(split)
    if not ids:
        raise UserError(f"{corpus.folder}: no document of the {split} split was scored")
    return (corpus.document(document_id).text for document_id in ids)
