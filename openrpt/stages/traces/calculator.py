"""Traces of a calculator: what can be said about the arithmetic in a corpus's own text."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from openrpt.config.sections import Config
from openrpt.data.calculator.find import find_computed
from openrpt.data.calculator.working import Style, working
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.corpus_size import expected_bytes
from openrpt.data.documents import read_corpus
from openrpt.data.traces import GivenTrace, require_new, write_traces
from openrpt.errors import UserError
from openrpt.progress import SILENT, Progress
from openrpt.stages.traces.summary import TraceSummary
from openrpt.types import Split

_CALCULATOR = "calculator"


@dataclass(kw_only=True, slots=True)
class CalculatorSummary(TraceSummary):
    """The numbers of documents read and of computed numbers found; a kind is an operation."""

    rounded: int = 0
    """The number of traces whose text says a rounded result."""
    corpus: CorpusCounts = field(default_factory=CorpusCounts)

    def lines(self) -> list[str]:
        """Returns the summary as lines to be printed."""
        # `super()` does not work in a class with slots, which dataclass makes anew.
        found = TraceSummary.lines(self)
        if not self.traces:
            return found
        kinds = ", ".join(f"{name} {count:,}" for name, count in self.kinds.most_common())
        return [*found, f"by operation: {kinds}", f"rounded in the text: {self.rounded:,}"]


def calculator_traces(
    config: Config,
    path: Path,
    *,
    splits: Sequence[Split] = ("train",),
    style: Style = "lines",
    progress: Progress = SILENT,
) -> CalculatorSummary:
    """Writes a trace for each computed number of the corpus's documents on these splits.

    The thought is the working, the prediction the number as the text has it: so what is trained on
    them is supervised by the text. Raises UserError where `path` is taken, for what can't be read,
    and where there is no computed number.
    """
    require_new(path)
    summary = CalculatorSummary()
    progress.begin("traces", expected_bytes(config), "bytes, at a guess")
    write_traces(path, _calculated(config, splits, style, summary, progress))
    if not summary.traces:
        path.unlink()
        raise UserError(
            f"{config.corpus.path}: no computed number, such as the 24 of '48/2 = 24', in"
            f" {summary.documents:,} documents ({', '.join(splits)})"
        )
    return summary


def _calculated(
    config: Config,
    splits: Sequence[Split],
    style: Style,
    summary: CalculatorSummary,
    progress: Progress,
) -> Iterator[GivenTrace]:
    read = 0
    with closing(read_corpus(config.corpus, summary.corpus)) as documents:
        for document in documents:
            size = len(document.text.encode())
            read += size
            progress.update(read, f"{summary.documents:,} documents · {summary.traces:,} traces")
            if document.split not in splits:
                continue
            summary.documents += 1
            summary.bytes += size
            computed = list(find_computed(document.text))
            summary.rounded += sum(found.is_rounded for found in computed)
            traces = [
                GivenTrace(
                    key=document.key,
                    document_id=document.document_id,
                    byte_offset=found.start,
                    thought=working(found, style),
                    prediction=found.text,
                    kind=found.kind,
                    source=_CALCULATOR,
                )
                for found in computed
            ]
            summary.add(traces)
            yield from traces
