"""The sums of an update over micro-batches, documents and workers: each number with what it is
divided by.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean:
    """A mean that is not divided yet, so that parts of it can be added.

    >>> (Mean(total=3.0, count=2.0) + Mean(total=1.0, count=2.0)).value
    1.0
    """

    total: float
    count: float
    """The number of things that `total` sums, tokens, say; parts of one mean count the same."""

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(total=self.total + other.total, count=self.count + other.count)

    @property
    def value(self) -> float:
        """The mean; 0 over nothing."""
        return self.total / max(self.count, 1.0)


@dataclass(kw_only=True, eq=False)
class Tally:
    """The metrics of one update while it runs."""

    sums: dict[str, float] = field(default_factory=dict)
    """Parts of the step's value: their metric is the sum."""
    means: dict[str, Mean] = field(default_factory=dict)
    """Parts whose metric is the mean over all that was added."""

    def add(self, name: str, part: float) -> None:
        """Adds one more part of a sum over the step."""
        self.sums[name] = self.sums.get(name, 0.0) + part

    def add_means(self, means: Mapping[str, Mean]) -> None:
        """Adds one more part of each of these means."""
        for name, mean in means.items():
            known = self.means.get(name)
            self.means[name] = mean if known is None else known + mean

    @classmethod
    def of_all(cls, tallies: Iterable["Tally"]) -> "Tally":
        """Returns several tallies of one update, in their order, as one."""
        whole = cls()
        for tally in tallies:
            for name, part in tally.sums.items():
                whole.add(name, part)
            whole.add_means(tally.means)
        return whole

    def metrics(self) -> dict[str, float]:
        """Returns the metrics: each sum, and each mean's value."""
        return self.sums | {name: mean.value for name, mean in self.means.items()}
