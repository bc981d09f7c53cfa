"""Runs to look at: `load_run(path)` gives a run folder's files as tables, and its report.

Nothing of a run is changed here, and what is absent, half-written or of a newer version is said
in `notes`, not raised, as long as there is anything to show.
"""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from openrpt.config.sections import Config
from openrpt.runs.metrics import readable_metrics
from openrpt.runs.reading import NO_METRICS, look_at, run_warnings
from openrpt.runs.run import Run
from openrpt.types import Split

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Report:
    """A run's report, which a notebook shows in place when it is the last value of a cell."""

    page: str
    """The whole HTML file."""
    height: int = 800
    """Height of the frame, in pixels."""

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.page)}" width="100%" height="{self.height}"'
            ' style="border: 0" title="OpenRPT report"></iframe>'
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedRun:
    """A run folder's content. Tables are Arrow's: `run.metrics().to_pandas()`,
    `polars.from_arrow(run.metrics())`."""

    run: Run
    notes: tuple[str, ...]
    """Lines on what is absent, or was left out."""

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.run.path

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.run.config

    def metrics(self, stage: str | None = None) -> "pa.Table":
        """Returns a row a step, a column a metric (docs/metrics.md); null where a step has none."""
        import pyarrow as pa

        found, _ = readable_metrics(self.run.metrics)
        rows = [row for row in found if stage in (None, row["stage"])]
        names = dict.fromkeys(name for row in rows for name in row if name not in NO_METRICS)
        return pa.table({name: [row.get(name) for row in rows] for name in names})

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """The warnings of its steps (docs/metrics.md): stage, step, name, what was seen, what
        helps."""
        return run_warnings(readable_metrics(self.run.metrics)[0])

    @property
    def steps(self) -> list[int]:
        """The steps of train whose rollouts are stored."""
        from openrpt.runs.rollouts import rollout_folder, stored_steps

        return stored_steps(rollout_folder(self.path))

    @property
    def development_steps(self) -> list[int]:
        """The steps after which the development split was evaluated, and its rollouts stored."""
        from openrpt.runs.rollouts import rollout_folder, stored_steps

        return stored_steps(rollout_folder(self.path, development=True))

    def rollouts(
        self, step: int | None = None, *, development: bool = False, model: str = ""
    ) -> "pa.Table":
        """Returns a row a rollout (openrpt.runs.rollouts.SCHEMA), of one step or of all that are
        stored: of training, of the evaluations on the development split, or of the evaluation of a
        model, known by its label in `evaluation`.

        Raises UserError where none are, or a file is not readable.
        """
        import pyarrow as pa

        from openrpt.runs.rollouts import read_evaluated, read_rollouts

        if model:
            return read_evaluated(self.path, model)
        steps = self.development_steps if development else self.steps
        if step is not None or not steps:
            return read_rollouts(self.path, step, development=development)
        tables = [read_rollouts(self.path, one, development=development) for one in steps]
        return pa.concat_tables(tables, promote_options="default")

    def scores(self) -> "pa.Table":
        """Returns a row a token of the scored documents: document_id, split, position, token_id,
        byte_offset, negative_log_likelihood, entropy and entropy_top16 (nats), ntp_token_id (the
        scorer's most probable token) and ntp_correct (whether it is right). Null where a token has
        no score.

        Raises UserError where the scores are missing, not finished or broken.
        """
        import pyarrow as pa

        from openrpt.data.scored import load_scored
        from openrpt.data.scored_shards import position_table

        corpus = load_scored(self.run.scored)
        table = pa.concat_tables(
            position_table(corpus.folder, shard) for shard in range(corpus.entries.shards)
        )
        splits = {name: split for split in get_args(Split) for name in corpus.ids(split)}
        split = pa.array([splits[name] for name in table["document_id"].to_pylist()])
        return table.add_column(1, "split", split)

    @property
    def evaluation(self) -> dict[str, Any]:
        """`evaluation.json`: "evaluations" by label, and "differences"."""
        from openrpt.evaluation.records import read_evaluation

        return read_evaluation(self.run.evaluation)

    def report(self, *, height: int = 800) -> Report:
        """Returns the report as `openrpt report` writes it; it shows inline in a notebook."""
        from openrpt.report.page import render

        return Report(page=render(self.run), height=height)

    def __repr__(self) -> str:
        notes = f", notes={list(self.notes)}" if self.notes else ""
        return f"LoadedRun('{self.path}', {len(self.steps)} steps with rollouts{notes})"


def load_run(path: str | Path) -> LoadedRun:
    """Opens a run folder, whatever state it is in. Raises UserError where no run is."""
    run, notes = look_at(Path(path))
    return LoadedRun(run=run, notes=notes)
