"""Checks an exported folder before GPUs are taken: `python -m openrpt.integrations.verl FOLDER`.

Run by its `train.sh` in verl's environment. Exit code 2, with one line that says what is wrong.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from openrpt.errors import UserError, foreign
from openrpt.terminal import say_error

_VERL = "0.9."
"""The beginning of the versions whose agent loops and configuration these are."""


def check(folder: Path) -> None:
    """Checks verl's version, that the folder is whole, and that its model's tokenizer is the one
    that the prompts were exported with. Raises UserError."""
    try:
        found = version("verl")
    except PackageNotFoundError:
        raise UserError("verl is not installed here: pip install verl==0.9.1") from None
    if not found.startswith(_VERL):
        raise UserError(f"verl {found} is installed, but this is for verl {_VERL}x: install that")
    for name in ("train.parquet", "rpt.yaml", "agent_loop.yaml"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: {name} is missing; copy the whole folder to where every node sees it,"
                " or export it again"
            )
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer

    from openrpt.integrations.verl.reward import checked_table

    model = OmegaConf.load(folder / "rpt.yaml").actor_rollout_ref.model
    if model.path.startswith("/") and not Path(model.path).is_dir():
        raise UserError(
            f"{folder / 'rpt.yaml'}: the model {model.path} is not on this machine; put it there,"
            " or change actor_rollout_ref.model.path"
        )
    with foreign(f"the tokenizer of model '{model.path}' can't be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(
            model.path, trust_remote_code=model.trust_remote_code
        )
    checked_table(tokenizer, OmegaConf.load(folder / "agent_loop.yaml")[0].form.tokenizer)


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]))
    except UserError as error:
        say_error(str(error))
        sys.exit(2)
