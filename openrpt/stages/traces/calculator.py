"""Making traces: what a calculator can say about the arithmetic in a corpus's own text."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from openrpt.config.sections import Config
from openrpt.data.calculator.find import find_computed
from openrpt.data.calculator.working import Style, working
from openrpt.data.corpus_size import BYTES_A_TOKEN, expected_tokens
from openrpt.data.documents import CorpusCounts, read_corpus
from openrpt.data.traces import GivenTrace, require_new, write_traces
from openrpt.errors import UserError
from openrpt.progress import SILENT, Progress
from openrpt.types import Split

_CALCULATOR = "calculator"


@dataclass(kw_only=True, slots=True)
class TraceSummary:
    """The numbers of documents read and of traces found."""

    documents: int = 0
    """Documents of the splits that were asked for."""
    bytes: int = 0
    """Bytes of their texts."""
    with_traces: int = 0
    most: int = 0
    """The most traces of one document."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Traces by operation."""
    rounded: int = 0
    """The number of traces whose text says a rounded result."""
    bytes_predicted: int = 0
    corpus: CorpusCounts = field(default_factory=CorpusCounts)

    @property
    def traces(self) -> int:
        """The number of traces, of all kinds."""
        return sum(self.kinds.values())

    def lines(self) -> list[str]:
        """Returns the summary as lines to be printed."""
        found = f"{self.traces:,} traces in {self.with_traces:,} of {self.documents:,} documents"
        if not self.traces:
            return [found]
        a_document = self.traces / self.with_traces
        share = self.bytes_predicted / self.bytes
        kinds = sorted(self.kinds.items(), key=lambda item: -item[1])
        return [
            f"{found}, {a_document:.1f} in one, at most {self.most}; they predict {share:.1%} of"
            " the text",
            "by operation: " + ", ".join(f"{name} {count:,}" for name, count in kinds),
            f"rounded in the text: {self.rounded:,}",
        ]


def calculator_traces(
    config: Config,
    path: Path,
    *,
    splits: Sequence[Split] = ("train",),
    style: Style = "lines",
    progress: Progress = SILENT,
) -> TraceSummary:
    """Writes a trace for each computed number of the corpus's documents on these splits.

    The thought is the working, the prediction the number as the text has it: so what is trained on
    them is supervised by the text. Raises UserError where `path` is taken, for what can't be read,
    and where there is no computed number.
    """
    require_new(path)
    summary = TraceSummary()
    progress.begin("traces", expected_tokens(config) * BYTES_A_TOKEN, "bytes, at a guess")
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
    summary: TraceSummary,
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
            of_document = 0
            for found in find_computed(document.text):
                of_document += 1
                summary.kinds[found.kind] = summary.kinds.get(found.kind, 0) + 1
                summary.rounded += found.is_rounded
                summary.bytes_predicted += found.end - found.start
                yield GivenTrace(
                    key=document.key,
                    document_id=document.document_id,
                    byte_offset=found.start,
                    thought=working(found, style),
                    prediction=found.text,
                    kind=found.kind,
                    source=_CALCULATOR,
                )
            summary.with_traces += of_document > 0
            summary.most = max(summary.most, of_document)
