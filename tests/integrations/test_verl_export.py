"""What `openrpt export verl` writes, by its own contract: verl itself is not needed."""

import asyncio
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from openrpt.cli.main import cli
from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.data.evaluation_work import evaluation_work
from openrpt.data.prompts import build_layout
from openrpt.data.scored import load_scored
from openrpt.data.tokens import literal_bytes, tokenizer_fingerprint
from openrpt.data.training_work import take_work
from openrpt.data.work import document_bytes
from openrpt.engine.decoding import Sampling
from openrpt.engine.drawn import Drawn
from openrpt.engine.engine import open_engine
from openrpt.engine.loading import outline
from openrpt.errors import UserError
from openrpt.integrations.verl import export as exporting
from openrpt.integrations.verl.completing import Form
from openrpt.integrations.verl.export import export_verl
from openrpt.integrations.verl.reward import checked_table, compute_score, score
from openrpt.integrations.verl.settings import require_exportable, template_values
from openrpt.rl.completions import extract_prediction
from openrpt.rl.rewards.matching import prefix_match
from openrpt.runs.run import Run
from openrpt.seeding import keys_of
from openrpt.types import Completion
from tests.helpers.tiny import byte_level_tokenizer, think_tokenizer
from tests.helpers.verl_export import exported, rows, some_completion, text_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    return exported(tmp_path_factory.mktemp("verl"))


def test_the_rows_are_the_positions_that_training_takes(made: tuple[Run, Path]) -> None:
    run, folder = made
    corpus, config = load_scored(run.scored), run.config
    policy = outline(config)
    layout = policy.layout(config.prompt)
    found = rows(folder)
    wanted = config.train.steps * 2 * 4
    assert wanted <= len(found) < wanted + 4  # whole documents
    works = take_work(corpus, config, cursor=0, count=4, purpose="positions")
    number = 0
    while number < len(found):
        _, work = next(works)
        pieces = document_bytes(policy.tokenizer, work.document)
        for position in work.positions:
            info = found[number]["extra_info"]
            ids = work.document.token_ids[position.window_start : position.index].tolist()
            assert info["prompt_ids"] == [*layout.head_ids, *ids, *layout.tail_ids]
            assert (info["document_id"], info["position"], info["index"]) == (
                position.document_id,
                position.index,
                number,
            )
            rest = pieces[position.index :]
            assert info["continuation"] == b"".join(rest)
            ends = np.cumsum([len(piece) for piece in rest]).tolist()
            assert info["boundaries"] == ends
            number += 1
    assert len({len(row["extra_info"]["prompt_ids"]) for row in found}) > 3


def test_the_development_rows_are_those_of_an_evaluation(made: tuple[Run, Path]) -> None:
    run, folder = made
    works = evaluation_work(
        load_scored(run.scored),
        run.config,
        split="development",
        positions=run.config.train.eval_positions,
        positions_per_document=run.config.evaluate.positions_per_document,
        min_entropy=run.config.evaluate.min_entropy,
    )
    places = [(p.document_id, p.index) for work in works for p in work.positions]
    found = [row["extra_info"] for row in rows(folder, "development")]
    assert [(info["document_id"], info["position"]) for info in found] == places
    train = {row["extra_info"]["document_id"] for row in rows(folder)}
    assert not train & {document for document, _ in places}


def test_an_export_is_the_same_each_time_and_overwrites_nothing(
    made: tuple[Run, Path], tmp_path: Path
) -> None:
    run, folder = made
    export_verl(run.config, tmp_path / "again")
    for path in folder.iterdir():
        ours = (tmp_path / "again" / path.name).read_bytes()
        assert ours.replace(str(tmp_path / "again").encode(), str(folder).encode()) == (
            path.read_bytes()
        )
    with pytest.raises(UserError, match="is there already"):
        export_verl(run.config, folder)
    summary = export_verl(run.config, tmp_path / "few", positions=9)
    assert summary.train_rows == 12 == len(rows(tmp_path / "few"))  # the third document is whole
    with pytest.raises(UserError, match="--positions 7 are fewer than a step's 8"):
        export_verl(run.config, tmp_path / "fewer", positions=7)


def test_a_stop_leaves_no_folder(
    made: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "_write_files", stop)
    with pytest.raises(KeyboardInterrupt):
        export_verl(made[0].config, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def _form(run: Run) -> Form:
    return Form.read(
        yaml.safe_load((run.path.parent / "verl/agent_loop.yaml").read_text())[0]["form"]
    )


def test_the_reward_of_a_row_is_the_documents(made: tuple[Run, Path]) -> None:
    run, folder = made
    form, policy, corpus = _form(run), outline(run.config), load_scored(run.scored)
    table = checked_table(policy.tokenizer, form.tokenizer)
    rng = np.random.default_rng(0)
    right = wrong = 0
    for row in rows(folder):
        info = row["extra_info"]
        document = corpus.document(info["document_id"])
        pieces = document_bytes(policy.tokenizer, document)[info["position"] :]
        truth = document.token_ids[info["position"] :].tolist()
        for _ in range(40):
            completion = some_completion(form, truth, len(table.bytes), rng)
            text = literal_bytes(table, completion.token_ids, form.layout.literal) + b"}"
            closed = dataclasses.replace(
                completion,
                token_ids=(*completion.token_ids, table.bytes.index(b"}")),
                loss_mask=(*completion.loss_mask, True),
                sampler_logprobs=(*completion.sampler_logprobs, 0.0),
            )
            expected = prefix_match(extract_prediction(text), pieces)
            scored = score(closed, info, form, table)
            assert scored.reward == expected == scored.metrics["acc"]
            right, wrong = right + (expected == 1), wrong + (expected == 0)
    assert min(right, wrong) > 200


def test_text_alone_loses_what_ends_within_a_character(made: tuple[Run, Path]) -> None:
    run, folder = made
    tokenizer, form = outline(run.config).tokenizer, _form(run)
    table = checked_table(tokenizer, form.tokenizer)
    brace = table.bytes.index(b"}")

    def broken(data: bytes) -> bool:
        return "\ufffd" in data.decode(errors="replace")

    info = next(
        row["extra_info"]
        for row in rows(folder)
        if broken(row["extra_info"]["continuation"][: row["extra_info"]["boundaries"][0]])
    )
    first = info["continuation"][: info["boundaries"][0]]
    ids = (*form.close_ids, table.bytes.index(first), brace)
    completion = Completion(
        token_ids=ids,
        sampler_logprobs=(0.0,) * len(ids),
        loss_mask=(False,) * len(form.close_ids) + (True, True),
        finish_reason="length",
    )
    assert score(completion, info, form, table).reward == 1.0
    decoded = "</think>\\boxed{" + first.decode(errors="replace") + "}"
    assert compute_score("openrpt", decoded, "", info)["score"] == 0.0
    whole = next(r["extra_info"] for r in rows(folder) if r["extra_info"]["continuation"].isascii())
    said = whole["continuation"][: whole["boundaries"][1]].decode()
    assert compute_score("openrpt", f"</think>\\boxed{{{said}}}", "", whole)["score"] == 1.0


def _replaying(completion: Completion, prompt: Sequence[int]) -> Any:
    """A server that draws the tokens of a completion."""

    async def ask(token_ids: Sequence[int], *, most: int, stop_ids: Sequence[int]) -> Drawn:
        start = len(token_ids) - len(prompt)
        assert list(token_ids) == [*prompt, *completion.token_ids[:start]]
        drawn = list(completion.token_ids[start : start + most])
        stop = next((n for n, i in enumerate(drawn, 1) if i in stop_ids), len(drawn))
        logprobs = completion.sampler_logprobs[start : start + stop]
        return Drawn(token_ids=drawn[:stop], logprobs=logprobs)

    return ask


@pytest.mark.parametrize("thinks", [True, False])
def test_a_completion_takes_the_course_that_the_engine_gives_it(
    tmp_path: Path, thinks: bool
) -> None:
    """The same tokens drawn, the same tokens forced, the same end: whether the thought ends by
    itself (by one token or several), stops, or is closed."""
    run = text_run(tmp_path, thinks=thinks)
    config = run.config
    engine = open_engine(config)
    model = engine.model
    layout = model.layout(config.prompt)
    form = Form.of(
        config.prompt,
        layout,
        stop_ids=model.stop_ids,
        tokenizer=tokenizer_fingerprint(model.tokenizer),
    )
    form = Form.read(yaml.safe_load(yaml.safe_dump(_plain(form.values()))))
    _, work = next(
        take_work(load_scored(run.scored), config, cursor=0, count=4, purpose="positions")
    )
    keys = [keys_of(40, 0, p.index) for p in work.positions]
    sampling = Sampling.of(config.prompt, temperature=1.5, generation_rollouts=256)
    (outcomes,) = engine.generate_each([work.request(layout, keys)], layout, sampling)
    ends = set()
    for outcome, position in zip(outcomes, work.positions, strict=True):
        ids = work.document.token_ids[position.window_start : position.index].tolist()
        prompt = [*layout.head_ids, *ids, *layout.tail_ids]
        for completion in outcome.completions:
            found = asyncio.run(form.complete(_replaying(completion, prompt), prompt))
            assert found == completion
            forced = not all(completion.loss_mask)
            ends.add((forced, completion.finish_reason))
    assert {(True, "length"), (False, "stop")} <= ends


def _plain(values: Any) -> Any:
    """The values with lists in place of tuples."""
    if isinstance(values, dict):
        return {name: _plain(value) for name, value in values.items()}
    return list(values) if isinstance(values, tuple) else values


def test_a_thought_that_ends_by_several_tokens_is_cut_there() -> None:
    form = _a_form(thought_end_ids=(7, 8), answer_start_ids=(5,), close_ids=(7, 8, 5))
    asked = []

    async def ask(token_ids: Sequence[int], *, most: int, stop_ids: Sequence[int]) -> Drawn:
        asked.append((list(token_ids), most, tuple(stop_ids)))
        drawn = [1, 7, 8, 9, 9] if len(asked) == 1 else [5, 3, 0]
        return Drawn(token_ids=drawn, logprobs=[-1.0] * len(drawn))

    completion = asyncio.run(form.complete(ask, [4, 4]))
    assert asked == [([4, 4], 6, (0,)), ([4, 4, 1, 7, 8], 4, (0,))]  # the box's one, and 3
    assert completion.token_ids == (1, 7, 8, 5, 3, 0)
    assert completion.loss_mask == (True,) * 6 and completion.finish_reason == "stop"


def test_a_server_that_breaks_off_is_not_asked_again() -> None:
    form = _a_form()
    asked = []

    async def ask(token_ids: Sequence[int], *, most: int, stop_ids: Sequence[int]) -> Drawn:
        asked.append(most)
        return Drawn(token_ids=[1, 2], logprobs=[-1.0, -1.0])

    completion = asyncio.run(form.complete(ask, [4]))
    assert asked == [6] and completion.token_ids == (1, 2)
    assert completion.finish_reason == "length"


def _a_form(**changes: Any) -> Form:
    values = {
        "think_budget": 6,
        "prediction_budget": 3,
        "close_ids": (7, 5),
        "answer_start_ids": (5,),
        "thought_end_ids": (7,),
        "stop_ids": (0,),
        "thought_end": "</think>",
        "literal": {},
        "tokenizer": "",
    }
    return Form(**values | changes)


def test_the_penalty_of_a_completion_that_does_not_stop(made: tuple[Run, Path]) -> None:
    run, folder = made
    form = _form(run)
    table = checked_table(outline(run.config).tokenizer, form.tokenizer)
    info = rows(folder)[0]["extra_info"]
    completion = Completion(
        token_ids=form.close_ids,
        sampler_logprobs=(0.0,) * len(form.close_ids),
        loss_mask=(False,) * len(form.close_ids),
        finish_reason="length",
    )
    assert score(completion, info, form, table).reward == 0.0
    penalised = score(completion, info, form, table, overlong_buffer=0.2)
    assert penalised.reward == pytest.approx(-1.0) and penalised.metrics["acc"] == 0.0


def test_what_verl_loads_of_ours_is_light() -> None:
    """verl's transformers is not ours, and its workers load the agent loop by the hundred."""
    code = (
        "import sys, openrpt.integrations.verl.reward;"
        "sys.exit(bool({'torch', 'transformers', 'rich', 'click', 'jinja2'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_another_tokenizer_is_refused() -> None:
    fingerprint = tokenizer_fingerprint(byte_level_tokenizer())
    with pytest.raises(UserError, match="is not the one that the prompts were exported with"):
        checked_table(think_tokenizer(), fingerprint)


def _rendered(config: Config, folder: Path) -> dict[str, Any]:
    """The files of a configuration, without rows: by name, YAML as its values."""
    layout = build_layout(think_tokenizer(special=False), config.prompt)
    values = template_values(
        config,
        layout,
        model=config.model.path,
        parameters=14_000_000_000,
        longest_prompt=4200,
        has_development=True,
    )
    form = Form.of(config.prompt, layout, stop_ids={1}, tokenizer="0")
    exporting._write_files(
        folder, values | {"folder": "/data/verl", "form": form.values(), "rows": 256_000}
    )
    return {
        path.name: yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else path.read_text()
        for path in folder.iterdir()
    }


def test_the_papers_setting(tmp_path: Path) -> None:
    config = load_config("recipe:paper")
    require_exportable(config)
    files = _rendered(config, tmp_path)
    rpt = files["rpt.yaml"]
    actor, rollout = rpt["actor_rollout_ref"]["actor"], rpt["actor_rollout_ref"]["rollout"]
    assert rpt["actor_rollout_ref"]["model"]["path"].endswith("R1-Distill-Qwen-14B")
    assert rpt["algorithm"]["adv_estimator"] == "grpo"
    assert rpt["data"]["train_batch_size"] == actor["ppo_mini_batch_size"] == 256
    assert (rollout["n"], rollout["temperature"]) == (8, 0.8)
    assert (actor["optim"]["lr"], actor["optim"]["weight_decay"]) == (1e-6, 0.01)
    assert actor["optim"]["betas"] == [0.9, 0.999]
    assert actor["optim"]["clip_grad"] == actor["grad_clip"] == 0.2
    assert (actor["entropy_coeff"], actor["use_kl_loss"]) == (0.0, False)
    assert rpt["data"]["max_prompt_length"] == 4200
    assert 8192 <= rpt["data"]["max_response_length"] <= 8192 + 16  # and the forced tokens
    # Dynamic sampling from step 500: two launches.
    assert rpt["algorithm"]["filter_groups"] == {"enable": False, "metric": "acc"}
    assert files["dynamic.yaml"]["algorithm"]["filter_groups"]["enable"] is True
    script = files["train.sh"]
    assert "launch rpt 499" in script and "launch dynamic 1000" in script
    dapo = files["dapo.yaml"]["actor_rollout_ref"]
    assert dapo["actor"]["clip_ratio_high"] == 0.28
    assert dapo["actor"]["loss_agg_mode"] == "token-mean"
    loops = {loop["name"]: loop for loop in files["agent_loop.yaml"]}
    assert loops["openrpt"]["overlong_buffer"] is None
    assert loops["openrpt_dapo"]["overlong_buffer"] == 0.2
    assert dapo["rollout"]["agent"]["default_agent_loop"] == "openrpt_dapo"
    assert len(files["README.md"].splitlines()) == 5


@pytest.mark.parametrize(
    ("overrides", "launches"),
    [
        ({"train.dynamic_sampling_from": "never"}, ["rpt 1000"]),
        ({"train.dynamic_sampling_from": 1}, ["dynamic 1000"]),
        ({"train.dynamic_sampling_from": 2}, ["rpt 1", "dynamic 1000"]),
        ({"train.dynamic_sampling_from": 1001}, ["rpt 1000"]),
    ],
)
def test_the_launches(tmp_path: Path, overrides: dict[str, Any], launches: list[str]) -> None:
    script = _rendered(load_config("recipe:paper", overrides=overrides), tmp_path)["train.sh"]
    lines = [line.strip() for line in script.splitlines()]
    found = [line.removeprefix("launch ") for line in lines if line.startswith("launch ")]
    assert [line.removesuffix(' "$@"') for line in found if "$config" not in line] == launches


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_scripts_call_verl_with_the_folder(tmp_path: Path) -> None:
    """With a python that writes down what it is called with, and verl's mark of a finished step."""
    _rendered(load_config("recipe:paper"), tmp_path)
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >> "$LOG"\n')
    fake.chmod(0o755)
    log = tmp_path / "log"
    environment = {"PATH": f"{fake.parent}:/usr/bin:/bin", "LOG": str(log), "NODES": "4"}
    environment["RAY_ADDRESS"] = "10.0.0.1:6379"
    command = ["bash", str(tmp_path / "train.sh"), "trainer.test_freq=7"]
    subprocess.run(command, check=True, env=environment)
    checked, first, second = log.read_text().splitlines()
    assert checked == f"-m openrpt.integrations.verl {tmp_path}"
    assert "--config-name rpt" in first and "trainer.total_training_steps=499" in first
    assert "--config-name dynamic" in second and "trainer.total_training_steps=1000" in second
    for line in (first, second):
        assert f"folder={tmp_path}" in line and "trainer.nnodes=4" in line
        assert "+ray_kwargs.ray_init.address=10.0.0.1:6379" in line
        assert line.endswith("trainer.test_freq=7")
    # It goes on: the first launch is done.
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("499")
    log.unlink()
    subprocess.run(command, check=True, env=environment)
    _, only = log.read_text().splitlines()
    assert "--config-name dynamic" in only


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("rank", [0, 1])
def test_each_node_of_a_cluster_does_its_part(tmp_path: Path, rank: int) -> None:
    """With a ray and a python that write down what they are called with; the head ends at once."""
    _rendered(load_config("recipe:paper"), tmp_path)
    log = tmp_path / "log"
    for name in ("ray", "python"):
        fake = tmp_path / "bin" / name
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(f'#!/bin/sh\necho "{name} $*" >> "$LOG"\n[ "$1" != health-check ]\n')
        fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "LOG": str(log)}
    environment |= {"HEAD": "10.0.0.1", "NODES": "4", "RANK": str(rank), "GPUS": "2"}
    subprocess.run(["bash", str(tmp_path / "cluster.sh")], check=True, env=environment)
    calls = log.read_text().splitlines()
    assert calls[-1] == "ray stop"
    if rank:
        assert calls[0] == "ray start --address 10.0.0.1:6379 --num-gpus 2" and len(calls) == 3
        return
    assert calls[0] == "ray start --head --port 6379 --num-gpus 2"
    assert calls[1] == "python - 4"  # waits for all nodes
    assert sum("verl.trainer.main_ppo" in call for call in calls) == 2
    assert "+ray_kwargs.ray_init.address=10.0.0.1:6379" in calls[-2]


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("prompt.candidates", 3, "--prompt.candidates 0"),
        ("train.ntp_weight", 0.5, "--train.ntp_weight 0"),
        ("reward.terms", {"prefix": 1.0, "dense": 0.5}, "--reward.terms prefix=1"),
        ("reward.thought_cost", 0.1, "--reward.thought_cost 0"),
        ("selection.curriculum", 1, "--selection.curriculum 0"),
        ("train.algorithm", "maxrl", "--train.advantage grpo"),
        ("train.overlong", "mask", "--train.overlong penalty"),
        ("train.positive_weight", 2.0, "--train.positive_weight 1"),
        ("train.denominator", "live", "--train.denominator all"),
    ],
)
def test_what_verl_cannot_do_is_refused(key: str, value: Any, instead: str) -> None:
    config = load_config("recipe:paper", overrides={key: value})
    with pytest.raises(UserError) as refused:
        require_exportable(config)
    assert instead in str(refused.value) and "\n" not in str(refused.value)


def test_the_command(made: tuple[Run, Path], tmp_path: Path) -> None:
    run, _ = made
    arguments = ["export", "verl", str(run.path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, [*arguments, "--positions", "8"])
    assert done.exit_code == 0, done.output
    assert "8 training positions of 2 documents" in done.output
    assert (tmp_path / "out" / "README.md").is_file()
    nowhere = CliRunner().invoke(cli, ["export", "verl", str(tmp_path / "no"), "--out", "x"])
    assert isinstance(nowhere.exception, UserError) and "not a run folder" in str(nowhere.exception)
