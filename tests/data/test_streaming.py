"""A dataset of the `datasets` library is read as a stream: memory does not grow with it."""

import base64
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

READ = """
import resource, sys
from openrpt.config.corpus import CorpusConfig
from openrpt.data.readers import read_records

def peak():
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size // (2**20 if sys.platform == "darwin" else 2**10)

records = read_records(CorpusConfig(path=f"datasets:{sys.argv[1]}"), ["text"])
size = len(next(records).fields["text"])
first = peak()
size += sum(len(record.fields["text"]) for record in records)
print(size >> 20, peak() - first)
"""


def test_memory_stays_while_a_folder_of_shards_is_read(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    draw = random.Random(0)
    for shard in range(3):
        texts = [base64.b64encode(draw.randbytes(6000)).decode() for _ in range(2000)]
        path = tmp_path / "corpus" / f"train-{shard:05}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"text": texts}), path, row_group_size=100)
    command = [sys.executable, "-c", READ, str(path.parent)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    read, grown = map(int, done.stdout.split())
    assert read >= 45 and grown < 20  # MiB
    assert not list(tmp_path.rglob("*.arrow"))
