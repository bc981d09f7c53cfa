"""The samples table of the report: a row a group of rollouts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from openrpt.report.chunks import as_text, finite


@dataclass(kw_only=True, slots=True)
class Samples:
    """The samples table: a row a group, column by column."""

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: []
            for name in (
                "document",
                "position",
                "step",
                "model",
                "evaluated",
                "entropy",
                "truth",
                "ntp",
                "ntp_right",
                "prediction",
                "prediction_right",
                "rollouts",
                "right",
                "reward",
            )
        }
    )

    def add(
        self, document: int, groups: Sequence[dict[str, Any]], tokens: Sequence[bytes] | None
    ) -> None:
        """Adds a row a group. `document`: its place in the index; `tokens`: None where its text is
        absent."""
        for group in groups:
            rewards = [reward or 0.0 for reward in group["reward"]]
            here = group["position"]
            commonest = Counter(group["prediction"]).most_common(1)[0][0]
            row = {
                "document": document,
                "position": here,
                "step": group["step"],
                "model": group.get("model", ""),
                "evaluated": group.get("evaluated", 0),
                "entropy": group["entropy"],
                "truth": as_text(tokens[here]) if tokens else group["continuation"][0],
                "ntp": group["ntp"],
                "ntp_right": group["ntp_right"],
                "prediction": commonest,
                "prediction_right": int(group["matched"][group["prediction"].index(commonest)] > 0),
                "rollouts": len(rewards),
                "right": sum(length > 0 for length in group["matched"]),
                "reward": finite([sum(rewards) / len(rewards)], 3)[0],
            }
            for name, value in row.items():
                self.columns[name].append(value)
