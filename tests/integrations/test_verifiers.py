"""openrpt-env in verifiers: run `python scripts/environments.py --check verifiers`."""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verifiers")

import verifiers.v1 as vf
from verifiers.v1.configs.client import EvalClientConfig
from verifiers.v1.serve.client import EnvClient
from verifiers.v1.serve.server import EnvServer
from verifiers.v1.utils.loaders import resolve_env_config

from openrpt.data.training_work import take_work
from openrpt.data.work import Work
from openrpt.errors import UserError
from openrpt.rl.completions import extract_prediction
from openrpt.rl.rewards.matching import prefix_match
from openrpt.runs.run import Run
from openrpt.runs.scores import scores_of
from tests.helpers.chat_server import chat_server
from tests.helpers.tiny_model import tiny_run

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "envs" / "openrpt_env"
sys.path.append(str(PACKAGE))  # where it is not installed
WORDS = ["one", "two", "three", "four", "five", "six", "café", "sieben", "acht", "😀", "nine"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A scored run over words with spaces between, some of more than one byte a character."""
    folder = tmp_path_factory.mktemp("verifiers")
    texts = (" ".join(WORDS[(start + i) % len(WORDS)] for i in range(40)) for start in range(8))
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tiny_run(folder)


def taskset_of(run: Run, **values: Any) -> vf.Taskset:
    config = {"taskset": {"id": "openrpt-env", "run": str(run.path), **values}}
    return vf.load_environment(resolve_env_config(config)).taskset


def answers(continuation: list[bytes], turn: int) -> dict[str, str]:
    """In turn: right, the same without its space, without a thought, and by a server that parts
    the thought from the answer."""
    said = b"".join(continuation[: 1 + turn // 4]).decode(errors="ignore")
    wrong = said.strip() if said != said.strip() else f"{said}x"
    return [
        {"content": f"hm</think>\n\\boxed{{{said}}} "},
        {"content": f"hm</think>\\boxed{{{wrong}}}"},
        {"content": f"\\boxed{{{said}}}"},
        {"reasoning_content": "hm", "content": f"\n\\boxed{{{said}}}"},
    ][turn % 4]


def test_the_tasks_are_the_positions_of_train(run: Run) -> None:
    """In their order, with the text before and the bytes behind; number by number the same."""
    config, corpus = run.config, scores_of(run)
    count = config.train.positions_per_document
    tasks = list(islice(taskset_of(run), 40))
    works = take_work(corpus, config, cursor=0, count=count, purpose="positions")
    for number, (_, work) in zip(range(0, 40, count), works, strict=False):
        text, starts = work.document.text.encode(), work.document.byte_offsets
        asked = [task.data for task in tasks[number : number + count]]
        assert {one.document_id for one in asked} == {work.document.document_id}
        assert {one.position for one in asked} <= {p.index for p in work.positions}
        for one in asked:
            start = int(starts[one.position])
            before = text[int(starts[work.window.start]) : start].decode(errors="ignore")
            assert one.prompt.endswith(f"\n\n{before}") and one.prompt != before
            joined = b"".join(map(base64.b64decode, one.continuation))
            assert text[start:].startswith(joined) and joined
    assert [task.data.idx for task in tasks] == list(range(40))
    again = next(islice(taskset_of(run), 33, None))
    assert again.data == tasks[33].data and again.key == tasks[33].key
    assert len({task.key for task in tasks}) == 40
    assert json.loads(tasks[0].data.model_dump_json())["position"] == tasks[0].data.position


def test_skipping_to_a_number_reads_nothing_before_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """prime-rl resumes by taking and dropping all tasks before its cursor."""
    from openrpt_env import taskset

    taken: list[int] = []

    def counted(*given: Any, cursor: int, **more: Any) -> Iterator[tuple[int, Work]]:
        taken.append(cursor)
        return take_work(*given, cursor=cursor, **more)

    monkeypatch.setattr(taskset, "take_work", counted)
    task = next(islice(taskset_of(run), 200_000, None))
    assert not taken
    assert task.data.idx == 200_000
    assert taken == [200_000 // run.config.train.positions_per_document]


def test_vf_eval_rewards_what_our_reward_does(run: Run, tmp_path: Path) -> None:
    """Its own command, from load_environment to traces.jsonl, on a server of this machine."""
    truth = {}
    for task in islice(taskset_of(run), 3):
        truth[task.data.prompt] = [base64.b64decode(piece) for piece in task.data.continuation]
    said: dict[str, list[dict[str, str]]] = {prompt: [] for prompt in truth}

    def answer(prompt: str, turn: int) -> dict[str, str]:
        said[prompt].append(answers(truth[prompt], turn))
        return said[prompt][-1]

    with chat_server(answer) as address:
        settings = {"MODEL": "tiny", "20": "3", "http://localhost:8000/v1": address}
        page = (ROOT / "docs" / "verifiers.md").read_text(encoding="utf-8")
        (toml,) = re.findall(r"```toml\n(# rpt\.toml.*?)```", page, re.S)
        for written, here in (settings | {"runs/maths": str(run.path)}).items():
            toml = toml.replace(f"{written}", here)
        (tmp_path / "rpt.toml").write_text(toml)
        vf_eval = str(Path(sys.executable).parent / "vf-eval")
        command = [vf_eval, "@", "rpt.toml", "--no-push", "--no-rich", "--run.dir", "found"]
        path = os.pathsep.join([str(PACKAGE), str(ROOT)])
        variables = {"PYTHONPATH": path, "MY_KEY": "none", "HOME": str(tmp_path)}
        done = subprocess.run(
            command, env=os.environ | variables, cwd=tmp_path, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = (tmp_path / "outputs" / "found" / "traces.jsonl").read_text().splitlines()
    traces = [trace for line in lines for trace in json.loads(line)["traces"]]
    assert len(traces) == 12
    found = []
    for trace in traces:
        assert trace["ok"], trace["errors"]
        prompt = trace["task"]["data"]["prompt"]
        message = trace["nodes"][-1]["message"]
        text = message["content"].encode()
        if message.get("reasoning_content"):
            text = b"</think>" + text
        expected = prefix_match(extract_prediction(text), truth[prompt])
        assert trace["rewards"]["prefix_match"]["score"] == expected
        assert trace["metrics"]["predicted"] == float(b"</think>" in text)
        found.append(expected)
    assert sum(found) == 6
    sent = sorted(json.dumps(one, sort_keys=True) for own in said.values() for one in own)
    kept = ("content", "reasoning_content")
    received = [trace["nodes"][-1]["message"] for trace in traces]
    assert sent == sorted(
        json.dumps({k: one[k] for k in kept if one.get(k)}, sort_keys=True) for one in received
    )


def test_the_env_server_of_prime_rl_runs_our_tasks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its orchestrator does: tasks are taken there, sent as data, and built anew in the server;
    the cursor of a checkpoint is reached by dropping tasks."""
    monkeypatch.setenv("MY_KEY", "none")
    config = resolve_env_config(
        {
            "taskset": {"id": "openrpt-env", "run": str(run.path)},
            "agent": {"runtime": {"type": "subprocess"}},
        }
    )
    tasks = iter(vf.load_taskset(config.taskset))
    for _ in range(1000):
        next(tasks)
    task = next(tasks)
    continuation = [base64.b64decode(piece) for piece in task.data.continuation]

    async def answered(address: str) -> list[float]:
        server = EnvServer(config, address="tcp://127.0.0.1:0")
        running = asyncio.create_task(server.run())
        client = EnvClient(address=server.address)
        found = []
        for _ in range(4):
            episode = await client.run(
                task_data=task.data.model_dump(mode="json"),
                client=EvalClientConfig(base_url=address, api_key_var="MY_KEY"),
                model="tiny",
                sampling=vf.SamplingConfig(),
            )
            assert episode.ok, episode.errors
            found += [trace.reward for trace in episode.traces]
        await client.close()
        running.cancel()
        return found

    with chat_server(lambda _, turn: answers(continuation, turn)) as address:
        assert asyncio.run(answered(address)) == [1.0, 0.0, 0.0, 1.0]


def test_an_answer_may_do_without_a_thought(run: Run) -> None:
    task = next(iter(taskset_of(run, task={"thought": "optional"})))
    assert task.config.thought == "optional"
    config = task.config.model_copy(update={"thought": "required"})
    assert type(task)(task.data, config).data == task.data


def test_a_run_without_scores_is_named(tmp_path: Path) -> None:
    config = {"taskset": {"id": "openrpt-env", "run": str(tmp_path)}}
    with pytest.raises(UserError, match="not a run folder"):
        next(iter(vf.load_environment(resolve_env_config(config)).taskset))


def test_the_package_builds(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=PACKAGE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("openrpt_env-*.whl"))
