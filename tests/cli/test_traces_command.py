"""The command `openrpt traces`."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from openrpt.cli.main import cli
from openrpt.data.traces import read_traces
from openrpt.errors import UserError


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["traces", "calculator", *map(str, arguments)])


def corpus(path: Path, documents: int = 30) -> Path:
    texts = [f"Nr. {n} of its kind: 2 x {n} + 1 = {2 * n + 1}." for n in range(documents)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_traces_of_a_file(tmp_path: Path) -> None:
    source, out = corpus(tmp_path / "sums.jsonl"), tmp_path / "traces.jsonl"
    done = invoke(source, "--out", out, "--splits", "train,development,heldout")
    assert done.exit_code == 0, done.output
    assert "30 traces in 30 of 30 documents, 1.0 in one, at most 1" in done.stdout
    assert "by operation: several 30" in done.stdout
    traces = [trace for _, trace in read_traces(out)]
    assert traces[3].thought == "\n2 x 3 = 6\n6 + 1 = 7" and traces[3].prediction == "7"
    assert traces[3].source == "calculator"
    # Nothing is overwritten.
    before = out.read_bytes()
    again = invoke(source, "--out", out)
    assert isinstance(again.exception, UserError) and "is there already" in str(again.exception)
    assert out.read_bytes() == before


def test_only_training_documents_unless_asked(tmp_path: Path) -> None:
    source, out = corpus(tmp_path / "sums.jsonl"), tmp_path / "traces.parquet"
    done = invoke(source, "--out", out, "--style", "bare", "--corpus.heldout_fraction", "0.5")
    assert done.exit_code == 0, done.output
    traces = [trace for _, trace in read_traces(out)]
    assert 0 < len(traces) < 30
    assert all("x" not in trace.thought and " " not in trace.thought for trace in traces)


def test_a_run_folders_own_corpus(tmp_path: Path) -> None:
    source = corpus(tmp_path / "sums.jsonl")
    (tmp_path / "c.toml").write_text(f'[corpus]\npath = "{source}"\n', encoding="utf-8")
    done = invoke(tmp_path / "c.toml", "--out", tmp_path / "t.jsonl")
    assert done.exit_code == 0 and "documents" in done.stdout
    assert not (tmp_path / "runs").exists()
