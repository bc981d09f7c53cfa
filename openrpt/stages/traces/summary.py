"""The numbers that a maker of traces leaves, whoever it is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from openrpt.data.traces import GivenTrace


@dataclass(kw_only=True, slots=True)
class TraceSummary:
    """The numbers of documents read and of traces made."""

    documents: int = 0
    """Documents that were read."""
    bytes: int = 0
    """Bytes of their texts."""
    with_traces: int = 0
    most: int = 0
    """The most traces of one document."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Traces by kind."""
    bytes_predicted: int = 0
    """Bytes of the text that the traces predict, each place once."""

    @property
    def traces(self) -> int:
        """The number of traces, of all kinds."""
        return self.kinds.total()

    def add(self, traces: Sequence[GivenTrace]) -> None:
        """Counts the traces of one document."""
        longest: dict[int | None, int] = {}
        for trace in traces:
            size = len(trace.prediction.encode())
            longest[trace.byte_offset] = max(size, longest.get(trace.byte_offset, 0))
        self.kinds.update(trace.kind for trace in traces)
        self.bytes_predicted += sum(longest.values())
        self.with_traces += bool(traces)
        self.most = max(self.most, len(traces))

    def lines(self) -> list[str]:
        """Returns the summary as lines to be printed."""
        found = f"{self.traces:,} traces in {self.with_traces:,} of {self.documents:,} documents"
        if not self.traces:
            return [found]
        a_document = self.traces / self.with_traces
        share = self.bytes_predicted / self.bytes
        return [
            f"{found}, {a_document:.1f} in one, at most {self.most}; they predict {share:.1%} of"
            " the text"
        ]
