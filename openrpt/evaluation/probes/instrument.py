"""Probes as an instrument: the same positions for every model, and one table of them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openrpt.config.sections import Config
from openrpt.data.scored import ScoredCorpus
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.engine.loading import load_tokenizer
from openrpt.evaluation.instrument import Bench, Measured
from openrpt.evaluation.models import NamedModel
from openrpt.evaluation.probes.labels import ProbeSample, probe_sample
from openrpt.evaluation.probes.probes import ProbeResult, chosen_layers, fit_all, read_states
from openrpt.evaluation.probes.table import probe_report
from openrpt.evaluation.reports import Report
from openrpt.extras import require
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run
from openrpt.runs.scores import scores_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Probes:
    """Linear probes at positions of held-out documents."""

    corpus: ScoredCorpus
    config: Config
    sample: ProbeSample
    """The positions, and what is asked there."""
    kind = ProbeResult
    done = "probed before"

    @property
    def settings(self) -> dict[str, Any]:
        """All that a result depends on beside the model's files."""
        config = self.config
        return {
            "seed": config.seed,
            "layers": config.probe.layers,
            "window": config.prompt.window,
            "min_context": config.prompt.min_context,
            "dtype": config.model.precision,
            "sample": self.sample.key,
        }

    def title(self, label: str) -> str:
        """Returns the name of the progress of a model's measurement."""
        return f"probe {label}"

    def run(self, bench: Bench) -> ProbeResult:
        """Reads the states at the positions, and fits and tests a probe a layer and target."""
        sample, progress = self.sample, bench.progress
        last = bench.model.causal_lm.config.num_hidden_layers
        layers = chosen_layers(last, self.config.probe.layers)
        progress.begin(f"{bench.title}: states", len(sample.documents), "positions")
        states = read_states(self.corpus, sample, layers, bench.meter, progress)
        count = len(layers) * len(sample.labels)
        progress.begin(f"{bench.title}: {len(layers)} layers", count, "probes")
        columns, strengths = fit_all(states, layers, sample, self.config.seed, progress)
        return ProbeResult(
            columns=columns,
            layers=layers,
            targets=list(sample.labels),
            strengths=strengths,
            sample=sample.about(),
        )

    def report(self, measured: Sequence[Measured[ProbeResult]]) -> Report:
        """Returns the models together; differences are to the first, at the same layer."""
        return probe_report(measured)


def probes_of(
    run: Run, models: Sequence[NamedModel], config: Config, *, progress: Progress = SILENT
) -> Probes:
    """Returns probes on the run's scores, at positions that every model has a boundary at.

    Raises UserError where scikit-learn is missing, for scores or a tokenizer that can't be loaded,
    and as `probe_sample`.
    """
    require("sklearn", extra="scikit-learn", what="openrpt probe")
    corpus = scores_of(run)
    sample = probe_sample(corpus, config, _foreign_tokenizers(models, corpus, config))
    for note in sample.notes:
        progress.say(f"note: {note}")
    return Probes(corpus=corpus, config=config, sample=sample)


def _foreign_tokenizers(
    models: Sequence[NamedModel], corpus: ScoredCorpus, config: Config
) -> list[Any]:
    """Returns those tokenizers that are not the scores' own; none twice."""
    found = {}
    for model in models:
        tokenizer = load_tokenizer(config.model, model.path)
        found[tokenizer_fingerprint(tokenizer)] = tokenizer
    return [t for mark, t in found.items() if mark != corpus.metadata["tokenizer"]]
