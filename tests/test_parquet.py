"""Tables that notice when a bit of their file has flipped."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openrpt.errors import UserError
from openrpt.parquet import MARK, read_table, reading_errors, values_of, write_table
from openrpt.runs.rollouts import read_rollouts, rollout_folder, stored_steps, write_rollouts
from tests.helpers.fake_run import fake_run, rollout


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_every_flipped_bit_is_noticed(tmp_path: Path, compression: str) -> None:
    path, rng = tmp_path / "a.parquet", random.Random(0)
    texts = [MARK.decode() + "0" * 64, "é", None]
    table = pa.table({"text": texts * 50, "number": [rng.random() for _ in range(150)]})
    table = table.replace_schema_metadata({"openrpt": '{"a": 1}'})
    write_table(path, table, compression=compression)
    assert read_table(path).equals(table) and pq.read_table(path).equals(table)
    assert read_table(path).schema.metadata[b"openrpt"] == b'{"a": 1}'
    whole, noticed = path.read_bytes(), 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            assert read_table(path).equals(table)  # a flip in the word before the hash
        except reading_errors():
            noticed += 1
    assert noticed >= 295
    path.write_bytes(whole)
    write_table(path, read_table(path).slice(1))  # its old hash goes
    assert read_table(path).num_rows == 149


def test_a_file_without_a_hash_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").num_rows == 1


def test_rollouts_go_by_number_and_damage_is_named(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", steps=1)
    for step in (1_000_000, 999_999):
        write_rollouts(run, step, [rollout(step=step)])
    (rollout_folder(run) / "step-abc.parquet").write_bytes(b"")
    assert stored_steps(rollout_folder(run)) == [1, 999_999, 1_000_000]
    assert read_rollouts(run)["step"].to_pylist() == [1_000_000]
    path = rollout_folder(run) / "step-1000000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"step-1000000\.parquet: not readable"):
        read_rollouts(run)


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, -2, 3]),
        pa.array([1, 2, 3, 4], pa.int8())[1:],
        pa.array([0.5, float("nan")], pa.float32()),
        pa.array([True, False, True, True])[1:],
        pa.array([], pa.int64()),
        pa.array([], pa.bool_()),
    ],
)
def test_values_are_as_arrow_gives_them(array: pa.Array) -> None:
    found, expected = values_of(array), array.to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_missing_values_are_filled() -> None:
    found = values_of(pa.array([1.5, None, 2.5, None], pa.float32())[1:], missing=np.nan)
    np.testing.assert_array_equal(found, np.array([np.nan, 2.5, np.nan], np.float32))
    assert values_of(pa.array([7, None]), missing=-1).tolist() == [7, -1]
    assert values_of(pa.array([None, True]), missing=False).tolist() == [False, True]
