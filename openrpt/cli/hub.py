"""The command that publishes: push."""

from pathlib import Path

import click

from openrpt.cli.arguments import PATH, TEXT, RunCommand
from openrpt.cli.main import command, showing_progress
from openrpt.errors import UserError
from openrpt.terminal import say, say_lines


@command("push", after="watch", cls=RunCommand)
@click.argument("source", metavar="RUN|FOLDER", type=PATH)
@click.argument("repo", metavar="NAMESPACE/NAME", type=TEXT)
@click.option("--public", is_flag=True, help="Make the new repository public [default: private]")
@click.option("--update", is_flag=True, help="Add a commit to a repository that is there already")
@click.option("--dry-run", is_flag=True, help="Show the files and the card, and send nothing")
def push(source: str, repo: str, public: bool, update: bool, dry_run: bool) -> None:
    """Upload a trained model to the Hugging Face Hub, with a card.

    \b
    openrpt push runs/maths me/maths-rpt --dry-run
    openrpt push runs/maths/checkpoints/best me/maths-rpt

    Of a run its latest model. The card has data, recipe, results and cost. A new repository is
    private.
    """
    if public and update:
        raise UserError("--public is of a new repository; one that is there stays as it is")
    from openrpt.report.hub import publication
    from openrpt.report.hub import push as push_model

    found = publication(Path(source))
    sizes = found.sizes()
    if dry_run:
        for name, size in sizes.items():
            say(f"{size:>15,}  {name}")
        say_lines(f"\n{found.card}")
        say(f"nothing was sent; without --dry-run {repo} gets these {len(sizes)} files")
        return
    with showing_progress() as progress:
        progress.begin(f"upload {sum(sizes.values()) / 1e6:,.1f} MB", 0)
        address = push_model(found, repo, public=public, update=update)
    say(f"{found.title}: {len(sizes)} files at {address}")
