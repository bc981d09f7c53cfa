"""What is said about a Ray cluster, and is refused before there is one."""

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner

from openrpt.cli.main import cli
from openrpt.errors import UserError
from openrpt.integrations.ray.cluster import Cluster, connected
from tests.helpers.tiny_model import tiny_config


def refused(*arguments: str) -> str:
    """What a command says that refuses its options."""
    found = CliRunner().invoke(cli, list(arguments))
    assert isinstance(found.exception, UserError), found
    return str(found.exception)


@pytest.mark.parametrize("command", ["score", "train", "evaluate", "traces self", "traces model m"])
def test_options_of_a_cluster_want_one(command, tmp_path):
    out = ["--out", str(tmp_path / "t.jsonl")] if command.startswith("traces") else []
    said = refused(*command.split(), *out, "--workers", "2")
    assert said == "--workers is about a Ray cluster; add --scale ray"


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = refused("train", "--scale", "ray")
    assert said.startswith('--scale ray needs ray; install it: pip install "openrpt[ray]"')


def test_a_server_is_not_spread(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from openrpt.runs.run import open_run
    from openrpt.stages.score.score import score_corpus

    config = tiny_config(tmp_path)
    score_corpus(config, open_run(config, min_free_bytes=0).scored)
    arguments = ["--run", config.run, "--out", str(tmp_path / "traces.jsonl"), "--scale", "ray"]
    said = refused("traces", "model", "http://127.0.0.1:1/v1", *arguments)
    assert "a server has its own machines" in said


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "nowhere.invalid:6379"])
def test_no_cluster_at_the_address(address: str, tmp_path: Path):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=rf"--address {address}: no Ray cluster there \(.+\)"):
        connected(Cluster(address=address), tmp_path).__enter__()


def test_more_workers_than_this_machine_has_cpus(tmp_path: Path):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"--workers 9999 of 1 CPUs: this machine has \d+"):
        connected(Cluster(workers=9999), tmp_path).__enter__()
