"""openrpt-env under prime-rl's own configuration and curriculum, of a checkout of its source: run
`PRIME_RL=CHECKOUT python scripts/environments.py --check verifiers`."""

import json
import os
import re
import sys
import tomllib
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verifiers")
sys.path.append(os.path.join(os.environ.get("PRIME_RL", ""), "packages/prime-rl-configs/src"))
sys.path.append(os.path.join(os.environ.get("PRIME_RL", ""), "src"))
pytest.importorskip("prime_rl.configs", reason="PRIME_RL names no checkout of prime-rl")

import verifiers.v1 as vf
from prime_rl.configs.rl import RLConfig
from prime_rl.orchestrator.curriculum import Curriculum
from pydantic import ValidationError
from verifiers.v1.utils.loaders import resolve_env_config

from tests.helpers.tiny_model import tiny_run

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "envs" / "openrpt_env"))  # where it is not installed


def documented() -> dict[str, Any]:
    """The file that the page shows."""
    page = (ROOT / "docs" / "verifiers.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(# rl\.toml.*?)```", page, re.DOTALL)
    return tomllib.loads(block)


def test_the_file_of_the_page_is_one_of_prime_rl() -> None:
    config = RLConfig.model_validate(documented())
    (source,) = config.orchestrator.train.source
    taskset = source.env.taskset
    assert type(taskset).__module__ == "openrpt_env.taskset" and taskset.run == Path("runs/maths")
    assert source.algo.type == "max_rl" and source.group_size == 8
    given = documented()  # another: validation puts its own objects into the first
    given["orchestrator"]["train"]["source"][0]["env"]["taskset"]["runs"] = "x"
    with pytest.raises(ValidationError, match="runs"):
        RLConfig.model_validate(given)


def test_prime_rl_goes_on_where_it_was(tmp_path: Path) -> None:
    """Its curriculum, saved as JSON behind 5,000 tasks, and loaded into a new one."""
    run = tiny_run(tmp_path)
    given = documented()["orchestrator"]["train"]["source"][0]
    config = RLConfig.model_validate(documented()).orchestrator.train.source[0].curriculum

    def begun() -> Curriculum:
        named = {"taskset": given["env"]["taskset"] | {"run": str(run.path)}}
        return Curriculum(config, vf.load_environment(resolve_env_config(named)).taskset.load())

    first, second = begun(), begun()
    for _ in range(5000):
        next(first.sampler)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    found, expected = ([task.data for task in islice(one.sampler, 20)] for one in (second, first))
    assert found == expected
    assert len({(task.document_id, task.position) for task in found}) > 10
