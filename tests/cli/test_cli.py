"""The command line: help, overrides, errors on one line, and every stage on a tiny run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from openrpt.cli import main as cli_module
from openrpt.cli.experimenting import parse_budget
from openrpt.cli.main import cli, main
from openrpt.config.as_typed import escape, unescape
from openrpt.config.keys import Key, described_keys
from openrpt.config.loading import config_keys as known_keys
from openrpt.config.loading import load_config, to_toml
from openrpt.errors import UserError
from openrpt.files import write_text
from openrpt.stopping import Interrupted, Terminated
from tests.cli.conftest import Run
from tests.helpers.tiny import byte_level_tokenizer
from tests.helpers.tiny_model import periodic_corpus, tiny_config, tiny_model_folder

SHOWN = {
    command: keys.split()
    for command, keys in {
        "traces calculator": "run corpus",
        "traces self": "run model engine.trainer prompt selection memory.generation_rollouts",
        "score": "seed run model corpus score prompt.window prompt.min_context",
        "warmup": (
            "seed run model engine.trainer prompt selection warmup memory optim checkpoints "
            "track parallel"
        ),
        "train": (
            "seed run model engine prompt selection reward train evaluate track memory optim "
            "checkpoints cost parallel"
        ),
        "finetune": (
            "seed run model engine questions answers finetune train track memory optim "
            "checkpoints prompt.instruction prompt.chat_template prompt.examples parallel "
            "prompt.thought_start prompt.thought_end prompt.answer_start"
        ),
        "pretrain": (
            "seed run model engine.trainer selection pretrain track optim checkpoints "
            "memory.gradient_checkpointing parallel"
        ),
        "perplexity": (
            "run model engine.trainer prompt.window evaluate.split score.max_tokens "
            "corpus.template corpus.separator corpus.block_characters corpus.limit"
        ),
        "evaluate": "seed run model engine.trainer prompt evaluate cost",
        "probe": (
            "seed run model.threads model.device model.dtype model.compute_dtype "
            "engine.trainer probe prompt.window prompt.min_context evaluate.split"
        ),
        "questions": (
            "seed run model engine.trainer questions answers finetune.question_tokens "
            "finetune.think_budget finetune.answer_budget finetune.eval_questions "
            "finetune.eval_samples finetune.eval_temperature prompt.instruction "
            "prompt.chat_template prompt.thought_start prompt.thought_end prompt.examples "
            "prompt.answer_start memory.generation_rollouts"
        ),
        "writing": (
            "seed run model.threads model.device model.dtype model.compute_dtype "
            "engine.trainer writing prompt.window evaluate.split corpus.template "
            "corpus.separator corpus.block_characters corpus.limit"
        ),
        "budgets": (
            "seed run model.threads model.device model.dtype model.compute_dtype "
            "engine.trainer prompt evaluate.split evaluate.positions "
            "evaluate.positions_per_document evaluate.min_entropy evaluate.samples "
            "evaluate.temperature"
        ),
        "predict": "seed run model engine.trainer prompt",
    }.items()
}
KEYS = {key.name: key for key in described_keys()}
EXAMPLE = Path(__file__).parent.parent / "fixtures" / "example.jsonl"
_ORDER = (
    "traces score warmup train finetune questions pretrain export evaluate "
    "sweep control lab experiment compare budgets perplexity writing "
    "zeroshot coding suite probe rollouts status patterns estimate scaling "
    "predict report watch push demo doctor"
)
IN_ORDER = _ORDER.split()
"""All commands, in the order in which data flows."""


def error_of(result: tuple[int, str, str]) -> str:
    """The one line of a failure that is the user's to mend."""
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert err.startswith("openrpt: ") and err.endswith("\n") and err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after score, warmup and two steps of train, each started as a command."""
    folder = tmp_path_factory.mktemp("cli")
    config = tiny_config(
        folder,
        corpus__heldout_fraction=0.3,
        train__steps=2,
        warmup__steps=1,
        evaluate__min_entropy=0.0,
        evaluate__positions=40,
    )
    write_text(folder / "tiny.toml", to_toml(config))
    outputs = []
    for command in ("score", "warmup", "train"):
        arguments = [command, str(folder / "tiny.toml")]
        outputs.append(CliRunner().invoke(cli, arguments, catch_exceptions=False).output)
    assert "tokens of 12 documents" in outputs[0]
    assert "2 steps in" in outputs[2]
    return folder / "run"


# ---- start-up and help --------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['openrpt', '--help']\n"
        "from openrpt.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'rich', 'numpy', 'datasets'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert "rollouts" in done.stdout


NOT_FOR_TRAINING = (
    *("pandas", "datasets", "peft", "gguf", "sklearn", "altair", "vl_convert", "nbformat"),
    *("vllm", "ray", "trl", "lm_eval", "math_verify", "wandb", "tensorboard", "mlflow"),
    *("transformers.trainer", "transformers.pipelines", "transformers.integrations.ggml"),
    *("openrpt.report", "openrpt.experiments", "openrpt.integrations", "openrpt.evaluation.probes"),
)
"""What may be installed, but no run without its key or command needs."""


def test_until_its_first_token_training_imports_nothing_that_it_does_not_use(
    trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    code = (
        "import os, sys\n"
        "from openrpt.cli.main import main\n"
        "from openrpt.engine import decoding\n"
        "def first(*args):\n"
        f"    print('SURPLUS', sorted(set({NOT_FOR_TRAINING}) & set(sys.modules)), flush=True)\n"
        "    os._exit(0)\n"
        "decoding.sample = first\n"
        f"sys.argv = ['openrpt', 'train', '--run', {str(run)!r}, '--train.steps', '3']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "SURPLUS []" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("command", SHOWN)
def test_help_explains_every_key_that_the_command_reads(run: Run, command: str) -> None:
    code, out, _ = run(*command.split(), "--help")
    text = " ".join(out.split())
    assert code == 0
    for key in KEYS.values():
        relevant = key.name in SHOWN[command] or key.section in SHOWN[command]
        assert (f"--{key.name} " in text) is relevant or key.name.startswith("train."), key.name
        if relevant:
            assert unbroken(key.help) in unbroken(text)


def unbroken(text: str) -> str:
    """Help breaks lines at spaces and hyphens."""
    return text.replace(" ", "")


def test_help_of_a_key_has_its_default_and_its_range() -> None:
    assert "[default 0.2; ≥ 0, < 1]" in KEYS["corpus.heldout_fraction"].help
    assert r"[default '\n\\boxed{']" in KEYS["prompt.answer_start"].help
    assert "[default ntp,reasoning]" in KEYS["evaluate.modes"].help
    assert "[default ''" in KEYS["score.model"].help
    assert "[default false]" in KEYS["corpus.strict"].help
    assert "[default '']" in KEYS["track.to"].help


def command_of(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("command", IN_ORDER)
def test_every_command_begins_with_a_sentence_and_an_example(command: str) -> None:
    text = str(command_of(command).help)
    assert text.splitlines()[0].endswith((".", "?"))
    assert f"openrpt {command}" in text


def test_commands_stand_in_the_order_in_which_data_flows() -> None:
    assert cli.list_commands(click.Context(cli)) == IN_ORDER
    assert sorted(cli.commands) == sorted(IN_ORDER)


def test_the_groups_help_does_not_cut_sentences_off(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0 and "..." not in out.replace("[ARGS]...", "")
    assert run()[1] == out
    assert run("--version")[1].startswith("openrpt, version ")


def test_options_cover_the_configuration() -> None:
    assert list(KEYS) == known_keys()


# ---- the configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [name for name in SHOWN if not name.startswith(("predict", "traces"))]
)
def test_print_config_round_trip(run: Run, tmp_path: Path, command: str) -> None:
    given = ["--run", tmp_path / "r", "--train.learning_rate", "3e-5", "--seed", 7]
    code, out, err = run(command, *given, "--print-config")
    assert (code, err) == (0, "")
    (tmp_path / "again.toml").write_text(out, encoding="utf-8")
    config = load_config(tmp_path / "again.toml")
    assert to_toml(config) == out
    assert (config.train.learning_rate, config.seed) == (3e-5, 7)
    assert run(command, tmp_path / "again.toml", "--print-config")[1] == out
    assert run(command, "--config", tmp_path / "again.toml", "--print-config")[1] == out
    assert not (tmp_path / "r").exists()


def other_value(key: Key) -> tuple[list[str], Any]:
    """What to type for a valid value that is not the default, and that value."""
    option = f"--{key.name}"
    if key.is_file:
        return [option, str(EXAMPLE)], [json.loads(EXAMPLE.read_text(encoding="utf-8"))]
    if key.is_list:
        word = (key.default or key.choices)[-1]
        return [option, word], [word]
    if key.part is not None:
        return [option, "my.parts:own"], "my.parts:own"
    if key.choices:
        return [option, key.choices[-1]], key.choices[-1]
    if key.is_table:
        return [option, "dense=0.5, a.b:c=-1e-1"], {"dense": 0.5, "a.b:c": -0.1}
    if key.name.endswith("where"):
        return [option, "class:computed"], "class:computed"
    if key.annotation is bool:
        return [f"--no-{key.name}"] if key.default else [option], not key.default
    if key.annotation is str:
        return [option, "new"], "new"
    value = 0.05 if "fraction" in key.name or key.name.endswith("_low") else abs(key.default) / 2
    value = key.default + 1 if key.annotation is int else value or 0.5
    return [option, str(value)], value


@pytest.mark.parametrize("name", KEYS)
def test_every_key_can_be_overridden(run: Run, tmp_path: Path, name: str) -> None:
    typed, value = other_value(KEYS[name])
    run_option = [] if name == "run" else ["--run", tmp_path]
    # Exact answers are refused beside grpo, the default; a document has several prompts by default.
    beside = {
        "train.answer_gradient": ["--train.algorithm", "rloo"],
        "train.prompts_per_step": ["--train.positions_per_document", "1"],
    }
    needed = beside.get(name, [])
    code, out, err = run("train", *run_option, *needed, *typed, "--print-config")
    assert code == 0, err
    found = tomllib.loads(out)
    for part in name.split("."):
        found = found[part]
    assert found == value


def test_escapes_are_read_in_texts_and_only_there(run: Run, tmp_path: Path) -> None:
    typed = {
        "corpus.template": (r"{a}\n\n{b}", "{a}\n\n{b}"),
        "corpus.separator": (r"\t", "\t"),
        "prompt.answer_start": (r"\n\\boxed{", "\n\\boxed{"),
        "prompt.candidate_separator": (r"\frac", r"\frac"),
        "corpus.path": (r"C:\new", r"C:\new"),
    }
    arguments = [part for name, (text, _) in typed.items() for part in (f"--{name}", text)]
    config = tomllib.loads(run("score", "--run", tmp_path, *arguments, "--print-config")[1])
    for name, (_, value) in typed.items():
        section, key = name.split(".")
        assert config[section][key] == value
    assert unescape(escape("a\n\\n\t\\")) == "a\n\\n\t\\"


def test_a_positional_corpus_is_no_configuration(run: Run, tmp_path: Path) -> None:
    out = run("score", "my.jsonl", "--run", tmp_path, "--print-config")[1]
    assert tomllib.loads(out)["corpus"]["path"] == "my.jsonl"


def test_without_a_file_the_runs_own_configuration_holds(run: Run, tmp_path: Path) -> None:
    config = load_config(overrides={"run": "elsewhere", "train.group_size": 3})
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    found = tomllib.loads(run("train", "--run", tmp_path, "--print-config")[1])
    assert found["train"]["group_size"] == 3
    assert found["run"] == str(tmp_path)


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["trian"], "no command 'trian'; nearest: 'train'"),
        (["train", "--train.lerning_rate", "1"], "--train.learning_rate"),
        (["train", "--train.learning_rate", "-1"], "train.learning_rate = -1.0: input should be"),
        (["train", "--reward.terms", "prefx=1"], "unknown reward 'prefx'; nearest: 'prefix'"),
        (["train", "--reward.terms", "prefix=much"], "'much' in 'prefix=much' is no number"),
        (["train", "--reward.terms", "prefix"], "'prefix' in 'prefix' is no number"),
        (["train", "--reward.terms", "=1"], "'=1' has no name"),
        (["train", "--reward.terms", "prefix=0"], "a weight other than 0"),
        (["train", "--reward.terms", "prefix=nan"], "input should be a finite number"),
        (["train", "--reward.terms", "prefix=1e300"], "the weight of 'prefix' must be at most"),
        (["train", "--reward.segment_judge", "fuzy"], "unknown judge 'fuzy'; nearest: 'fuzzy'"),
        (["train", "--train.steps", "x"], "'x' is not a valid integer"),
        (["train", "--train.steps"], "requires an argument"),
        (["train", "--train.algorithm", "ppo"], "grpo"),
        (["train", "none.toml"], "none.toml: no such configuration file"),
        (["train", "corpus.txt"], "corpus.txt: no such file; a configuration's name ends"),
        (["train", "a.toml", "--config", "b.toml"], "two configuration files"),
        (["train", "a.toml", "b"], "unexpected extra argument"),
        (["warmup", "--config", "none.toml"], "none.toml: no such configuration file"),
        (["score", "--score.splits", "train,test"], "'test' is none of train"),
        (["score", "--corpus.heldout_fraction", "0.95"], "must be below 1"),
        (["evaluate", "--run", "nothing"], "nothing: not a run folder (there is no such folder)"),
        (["evaluate", "--label", "a/b"], "no slashes"),
        (["rollouts"], "Missing argument"),
        (["rollouts", "nothing"], "nothing: not a run folder"),
        (["report", "nothing"], "nothing: not a run folder"),
        (["predict", "model"], "Missing option '--text'"),
        (["predict", "./nothing", "--text", "a"], "no such model folder"),
        (["predict", ".", "--text", "a", "--samples", "0"], "'--samples'"),
        (["predict", ".", "--text", "a", "--samples", "1000000000"], "range 1<=x<=1000"),
        (["predict", ".", "--text", "a", "--temperature", "nan"], "nan is not a number"),
        (["predict", ".", "--text", "a", "--temperature", "inf"], "range 0.001<=x<=100"),
        (["predict", ".", "--text", "a\udcff"], "'--text': not UTF-8 at character 1"),
        (["estimate", "--gpu", "x", "--utilisation", "nan"], "nan is not a number"),
        (["train", "--seed", str(10**400)], "seed = 1000"),
        (["train", "--seed", "9" * 5000], "is not a valid integer"),
        (["train", "--train.group_size", "1000000000"], "less than or equal to 10000"),
        (["train", "--prompt.thought_start", "a\udcff"], "prompt.thought_start = 'a\\udcff': "),
        (["rollouts", ".", "--step", str(10**400)], "range 0<=x<="),
        (["patterns", ".", "--bins", "1000000000"], "range 1<=x<=1000"),
        (["scaling", ".", "--resamples", "1000000000"], "range 0<=x<=100000"),
        (["demo", "--budget", "soon"], "--budget soon: a time such as 90s, 15m or 1.5h"),
        (["demo", "--budget", f"{'9' * 400}h"], "at most 1000h"),
        (["evaluate", "--label", "a\0b"], "no hidden characters"),
        (["evaluate", "--label", "a" * 300], "at most 100"),
        ([f"a{'.a' * 50_000}"], "no command 'a.a.a"),
        (["train", f"--a{'.a' * 50_000}", "1"], "No such option"),
    ],
)
def test_bad_input_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert part in error_of(run(*arguments))


PATHS = {
    "": "must not be empty",
    "a\0b": "must not hold a NUL character",
    "r\udc80": "must be UTF-8",
    "a" * 5000: "File name too long",
    "file/inside": "Not a directory",
    "loop": "Too many levels of symbolic links",
}
TAKES_A_PATH = [
    ["train", "--run"],
    ["train", "--config"],
    ["train"],
    ["score"],
    ["score", "--model.path"],
    ["score", "--corpus.path"],
    ["score", "--score.model"],
    ["pretrain", "--pretrain.match"],
    ["finetune", "--questions.path"],
    ["finetune", "--beside"],
    ["coding", "--coding.path"],
    ["writing", "--text"],
    ["writing", "--writing.features"],
    ["evaluate"],
    ["compare"],
    ["evaluate", "--scores"],
    ["questions", "--out"],
    ["compare", "x", "--out"],
    ["control"],
    ["rollouts"],
    ["status"],
    ["status", "x"],
    ["report"],
    ["report", "x"],
    ["watch"],
    ["patterns"],
    ["patterns", "x", "--keywords"],
    ["patterns", "x", "--out"],
    ["scaling"],
    ["scaling", "x", "--out"],
    ["demo", "--run"],
    ["predict", "--text", "a"],
    ["probe"],
]
MAY_BE_EMPTY = ("--score.model", "--pretrain.match", "--writing.features")


@pytest.mark.parametrize("command", TAKES_A_PATH, ids=" ".join)
def test_a_path_that_cannot_be_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Whatever takes a path, and nothing is made or read before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "loop").symlink_to("loop")
    for path, part in PATHS.items():
        if path or command[-1] not in MAY_BE_EMPTY:
            assert part in error_of(run(*command, path)), repr(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "loop"]


@pytest.mark.parametrize("path", ["", "a\\u0000b", "file/inside", "a" * 5000])
def test_a_run_that_cannot_be_in_a_file_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "c.toml").write_text(f'run = "{path}"\n', encoding="utf-8")
    assert "run = '" in error_of(run("train", "c.toml"))


def test_damaged_configurations_are_named(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[train]\nlerning_rate = 1\n", encoding="utf-8")
    assert "unknown key 'train.lerning_rate'; nearest: 'train.learning_rate'" in error_of(
        run("train", bad)
    )
    bad.write_text("train = [", encoding="utf-8")
    assert "not valid TOML" in error_of(run("train", bad))


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a.txt: empty\n"), 2, "openrpt: a.txt: empty\n"),
        (
            OSError(28, "No space left on device", "/full/x"),
            2,
            "openrpt: /full/x: cannot be read or written (No space left on device); free some",
        ),
        (
            OSError(5, "Input/output error"),
            2,
            "openrpt: a file: cannot be read or written (Input/output error); the disk, or the way",
        ),
        (KeyboardInterrupt(), 130, "openrpt: interrupted\n"),
        (Terminated(signal.SIGTERM), 143, "openrpt: interrupted\n"),
        (click.UsageError("no"), 2, "openrpt: no\n"),
    ],
)
def test_exit_codes(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(command_of("doctor"), "callback", fail)
    found, out, err = run("doctor")
    assert (found, out) == (code, "")
    assert err.strip("\n").startswith(line.strip("\n"))
    assert len(err.split("\n")) <= 3  # click puts a line break behind the terminal's ^C


def test_a_clean_stop_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        with cli_module.showing_progress():
            raise Interrupted("stopped in train after step 3; the same command goes on")

    monkeypatch.setattr(command_of("doctor"), "callback", stop)
    code, _, err = run("doctor")
    assert code == 130
    assert err == "openrpt: stopped in train after step 3; the same command goes on\n"


@pytest.mark.parametrize(
    ("stop", "goes_on", "code", "line"),
    [
        (KeyboardInterrupt(), True, 130, "interrupted; the same command goes on"),
        (Terminated(signal.SIGTERM), True, 143, "interrupted; the same command goes on"),
        (Terminated(signal.SIGTERM), False, 143, "interrupted"),
        (Interrupted("stopped in train", exit_code=143), True, 143, "stopped in train"),
    ],
)
def test_a_stop_is_one_line(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    stop: BaseException,
    goes_on: bool,
    code: int,
    line: str,
) -> None:
    def fail() -> None:
        with cli_module.showing_progress(goes_on=goes_on):
            raise stop

    monkeypatch.setattr(command_of("doctor"), "callback", fail)
    assert run("doctor") == (code, "", f"openrpt: {line}\n")


def test_our_own_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(command_of("doctor"), "callback", fail)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_as_a_process(tmp_path: Path) -> None:
    """The exit code and the one line, as a shell sees them; a reader that leaves is no error."""
    command = [sys.executable, "-m", "openrpt"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*command, "train", "none.toml"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "openrpt: none.toml: no such configuration file\n"
    with open(os.devnull, "rb") as nothing:
        process = subprocess.Popen(
            [*command, "train", "--help"],
            stdin=nothing,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        process.wait()


@pytest.mark.parametrize(
    ("text", "minutes"), [("90s", 1.5), ("15m", 15), ("1.5h", 90), ("8h", 480), (" 2 h ", 120)]
)
def test_budgets(text: str, minutes: float) -> None:
    assert parse_budget(text) == minutes


@pytest.mark.parametrize("text", ["", "15", "m", "-1m", "0m", "1d", "1h30m", "nan h"])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(UserError, match="a time such as"):
        parse_budget(text)


# ---- the stages ---------------------------------------------------------------------------------


def test_evaluate_records_and_shows_a_table(run: Run, trained: Path) -> None:
    code, out, err = run("evaluate", "--run", trained)
    assert code == 0, err
    for word in ("easy", "medium", "hard", "band > 1.5", "reasoning", "±"):
        assert word in out
    assert "recorded as 'trained'" in out
    sampled = ["--evaluate.samples", 2, "--evaluate.positions", 20, "--evaluate.modes", "reasoning"]
    code, out, err = run("evaluate", "start", "--run", trained, *sampled)
    assert code == 0, err
    assert "majority" in out
    recorded = json.loads((trained / "evaluation.json").read_text(encoding="utf-8"))
    labels = list(recorded["evaluations"])
    assert labels[0] == "trained"
    assert labels[1] == "start-modes=_reasoning_-positions=20-samples=2"
    assert "evaluate.samples=2" in recorded["evaluations"][labels[1]]["note"]
    # What was asked for binds this evaluation, not the run.
    assert load_config(trained / "config.toml").evaluate.samples == 0


def test_evaluate_of_a_foreign_model(run: Run, trained: Path, tmp_path: Path) -> None:
    same = tiny_model_folder(tmp_path / "same", seed=3)
    code, out, err = run("evaluate", same, "--run", trained, "--label", "mine")
    assert code == 0, err
    assert "recorded as 'mine'" in out
    elsewhere = ["--scores", trained / "scored", "--run", tmp_path / "other"]
    settings = ["--prompt.window", 32, "--evaluate.positions", 10, "--model.threads", 1]
    code, out, err = run("evaluate", same, *elsewhere, *settings)
    assert code == 0, err
    assert (tmp_path / "other" / "evaluation.json").is_file()
    another = byte_level_tokenizer(vocab_size=300)
    other = tiny_model_folder(tmp_path / "other-tokens", tokenizer=another)
    ntp = ["--evaluate.modes", "ntp", "--label", "larger"]
    code, out, err = run("evaluate", other, "--run", trained, *ntp)
    assert code == 0, err
    assert "40 of 40 positions stand between two of its tokens" in " ".join(err.split())


def test_the_start_models_candidates_are_for_its_own_tokenizer(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    other = tiny_model_folder(tmp_path / "other", tokenizer=byte_level_tokenizer(vocab_size=300))
    of_start = ["--run", trained, "--prompt.candidate_source", "start"]
    for command in (
        ["evaluate", other],
        ["predict", other, "--text", "abc"],
        ["traces", "model", other, "--out", tmp_path / "traces.jsonl"],
    ):
        error = error_of_stage(run(*command, *of_start))
        assert "another tokenizer than the start model" in error, command


def test_evaluate_several_models_side_by_side(
    run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no words are broken
    same = tiny_model_folder(tmp_path / "larger", seed=4)
    few = ["--evaluate.positions", 10]
    code, out, err = run("evaluate", "start", "trained", same, "--run", trained, *few)
    assert code == 0, err
    table = out[out.index("Table 1") :]
    assert all(name in table for name in ("start", "trained", "larger", "training", "FLOPs"))
    line = error_of_stage(run("evaluate", "start", "trained", "--run", trained, "--label", "x"))
    assert "--label names one model" in line
    line = error_of_stage(run("evaluate", "traned", "--run", trained))
    assert "no model 'traned'; nearest: 'trained'" in line


def test_control_lists_and_runs(run: Run, trained: Path) -> None:
    code, out, err = run("control", trained)
    assert code == 0, err
    assert "random-reward" in out and "openrpt compare" in out
    few = ["--evaluate.positions", 10, "--label", "mine"]
    code, out, err = run("control", trained, "ntp-documents", *few)
    assert code == 0, err
    assert "mine" in out and (trained / "controls" / "mine" / "pretrain-checkpoints").is_dir()
    assert "nearest: 'no-thought'" in error_of_stage(run("control", trained, "no-though"))


def test_evaluate_templates_and_compare(
    run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no words are broken
    templates = ["--evaluate.templates", "minimal,v0", "--evaluate.samples", 2]
    room = ["--prompt.chat_template", "off", "--prompt.window", 16, "--evaluate.positions", 8]
    code, out, err = run("evaluate", "start", "--run", trained, *templates, *room)
    assert code == 2 and "a prompt can reach" in err  # v0's instructions are long for a tiny model
    minimal = ["--evaluate.templates", "minimal,minimal", *room, *templates[2:]]
    code, out, err = run("evaluate", "start", "--run", trained, *minimal, "--label", "t")
    assert code == 0, err
    assert "Random@1" in out and "Pass@2" in out and "recorded as 't-minimal'" in out
    controls = ["--evaluate.controls", "emptied,swapped,ntp_voting", "--evaluate.likelihood"]
    code, out, err = run("evaluate", "trained", "--run", trained, *controls)
    assert code == 0, err
    for words in ("Thinking is not said to help", "draws a position", "information gain"):
        assert words in out
    where = ["--out", tmp_path / "c", "--against", "trained ntp"]
    code, out, err = run("compare", trained, *where)
    assert code == 0, err
    assert "left out" in out and "trained: Thinking is not said to help" in out
    assert {p.suffix for p in (tmp_path / "c").iterdir()} == {".json", ".csv", ".md", ".svg"}
    first = {"table-8": "t-minimal"}  # which was evaluated at other positions than the rest
    for layout, word in (("table-1", "next-token"), ("table-8", "Pass@2"), ("figure-4", "mean")):
        against = ["--out", tmp_path / layout, "--against", first.get(layout, "trained ntp")]
        code, out, err = run("compare", trained, *against, "--layout", layout)
        assert code == 0 and word in out, out + err
    assert run("compare", trained, *where)[0] == 0  # the same again
    checkpoint = trained / "checkpoints" / "step-000002"
    line = error_of_stage(run("compare", checkpoint, "--out", tmp_path / "c"))
    assert "holds the comparison of" in line
    line = error_of_stage(run("compare", trained, "--against", "traned", "--out", tmp_path / "d"))
    assert "no such model here; nearest: 'trained" in line
    assert "nothing: no such folder" in error_of(run("compare", tmp_path / "nothing"))
    emptied = ["--evaluate.controls", "emptied"]
    line = error_of_stage(run("evaluate", "--run", trained, *emptied, "--evaluate.modes", "ntp"))
    assert "has no 'reasoning'" in line
    line = error_of_stage(run("evaluate", "--run", trained, *emptied, "--prompt.candidates", 0))
    assert "there is no thought to change" in line


def error_of_stage(result: tuple[int, str, str]) -> str:
    """As `error_of`, where a stage may have told of its progress before."""
    code, _, err = result
    assert code == 2, err
    last = err.splitlines()[-1]
    assert last.startswith("openrpt: ")
    return last


def test_evaluate_without_what_it_needs(run: Run, trained: Path, tmp_path: Path) -> None:
    last = error_of_stage(run("evaluate", "best", "--run", trained))
    assert "no 'best' model yet; its latest is 'trained'" in last
    nothing = error_of_stage(run("evaluate", tmp_path, "--run", trained))
    assert "config.json is missing" in nothing
    empty = ["--scores", tmp_path, "--run", trained]
    assert "no scores here" in error_of_stage(run("evaluate", *empty))


def test_a_run_folder_is_bound_to_its_configuration(run: Run, trained: Path) -> None:
    line = error_of(run("train", "--run", trained, "--train.temperature", 0.5))
    assert "belongs to a run with train.temperature = 1.0, not 0.5" in line


def test_score_checks_its_input_before_a_run_folder_is_made(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    """A folder that a typo has made would refuse the corrected command."""
    model, corpus = trained.parent / "model", tmp_path / "c.jsonl"
    good = {"--model.path": model, "--prompt.window": 32, "--model.threads": 1}
    mistakes = {
        "no such file or folder": {"--corpus.path": tmp_path / "none.jsonl"},
        "config.json is missing": {"--model.path": tmp_path},
        "no such model folder": {"--score.model": tmp_path / "none"},
        "field 'txt' is missing": {"--corpus.template": "{txt}"},
        "min_context": {"--prompt.min_context": 40},
    }
    periodic_corpus(corpus)
    for part, mistake in mistakes.items():
        options = [str(word) for pair in (good | mistake).items() for word in pair]
        assert part in error_of(run("score", corpus, "--run", tmp_path / "run", *options))
        assert not (tmp_path / "run").exists()
    options = [str(word) for pair in good.items() for word in pair]
    assert run("score", corpus, "--run", tmp_path / "run", *options)[0] == 0


def test_finetune_checks_its_input_before_a_run_folder_is_made(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    questions, folder = tmp_path / "q.jsonl", tmp_path / "run"
    rows = [json.dumps({"question": f"{i}?", "answer": str(i)}) for i in range(20)]
    questions.write_text("\n".join(rows), encoding="utf-8")
    model = trained.parent / "model"
    for part, asked in {
        "no such model folder": [tmp_path / "none", "--questions.path", questions],
        "no such file": [model, "--questions.path", tmp_path / "none.jsonl"],
        "field 'query'": [model, "--questions.path", questions, "--questions.question", "query"],
    }.items():
        assert part in error_of(run("finetune", *asked, "--run", folder))
        assert not folder.exists()


def test_stages_need_scores(run: Run, trained: Path, tmp_path: Path) -> None:
    model = ["--model.path", trained.parent / "model", "--prompt.window", 32, "--model.threads", 1]
    for command in ("warmup", "train", "pretrain"):
        line = error_of_stage(run(command, "--run", tmp_path / command, *model))
        assert "run 'openrpt score' first" in line
        assert not (tmp_path / command).exists()


@pytest.mark.parametrize("command", ["score", "train", "estimate"])
def test_too_many_threads_are_refused_before_a_run_folder_is_made(
    run: Run, trained: Path, tmp_path: Path, command: str
) -> None:
    folder = trained if command == "train" else tmp_path / "run"  # train needs scores first of all
    line = error_of(run(command, "--run", folder, "--model.threads", 100_000))
    assert "model.threads = 100000, but this machine has" in line and "give at most that" in line
    assert not (tmp_path / "run").exists()


def test_rollouts(run: Run, trained: Path) -> None:
    code, out, err = run("rollouts", trained, "--limit", 2)
    assert (code, err) == (0, "")
    assert out.count("step 2 · document") == 2
    assert "… and 6 more groups (--limit)" in out
    for word in ("continuation", "ntp", "candidates", "thought", "reward", "advantage"):
        assert word in out
    code, out, _ = run("rollouts", trained, "--step", 1, "--limit", 1, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["rollout"] for row in rows] == [0, 1, 2, 3]
    chosen = ["--document", rows[0]["document_id"][:6], "--position", rows[0]["position"]]
    code, out, _ = run("rollouts", trained, "--step", 1, *chosen)
    assert out.count("step 1 · document") == 1


def test_rollouts_that_are_not_there(run: Run, trained: Path) -> None:
    assert "stored are steps 1 to 2" in error_of(run("rollouts", trained, "--step", 9))
    line = error_of(run("rollouts", trained, "--model", "other"))
    assert "no rollouts of an evaluation 'other'" in line
    assert "train.eval_every" in error_of(run("rollouts", trained, "--development"))
    assert "of no step" in error_of(run("rollouts", trained, "--model", "x", "--step", 1))
    assert "no such document" in error_of(run("rollouts", trained, "--document", "nope"))


def test_predict(run: Run, trained: Path) -> None:
    model = trained / "checkpoints" / "step-000002"
    asked = ["--text", "qzxjkv", "--continuation", "wbf", "--samples", 3]
    code, out, err = run("predict", model, *asked)
    assert code == 0 and err.splitlines()[:2] == [f"load {model} …", "predict (3 rollouts) …"]
    assert "continuation  │w│b│f│" in out
    assert 1 <= out.count("thought") == out.count("  reward ") <= 3, "alike ones are one"
    code, out, err = run("predict", model, "--text", "qzxjkv", "--greedy")
    assert out.count("thought") == 1 and "reward" not in out
    # The checkpoint's own prompt settings hold, and can be overridden.
    shown = tomllib.loads(run("predict", model, "--text", "a", "--print-config")[1])
    assert shown["prompt"]["window"] == 32
    code, out, _ = run("predict", model, *asked, "--prompt.candidates", 0)
    assert code == 0 and " | " not in out


def test_predict_from_standard_input(trained: Path) -> None:
    model = str(trained / "checkpoints" / "step-000002")
    arguments = ["predict", model, "--samples", "1", "--text"]
    typed = CliRunner().invoke(cli, [*arguments, "qzxjkv"], catch_exceptions=False).output
    read = CliRunner().invoke(cli, [*arguments, "-"], input="qzxjkv\n", catch_exceptions=False)
    assert read.output == typed
    with pytest.raises(UserError, match="not UTF-8 at byte 1"):
        CliRunner().invoke(cli, [*arguments, "-"], input=b"q\xff", catch_exceptions=False)


def test_predict_bad_input(run: Run, trained: Path, tmp_path: Path) -> None:
    model = trained / "checkpoints" / "step-000002"
    assert "the text is empty" in error_of_stage(run("predict", model, "--text", ""))
    assert "config.json is missing" in error_of(run("predict", tmp_path, "--text", "a"))
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert "without safetensors weights" in error_of(run("predict", tmp_path, "--text", "a"))
    assert "no such GGUF file" in error_of(run("predict", tmp_path / "x.gguf", "--text", "a"))
    too_long = ["--text", "q" * 200, "--prompt.window", 200]
    assert "but the model holds 128" in error_of_stage(run("predict", model, *too_long))


@pytest.mark.usefixtures("small_products")
def test_doctor(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code == 0 and "torch" in out
