"""`openrpt export verl`: a folder from which verl trains a run, with nothing of the run but it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined

from openrpt.config.loading import to_toml
from openrpt.config.sections import Config
from openrpt.data.evaluation_work import asked_evaluation_work
from openrpt.data.prompts import Layout
from openrpt.data.scored import ScoredCorpus
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.data.training_work import take_work
from openrpt.data.work import Work
from openrpt.engine.loading import outline, resolve_model
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.files import replacing_folder, write_text
from openrpt.integrations.verl.completing import Form
from openrpt.integrations.verl.rows import SCHEMA, Row, rows_of
from openrpt.integrations.verl.settings import require_exportable, template_values
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run
from openrpt.runs.scores import scores_of

_FILES = ("rpt.yaml", "dynamic.yaml", "dapo.yaml", "agent_loop.yaml", "train.sh", "cluster.sh")
"""The files that are made of templates, README.md aside."""
_ROWS_HELD = 256
"""Rows of a row group: what is in memory at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSummary:
    """The numbers of an export."""

    train_rows: int
    development_rows: int
    documents: int
    """Documents that the training rows are of, each time one is taken."""
    longest_prompt: int
    """Tokens of the longest prompt of all rows."""

    def lines(self) -> list[str]:
        """Returns the numbers in words."""
        return [
            f"{self.train_rows:,} training positions of {self.documents:,} documents,"
            f" {self.development_rows:,} of development",
            f"longest prompt: {self.longest_prompt:,} tokens",
        ]


def export_verl(
    config: Config, out: Path, *, positions: int | None = None, progress: Progress = SILENT
) -> ExportSummary:
    """Writes the folder `out` in one step: parquet files, verl's configuration, launch scripts.

    `positions`: training positions; None = those of `train.steps`. They are what `train` chooses,
    in its order, documents whole; a strategy by pass rates knows the scorer's alone. Raises
    UserError where `out` is taken, for what verl can't do, and as `scores_of`.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; delete it, or give another name")
    require_exportable(config)
    run = Run(path=Path(config.run), config=config)
    corpus = scores_of(run)
    policy = outline(config)
    layout = policy.layout(config.prompt)
    train = config.train
    of_step = train.prompts
    wanted = positions or train.steps * of_step
    if wanted < of_step:
        raise UserError(
            f"--positions {wanted} are fewer than a step's {of_step} (train.documents_per_step ×"
            f" train.positions_per_document): ask for at least {of_step}"
        )
    model = _model(run)
    with replacing_folder(out) as folder:
        rows = _Rows(config, policy, layout)
        progress.begin("export", wanted, "positions")
        works = _train_works(corpus, config, wanted)
        rows.write(folder / "train.parquet", works, progress.update)
        train_rows, documents = rows.written, rows.works
        if corpus.ids("development"):
            rows.write(folder / "development.parquet", iter(_development_works(corpus, config)))
        form = Form.of(
            config.prompt,
            layout,
            stop_ids=policy.stop_ids,
            tokenizer=tokenizer_fingerprint(policy.tokenizer),
        )
        values = template_values(
            config,
            layout,
            model=model,
            parameters=sum(one.numel() for one in policy.network.parameters()),
            longest_prompt=rows.longest,
            has_development=rows.written > train_rows,
        )
        values |= {"folder": str(out.resolve()), "form": form.values(), "rows": train_rows}
        _write_files(folder, values)
        write_text(folder / "openrpt.toml", to_toml(config))
    return ExportSummary(
        train_rows=train_rows,
        development_rows=rows.written - train_rows,
        documents=documents,
        longest_prompt=rows.longest,
    )


def _model(run: Run) -> str:
    """Returns what training starts from: the warmed-up policy, else the start model; a folder by
    its whole path, a Hub id as it is."""
    name = str(run.start) if run.start.is_dir() else run.config.model.path
    found = resolve_model(name)
    return str(Path(found).resolve()) if Path(found).is_dir() else found


def _train_works(corpus: ScoredCorpus, config: Config, positions: int) -> Iterator[Work]:
    """Yields the documents' windows that training takes, up to so many positions."""
    count = config.train.positions_per_document
    works = take_work(corpus, config, cursor=0, count=count, purpose="positions")
    left = positions
    for _, work in works:
        yield work
        left -= len(work.positions)
        if left <= 0:
            return


def _development_works(corpus: ScoredCorpus, config: Config) -> list[Work]:
    """Returns the positions of training's own evaluations."""
    positions = config.train.eval_positions
    return asked_evaluation_work(corpus, config, split="development", positions=positions)


class _Rows:
    """Writes the rows of works to files, and counts them."""

    def __init__(self, config: Config, policy: Model, layout: Layout) -> None:
        self._config, self._policy, self._layout = config, policy, layout
        self.works = 0
        """Documents' windows that rows were made of."""
        self.written = 0
        """Rows of all files; they are numbered on."""
        self.longest = 0
        """Tokens of the longest prompt so far."""

    def write(
        self,
        path: Path,
        works: Iterator[Work],
        done: Callable[[float], None] = lambda rows: None,
    ) -> None:
        """Writes a file, a row group at a time; `done` is told the number of rows so far."""
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            rows = self._each(works)
            while group := list(islice(rows, _ROWS_HELD)):
                writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
                done(self.written)

    def _each(self, works: Iterator[Work]) -> Iterator[Row]:
        prompt, tokenizer = self._config.prompt, self._policy.tokenizer
        for work in works:
            self.works += 1
            for row in rows_of(work, self._layout, prompt, tokenizer, first=self.written):
                self.written += 1
                self.longest = max(self.longest, len(row["extra_info"]["prompt_ids"]))
                yield row


def _write_files(folder: Path, values: dict[str, object]) -> None:
    environment = Environment(
        loader=PackageLoader("openrpt.integrations.verl"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["yaml"] = _yaml
    for name in (*_FILES, "README.md"):
        write_text(folder / name, environment.get_template(f"{name}.jinja").render(values))


def _yaml(value: Any) -> str:
    """Returns a value as YAML reads it: JSON, but a number such as 1e-06 needs its point."""
    text = json.dumps(value)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")
    return text
