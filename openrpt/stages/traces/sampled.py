"""Traces of a model: thoughts sampled at positions of scored documents, kept where the reward says
that what they lead to is right (rejection sampling; STaR, arXiv 2203.14465, section 3.1, without
its rationalization: the model is never shown what is right).

Right is what the reward of training calls right, the prefix match. Of a position's thoughts each is
kept once, with the longest right prediction; one that is empty is none, since a position without a
trace has the target of no thought already.
"""

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from openrpt.config.sections import Config
from openrpt.data.prompt_texts import prompt_settings
from openrpt.data.scored import ScoredCorpus
from openrpt.data.token_classes import COMPUTED, CONTEXT, computed_tokens, token_class
from openrpt.data.traces import GivenTrace, require_new, write_traces
from openrpt.data.training_work import take_work
from openrpt.data.work import Work, work_at, works_key
from openrpt.errors import UserError
from openrpt.evaluation.kept import Kept
from openrpt.json_lines import Row
from openrpt.progress import SILENT, Progress
from openrpt.rl.completions import extract_prediction, split_thought
from openrpt.rl.grading import CONTINUATION_TOKENS
from openrpt.rl.rewards.matching import prefix_match
from openrpt.seeding import generator
from openrpt.sheets import Sheet
from openrpt.stages.traces.summary import TraceSummary
from openrpt.stages.traces.thinkers import Said, Thinker


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """How many thoughts are drawn, and where."""

    samples: int = 8
    """Thoughts at each position."""
    positions: int = 1000
    """Positions in all; fewer where the documents do not have as many."""
    positions_per_document: int = 16
    balance: bool = False
    """Whether no class of tokens has more traces than the classes have in the median."""


@dataclass(kw_only=True, slots=True)
class SampledSummary(TraceSummary):
    """The numbers of thoughts drawn and kept; a kind is a class of tokens."""

    positions: Counter[str] = field(default_factory=Counter)
    """Positions asked at, by class."""
    drawn: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    """Rollouts whose prediction is right."""
    solved: Counter[str] = field(default_factory=Counter)
    """Positions with a thought that is kept."""
    found: Counter[str] = field(default_factory=Counter)
    """Thoughts before the classes are balanced, none twice at a position."""

    def count(self, rows: Sequence[Row]) -> None:
        """Counts what was drawn at each of these positions."""
        for row in rows:
            name = row["class"]
            self.positions[name] += row["drawn"] > 0
            self.drawn[name] += row["drawn"]
            self.right[name] += row["right"]
            self.solved[name] += bool(row["traces"])
            self.found[name] += len(row["traces"])

    def sheet(self) -> Sheet:
        """Returns the yield by class."""
        names = [name for name, _ in self.positions.most_common()]
        rows = [self._row(name, [name]) for name in names]
        if len(names) > 1:
            rows.append(self._row("all", names))
        return Sheet(
            title="",
            headings=["class", "positions", "rollouts", "right", "with a trace", "traces"],
            rows=rows,
            ends={len(names) - 1},
        )

    def _row(self, label: str, names: Sequence[str]) -> list[str]:
        positions, drawn, right, solved, kept = (
            sum(counts[name] for name in names)
            for counts in (self.positions, self.drawn, self.right, self.solved, self.kinds)
        )
        right_share = f"{right / drawn:.1%}" if drawn else "–"
        solved_share = f"{solved / positions:.1%}" if positions else "–"
        return [label, f"{positions:,}", f"{drawn:,}", right_share, solved_share, f"{kept:,}"]


def sampled_traces(
    corpus: ScoredCorpus,
    config: Config,
    thinker: Thinker,
    path: Path,
    draw: Draw,
    *,
    progress: Progress = SILENT,
) -> SampledSummary:
    """Writes the thoughts that lead a thinker to what a text says, at positions of the training
    documents that `selection` chooses.

    What is drawn is kept beside `path`, as `.partial.jsonl`, until the file is whole: the same
    command goes on from there. Raises UserError where `path` is taken, where the prompt leaves no
    room for a thought, and where no thought is right.
    """
    require_new(path)
    if not config.prompt.think_budget:
        raise UserError(
            "prompt.think_budget = 0 leaves no room for a thought of one's own; give"
            " --prompt.think_budget 48, say"
        )
    works = _works(corpus, config, draw)
    total = sum(len(work.positions) for work in works)
    progress.begin(f"traces by {thinker.name}", total, "positions")
    partial = Kept(path=path.with_name(f"{path.name}.partial.jsonl"))
    mark = _mark(works, config, thinker, draw.samples)
    items = {f"{mark}/{work.document.document_id}": work for work in works}

    def make(left: Sequence[Work]) -> Iterator[Row]:
        for work, said in zip(left, thinker.think(left, draw.samples), strict=True):
            name = f"{mark}/{work.document.document_id}"
            yield {"work": name, "positions": _rows(work, said, config)}

    summary, of_document = SampledSummary(), []
    done = 0
    for work, row in zip(works, partial.each(items, make, key="work"), strict=True):
        summary.count(row["positions"])
        of_document.append(_traces(work, row["positions"], thinker.name))
        done += len(work.positions)
        progress.update(done, f"{summary.found.total():,} traces")
    kept = _balanced(of_document, config.seed) if draw.balance else of_document
    for work, traces in zip(works, kept, strict=True):
        summary.documents += 1
        summary.bytes += len(work.document.text.encode())
        summary.add(traces)
    if summary.traces:
        write_traces(path, (trace for traces in kept for trace in traces))
    if partial.path is not None:
        partial.path.unlink(missing_ok=True)
    if not summary.traces:
        raise UserError(
            f"none of {summary.drawn.total():,} rollouts at {total:,} positions has a thought and a"
            f" right prediction ({summary.right.total():,} are right without one); give examples"
            " (--prompt.examples), more --samples, or a model that can do it"
        )
    return summary


def _works(corpus: ScoredCorpus, config: Config, draw: Draw) -> list[Work]:
    """Returns the positions that are asked at: those of a window of each training document, in the
    order of training's first epoch."""
    documents, left = len(corpus.ids("train")), draw.positions
    found: list[Work] = []
    count = draw.positions_per_document
    for cursor, work in take_work(corpus, config, cursor=0, count=count, purpose="traces"):
        if cursor > documents or not left:
            break
        indices = [position.index for position in work.positions[:left]]
        left -= len(indices)
        found.append(work_at(work.document, work.window, indices))
    return found


def _mark(works: Sequence[Work], config: Config, thinker: Thinker, samples: int) -> str:
    """Returns 16 hex digits of what each work's thoughts depend on."""
    prompt = prompt_settings(config.prompt)
    parts = [thinker.mark, samples, config.seed, prompt, works_key(works)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _rows(work: Work, said: Said, config: Config) -> list[Row]:
    """Returns, for each position, what was drawn there and what of it is kept."""
    document = work.document
    text = document.text.encode()
    starts = [*document.byte_offsets.tolist(), len(text)]
    computed = set(computed_tokens(document.text, document.byte_offsets))
    rows = []
    for position in work.positions:
        index, offset = position.index, starts[position.index]
        ends = starts[index : index + CONTINUATION_TOKENS + 1]
        pieces = [text[a:b] for a, b in pairwise(ends)]
        before = text[max(0, offset - CONTEXT) : offset]
        completions = said.get(offset, ())
        right = _right(completions, pieces, config.prompt.thought_end.encode())
        rows.append(
            {
                "byte_offset": offset,
                "class": COMPUTED if index in computed else token_class(pieces[0], before),
                "drawn": len(completions),
                "right": len(right),
                "traces": _distinct(right, config.prompt.thought_end),
            }
        )
    return rows


def _right(
    completions: Sequence[bytes], continuation: Sequence[bytes], thought_end: bytes
) -> list[tuple[bytes, bytes]]:
    """Returns thought and prediction of those that are right."""
    found = []
    for completion in completions:
        prediction = extract_prediction(completion, thought_end=thought_end)
        if prediction is not None and prefix_match(prediction, continuation):
            found.append((split_thought(completion, thought_end=thought_end), prediction))
    return found


def _distinct(right: Sequence[tuple[bytes, bytes]], thought_end: str) -> list[tuple[str, str]]:
    """Returns each thought once, with its longest prediction; without those that are empty, are no
    text, or end in their midst."""
    longest: dict[str, str] = {}
    for thought, prediction in right:
        try:
            said, predicted = thought.decode(), prediction.decode()
        except UnicodeDecodeError:  # half a character
            continue
        if said.strip() and thought_end not in said and len(predicted) > len(longest.get(said, "")):
            longest[said] = predicted
    return list(longest.items())


def _traces(work: Work, rows: Sequence[Row], name: str) -> list[GivenTrace]:
    return [
        GivenTrace(
            key=work.document.key,
            document_id=work.document.document_id,
            byte_offset=row["byte_offset"],
            thought=thought,
            prediction=prediction,
            kind=row["class"],
            source=name,
        )
        for row in rows
        for thought, prediction in row["traces"]
    ]


def _balanced(of_document: Sequence[Sequence[GivenTrace]], seed: int) -> list[list[GivenTrace]]:
    """Returns the traces of each document without those that a class has more than the classes have
    in the median; which ones follows from the seed."""
    every = [(d, n) for d, traces in enumerate(of_document) for n in range(len(traces))]
    by_kind: dict[str, list[tuple[int, int]]] = {}
    for d, n in every:
        by_kind.setdefault(of_document[d][n].kind, []).append((d, n))
    if not by_kind:
        return [list(traces) for traces in of_document]
    most = max(1, round(statistics.median(len(places) for places in by_kind.values())))
    kept: set[tuple[int, int]] = set()
    for kind, places in by_kind.items():
        chosen = generator(seed, "balance", kind).permutation(len(places))[:most]
        kept |= {places[i] for i in chosen.tolist()}
    return [
        [trace for n, trace in enumerate(traces) if (d, n) in kept]
        for d, traces in enumerate(of_document)
    ]
