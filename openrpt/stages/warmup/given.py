"""The thoughts that are given to a warmup (`warmup.traces`), and which of them a step takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openrpt.config.sections import Config
from openrpt.data.scored import ScoredCorpus
from openrpt.data.trace_places import PlacedTrace, TraceCounts, place_traces
from openrpt.data.traces import read_traces
from openrpt.data.work import Work, work_at
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.errors import UserError
from openrpt.files import reason_of
from openrpt.hashes import file_hash
from openrpt.runs.run import Run
from openrpt.seeding import generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenThoughts:
    """The traces of the training documents, placed; without a file there are none."""

    config: Config
    by_document: Mapping[str, Sequence[PlacedTrace]]
    """The traces of each document, by position."""
    summary: str = ""
    """The traces used and those left out, in one line; empty without a file."""

    @property
    def sources(self) -> list[str]:
        """The makers of the thoughts, as the file names them."""
        found = {one.source for traces in self.by_document.values() for one in traces}
        return sorted(found - {""})

    def elsewhere(self, config: Config) -> Config:
        """Returns the configuration that selects the positions without a trace: anywhere in the
        text, not only where `selection.where` says that thinking is trained."""
        if not self.by_document:
            return config
        selection = config.selection.model_copy(update={"where": ""})
        return config.model_copy(update={"selection": selection})

    def add(self, work: Work, *, cursor: int, count: int) -> Work:
        """Returns the work with positions that have a trace in place of some of its own.

        `warmup.trace_share` of the `count` positions are drawn from the traces of its window, as
        far as there are any; the draws are keyed by the seed and the cursor.
        """
        window = work.window
        traces = self.by_document.get(work.document.document_id, ())
        there = sorted({one.index for one in traces if window.first <= one.index < window.end})
        wanted = min(round(self.config.warmup.trace_share * count), len(there))
        if not wanted:
            return work
        rng = generator(self.config.seed, "traces", cursor)
        taken = rng.choice(there, wanted, replace=False).tolist()
        others = [p.index for p in work.positions if p.index not in taken]
        kept = rng.permutation(others)[: count - wanted].tolist()
        return work_at(work.document, window, sorted(taken + kept))

    def at(self, work: Work, step: int) -> list[PlacedTrace | None]:
        """Returns the trace to imitate at each position; None where there is none. Where several
        stand at a position, one of them is drawn."""
        document_id = work.document.document_id
        by_index: dict[int, list[PlacedTrace]] = {}
        for one in self.by_document.get(document_id, ()):
            by_index.setdefault(one.index, []).append(one)
        found: list[PlacedTrace | None] = []
        for position in work.positions:
            if position.index not in by_index:
                found.append(None)
                continue
            there = by_index[position.index]
            rng = generator(self.config.seed, "trace", document_id, position.index, step)
            found.append(there[int(rng.integers(len(there)))])
        return found


def traces_hash(config: Config) -> str:
    """Returns the SHA-256 of the file at `warmup.traces`; empty where no thoughts are given. Raises
    UserError where it can't be read."""
    path = config.warmup.traces
    if not path:
        return ""
    try:
        return file_hash(Path(path))
    except OSError as error:
        raise UserError(f"warmup.traces = '{path}': can't be read {reason_of(error)}") from None


def open_given(
    run: Run, state: TrainerState, corpus: ScoredCorpus, tokenizer: "PreTrainedTokenizerBase"
) -> GivenThoughts:
    """Reads and places the traces of the run's file, if it has one.

    Raises UserError as `read_traces` and `place_traces`, where none is of a training document, and
    where the stage has begun (`state`) with another file.
    """
    config, path = run.config, run.config.warmup.traces
    if state.traces != traces_hash(config):
        raise UserError(
            f"warmup.traces = '{path}': not the file that the warmup in {run.path} began with; put"
            " that one back, or use another --run"
        )
    if not path:
        return GivenThoughts(config=config, by_document={})
    counts = TraceCounts()
    placed = place_traces(read_traces(Path(path)), corpus, tokenizer, config.prompt, counts)
    training = corpus.ids("train")
    used = {name: placed[name] for name in training if name in placed}
    if not used:
        raise UserError(
            f"warmup.traces = '{path}': all {counts.placed:,} traces are of documents that are not"
            " trained on; make them with --splits train"
        )
    number = sum(len(traces) for traces in used.values())
    left_out = [counts.left_out()] if counts.left_out() else []
    if number < counts.placed:
        left_out.append(f"{counts.placed - number:,} of documents that are not trained on")
    given = GivenThoughts(config=config, by_document=used)
    by = f" by {', '.join(given.sources)}" if given.sources else ""
    summary = (
        f"given thoughts: {number:,}{by}, in {len(used):,} of {len(training):,} training documents"
    )
    if left_out:
        summary += f"; left out: {', '.join(left_out)}"
    return GivenThoughts(config=config, by_document=used, summary=summary)
