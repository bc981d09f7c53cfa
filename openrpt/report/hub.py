"""A trained model on the Hugging Face Hub: its files, its card with results and cost, the upload.

What is uploaded is a plain model folder, which transformers, vLLM and lm-eval load with no code of
ours: weights, settings, tokenizer and card. The optimizer and `checkpoint.json`, which has the
configuration with its paths, stay here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.amounts import count, duration, energy, flops
from openrpt.amounts import money as money_text
from openrpt.config.loading import validate_config
from openrpt.config.prompt import PromptConfig
from openrpt.config.sections import STAGES
from openrpt.engine.checkpoint_record import CARD, RECORD, open_checkpoint
from openrpt.engine.fingerprint import READ_BY_MODELS
from openrpt.errors import UserError, foreign
from openrpt.evaluation.models import latest_model, model_path, training_cost
from openrpt.evaluation.records import read_evaluation
from openrpt.report.verdict import model_sentences
from openrpt.runs.card import model_card
from openrpt.runs.checkpoints import BASELINE
from openrpt.runs.optimizer_state import STATE
from openrpt.runs.run import Run, existing_run, is_run, owning_run

_RESULTS = "## Results"
_COST = "## Cost"


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """The content of a model's repository."""

    folder: Path
    names: tuple[str, ...]
    """The files of the folder that are uploaded, beside the card."""
    card: str
    title: str
    """The commit's message: what the model is."""

    def sizes(self) -> dict[str, int]:
        """Returns the size of each file in bytes, the card's among them."""
        found = {name: (self.folder / name).stat().st_size for name in self.names}
        return {CARD: len(self.card.encode()), **found}


def publication(source: Path) -> Publication:
    """Returns what the Hub would be given of a run (its latest model) or of a checkpoint's folder.

    Raises UserError for a run that has trained nothing, for what is no checkpoint's folder, and for
    one whose files are not as they were written.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; give a run or a checkpoint's folder")
    folder = source
    if is_run(source):
        run = existing_run(source)
        model = latest_model(run)
        if model == "start":
            raise UserError(
                f"{source}: nothing is trained yet; run 'openrpt train --run {source}' first"
            )
        folder = Path(model_path(run, model))
    record = open_checkpoint(folder)
    config = validate_config(record.config, source=f"{folder}/{RECORD}")
    return Publication(
        folder=folder,
        names=tuple(name for name in record.files if _is_model(name)),
        card=_card(folder, model_card(record.state, config), owning_run(folder), config.prompt),
        title=f"{STAGES[record.state.stage].model or record.state.stage}, step {record.state.step}",
    )


def _is_model(name: str) -> bool:
    path = Path(name)
    own = name in (STATE, BASELINE, RECORD)
    return "/" not in name and not own and path.suffix in READ_BY_MODELS


def _card(folder: Path, made: str, run: Run | None, prompt: PromptConfig) -> str:
    """Returns the card beside the weights, which people may have changed (`made` where it is gone),
    with what the run knows of the model, unless they have written that."""
    path = folder / CARD
    card = path.read_text(encoding="utf-8") if path.is_file() else made
    if run is None:
        return card
    evaluations = read_evaluation(run.evaluation)["evaluations"]
    parts = {
        _RESULTS: _results(folder, run, evaluations, prompt),
        _COST: _cost(training_cost(run, str(folder))),
    }
    for heading, lines in parts.items():
        if lines and heading not in card:
            card = "\n".join([card.rstrip("\n"), "", heading, "", *lines]) + "\n"
    return card


def _results(
    folder: Path, run: Run, evaluations: Mapping[str, Any], prompt: PromptConfig
) -> list[str]:
    """Returns what the evaluations of this very model say."""
    lines = []
    for entry in evaluations.values():
        if not _is_same(Path(entry["model"]), folder, run):
            continue
        positions = count(entry.get("positions", 0))
        where = f", where {entry['where']}" if entry.get("where") else ""
        lines.append(f"At {positions} positions of the {entry['split']} split{where}:")
        lines.append("")
        lines += [f"- {sentence}" for sentence in model_sentences("The model", entry, prompt)]
        lines.append("")
    return lines[:-1]


def _is_same(evaluated: Path, folder: Path, run: Run) -> bool:
    """Whether that model is the one in `folder` of the run, which may have been moved since."""
    if evaluated.exists():
        return evaluated.resolve() == folder.resolve()
    inside = folder.resolve().relative_to(run.path.resolve()).parts
    return evaluated.parts[-len(inside) :] == inside


def _cost(spent: Mapping[str, float | None] | None) -> list[str]:
    """Returns what the steps that made the model took."""
    if spent is None:
        return []
    seconds, joules, price = spent["seconds"], spent["joules"], spent["money"]
    lines = [f"- training: {duration(seconds or 0.0)}"]
    if spent["flops"] is not None:
        least = "at least " if spent["steps_without_flops"] else ""
        lines.append(f"- {least}{flops(spent['flops'])} FLOPs")
    if joules:
        lines.append(f"- energy: {energy(joules)}")
    if price is not None:
        lines.append(f"- money, at the run's price an hour: {money_text(price)}")
    return lines


def push(found: Publication, repo: str, *, public: bool = False, update: bool = False) -> str:
    """Uploads a model to the Hub as one commit; returns the repository's address.

    A new repository is private, unless it is to be `public`. One that is there is only added to
    with `update`: what stood in it stays in its history. Raises UserError where there is no token,
    the name is taken or is none, or the Hub can't be reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.utils import disable_progress_bars

    if get_token() is None:
        raise UserError(
            "no token for the Hub: run 'hf auth login', or set HF_TOKEN to one that may write"
        )
    disable_progress_bars()
    api, parent = HfApi(), None
    with _hub(repo):
        if api.repo_exists(repo):
            if not update:
                raise UserError(
                    f"{repo} is on the Hub already; choose another name, or add a commit to it with"
                    " --update (what is there stays in its history)"
                )
            parent = api.model_info(repo).sha
        else:
            api.create_repo(repo, private=not public)
    files = {name: str(found.folder / name) for name in found.names}
    contents: dict[str, str | bytes] = {**files, CARD: found.card.encode()}
    with _hub(repo, advice="start again with --update: the repository is there"):
        api.create_commit(
            repo,
            [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in contents.items()
            ],
            commit_message=found.title,
            parent_commit=parent,
        )
    return f"{api.endpoint}/{repo}"


@contextmanager
def _hub(repo: str, *, advice: str = "") -> Iterator[None]:
    """Turns what the Hub's client raises into one line."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
    )

    with foreign(f"{repo}: the Hub can't be used", advice=advice or "check the network"):
        try:
            yield
        except HFValidationError:
            raise UserError(
                f"'{repo}' is no repository's name: give NAMESPACE/NAME, of letters, digits, -, _"
                " and ."
            ) from None
        except OfflineModeIsEnabled:
            raise UserError("HF_HUB_OFFLINE is set, so nothing is sent; unset it") from None
        except HfHubHTTPError as error:
            status = error.response.status_code
            said = error.server_message or f"status {status}"
            helps = advice
            if status in (401, 403):
                helps = "give a token that may write there: hf auth login, or HF_TOKEN"
            raise UserError(
                "; ".join(filter(None, (f"{repo}: the Hub says: {said}", helps)))
            ) from None
