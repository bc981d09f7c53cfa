"""Files of JSON lines: a changed byte is noticed, and a line that was cut off is left out."""

import json
import math
from pathlib import Path

import pytest

from openrpt.errors import UserError
from openrpt.json_lines import append_row, read_lines, whole_rows, write_rows
from openrpt.runs.metrics import append_metrics, read_metrics, readable_metrics

ROWS = [{"stage": "train", "step": step, "loss/ntp": step / 7} for step in (1, 2, 3)]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for row in ROWS:
        append_row(path, row)
    data = path.read_bytes()
    write_rows(path, read_lines(path).rows)
    assert path.read_bytes() == data and read_lines(path).rows == ROWS
    append_row(path, {"not finite": math.nan})
    assert json.loads(path.read_text().splitlines()[-1])["not finite"] is None
    assert not read_lines(path).damaged


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    """In a digit it would leave a line of JSON with another number."""
    path = tmp_path / "metrics.jsonl"
    for row in ROWS:
        append_metrics(path, row)
    data = path.read_bytes()
    for number, line in enumerate(data.splitlines(), 1):
        for place in range(len(line)):
            for bit in (0, 1, 6):
                flipped = bytearray(data)
                flipped[data.index(line) + place] ^= 1 << bit
                path.write_bytes(bytes(flipped))
                rows, notes = readable_metrics(path)
                kept = len(rows) == len(ROWS) and all(
                    row.items() <= found.items() for row, found in zip(ROWS, rows, strict=True)
                )
                if not kept:  # where the first hash's own name is hit, its row is whole
                    assert notes == [f"metrics.jsonl:{number}: damaged and left out"]
                    with pytest.raises(UserError, match=rf"metrics\.jsonl:{number}: damaged"):
                        read_metrics(path)


def test_a_changed_last_line_is_damaged_and_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for row in ROWS:
        append_metrics(path, row)
    path.write_text(path.read_text().replace('"step": 3', '"step": 7'))
    with pytest.raises(UserError, match=r"metrics\.jsonl:3: damaged"):
        read_metrics(path)
    with pytest.raises(UserError, match=r"metrics\.jsonl:3: damaged .*; mend it"):
        whole_rows(path, advice="mend it")


BAD_ROWS = [
    {"step": 0},
    {"step": -3},
    {"step": 10**400},
    {"step": True},
    {"stage": None},
    {"loss/ntp": "high"},
    {"loss/ntp": [1.0]},
    {"seconds": "long"},
    {"seconds": 10**400},
    {"warnings": [{"name": "flat"}]},
    {"warnings": {"name": "flat"}},
    {"warnings": [{"name": 1, "step": 1, "seen": "a", "helps": "b"}]},
    {"changed": {"train.learning_rate": 1}},
    {"changed": ["train.learning_rate"]},
]


@pytest.mark.parametrize("change", BAD_ROWS, ids=lambda change: json.dumps(change)[:40])
def test_a_row_of_another_shape_is_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    """A file of an older version, without a hash, or made by hand."""
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(row) for row in (ROWS[0], ROWS[1] | change, ROWS[2])]
    path.write_text("\n".join(lines) + "\n")
    rows, notes = readable_metrics(path)
    assert rows == [ROWS[0], ROWS[2]] and notes == ["metrics.jsonl:2: damaged and left out"]
