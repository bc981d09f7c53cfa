"""What a run will take, stage by stage, as it is shown and kept."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from openrpt import amounts
from openrpt.costs.planned import PlannedStage
from openrpt.sheets import Sheet, print_sheet


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """The estimate of a run, stage by stage, with what it assumes."""

    machine: str
    stages: list[PlannedStage]
    assumptions: list[str]
    currency: str
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Returns the estimate as JSON has it: the stages, and their total."""
        rows = [asdict(stage) | {"flops": stage.flops} for stage in self.stages]
        total = {
            "tokens": sum(s.tokens for s in self.stages),
            "flops": sum(s.flops for s in self.stages),
            "seconds": sum(s.seconds for s in self.stages),
            "memory_bytes": max(s.memory_bytes for s in self.stages),
            "joules": sum(s.joules for s in self.stages),
            "endless": any(s.endless for s in self.stages),
            "money": None,
        }
        if all(s.money is not None for s in self.stages):
            total["money"] = sum(s.money or 0.0 for s in self.stages)
        return {
            "machine": self.machine,
            "stages": rows,
            "total": total,
            "currency": self.currency,
            "assumptions": self.assumptions,
            "warnings": self.warnings,
        }


def print_estimate(found: RunEstimate, console: Console) -> None:
    """Prints the table of `_estimate_sheet`, and what to beware of."""
    print_sheet(_estimate_sheet(found), console)
    for line in found.warnings:
        console.print(Text(f"warning: {line}", "yellow"), soft_wrap=True)


def _estimate_sheet(found: RunEstimate) -> Sheet:
    """Returns a row a stage, the total, and what was assumed; money where a price is known."""
    document = found.as_dict()
    priced = document["total"]["money"] is not None
    headings = ["", "tokens", "FLOPs", "time", "memory", "energy"]
    rows = []
    for row in [*document["stages"], {"stage": "total"} | document["total"]]:
        cells = [
            row["stage"],
            amounts.count(row["tokens"]),
            amounts.flops(row["flops"]),
            amounts.rough_duration(row["seconds"]) if row["seconds"] >= 1 else "under 1 s",
            f"{row['memory_bytes'] / 1e9:.1f} GB",
            amounts.energy(row["joules"]),
        ]
        if priced:
            cells.append(amounts.money(row["money"]))
        if row["endless"]:
            cells = [row["stage"], *["no end"] * (len(cells) - 1)]
            cells[4] = f"{row['memory_bytes'] / 1e9:.1f} GB"
        rows.append(cells)
    return Sheet(
        title=f"What it will take on {found.machine}",
        headings=[*headings, found.currency] if priced else headings,
        rows=rows,
        ends={len(rows) - 2},
        notes=[f"assumed: {line}" for line in found.assumptions],
    )
