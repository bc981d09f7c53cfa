"""How a training step's time grows with its positions, its group size and its window.

    python benchmarks/growth.py

Each point is one whole step of OpenRPT (every rollout trained) in a process of its own; all
points are run once, then again. A line is fitted to each series.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from case import Case, add_arguments, make_case
from common import environment, exit_cleanly, parser_of, run_child, say, spread, write_result


@dataclass(frozen=True, kw_only=True)
class Point:
    series: str
    case: Case

    @property
    def new_tokens(self) -> int:
        return self.case.rollouts * self.case.new_tokens

    @property
    def window(self) -> int:
        return len(self.case.window_ids)


def main() -> None:
    given = arguments()
    points = make_points(given)
    started = environment()
    seconds: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(points))}
    for repeat in range(1, given.repeats + 1):
        for number, point in enumerate(points):
            case = point.case
            job = case.job(steps=1, brief_warm_up=True, measure_rates=False)
            found = run_child(sys.executable, "openrpt_step.py", job)
            seconds[number] += found["steps"]
            say(
                f"repeat {repeat} of {given.repeats}, {point.series}: window {point.window},"
                f" {len(case.prefix_lengths)} positions × {case.group_size}:"
                f" {found['steps'][0]['seconds']:.2f} s"
            )
    measured = [summary(point, seconds[number]) for number, point in enumerate(points)]
    result = started | {
        "case": {
            key: points[0].case.facts()[key] for key in ("model", "new_tokens", "threads", "dtype")
        },
        "repeats": given.repeats,
        "points": measured,
        "fits": fits(measured),
    }
    write_result(given.output, "growth", result)
    for name, fit in result["fits"].items():
        say(f"{name}: R² {fit['r_squared']:.4f}, {1000 * fit['slope']:.3f} ms a token")


def make_points(given: argparse.Namespace) -> list[Point]:
    def sized(positions: int, group_size: int, window: int) -> Case:
        sizes = {"positions": positions, "group_size": group_size, "window": window}
        return make_case(argparse.Namespace(**vars(given) | sizes))

    positions, group_size, window = given.positions, given.group_size, given.window
    return [
        *(
            Point(series="positions", case=sized(count, group_size, window))
            for count in numbers(given.position_counts)
        ),
        *(
            Point(series="group_size", case=sized(positions, size, window))
            for size in numbers(given.group_sizes)
        ),
        *(
            Point(series="window", case=sized(positions, group_size, size))
            for size in numbers(given.windows)
        ),
    ]


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def summary(point: Point, steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "series": point.series,
        "window": point.window,
        "positions": len(point.case.prefix_lengths),
        "group_size": point.case.group_size,
        "new_tokens": point.new_tokens,
        "seconds": spread([step["seconds"] for step in steps]),
        "phases": {
            name: spread([step["phases"][name] for step in steps]) for name in steps[0]["phases"]
        },
        "tokens": steps[0]["tokens"],
    }


def fits(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Seconds over new tokens (positions and group size), and over the window's tokens.

    `in_new_tokens`: what one more token of the window takes, in new tokens (sampled and trained);
    were the window paid for every rollout, it would be near their number.
    """

    def series(name: str, by: str) -> dict[str, float]:
        chosen = [point for point in points if point["series"] == name]
        return line([p[by] for p in chosen], [p["seconds"]["median"] for p in chosen])

    found = {
        "positions": series("positions", "new_tokens"),
        "group_size": series("group_size", "new_tokens"),
        "window": series("window", "window"),
    }
    of_new = statistics.mean([found["positions"]["slope"], found["group_size"]["slope"]])
    found["window"]["in_new_tokens"] = found["window"]["slope"] / of_new
    return found


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Least squares: slope, intercept, and the share of the variance that the line explains.

    >>> line([1, 2, 3], [5, 7, 9])
    {'slope': 2.0, 'intercept': 3.0, 'r_squared': 1.0}
    """
    slope, intercept = statistics.linear_regression(x, y)
    return {
        "slope": slope,
        "intercept": intercept,
        "r_squared": statistics.correlation(x, y) ** 2,
    }


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add_arguments(parser)
    parser.set_defaults(positions=8, group_size=4)
    parser.add_argument("--position-counts", default="4,8,16,32,64", help="a series")
    parser.add_argument("--group-sizes", default="4,8,16,32", help="another")
    parser.add_argument("--windows", default="256,512,1024,2048,4096", help="a third")
    parser.add_argument("--repeats", type=int, default=2, help="of all points")
    parser.add_argument("--output", type=Path, default=Path("growth.json"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_cleanly(main)
