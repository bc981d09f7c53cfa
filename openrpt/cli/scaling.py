"""The options that say where a command runs: here, or on a Ray cluster."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from openrpt.cli.arguments import TEXT, Number
from openrpt.errors import UserError

if TYPE_CHECKING:
    from openrpt.evaluation.next_token.stage import OpenModel
    from openrpt.integrations.ray.cluster import Cluster

_Function = TypeVar("_Function", bound=Callable[..., Any])
_NAMES = {
    "address": "address",
    "workers": "workers",
    "worker_cpus": "cpus",
    "worker_gpus": "gpus",
}
"""Option → field of `Cluster`."""


def scalable(function: _Function) -> _Function:
    """Gives a command the options of where it runs; `cluster_of` reads them."""
    options = [
        click.option(
            "--scale", type=click.Choice(["ray"]), help="Run on a Ray cluster (docs/ray.md)"
        ),
        click.option(
            "--address",
            metavar="HOST:PORT",
            type=TEXT,
            help="The cluster's head, or 'auto' for this machine's cluster [default: one is started"
            " on this machine]",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1, 100_000),
            help="Workers [default as many as there is room for]",
        ),
        click.option(
            "--worker-cpus",
            type=click.IntRange(1, 10_000),
            help="CPUs of a worker [default 1]",
        ),
        click.option(
            "--worker-gpus",
            type=Number(0, 64),
            help="GPUs of a worker; a part of one, too [default 0]",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def cluster_of(options: dict[str, Any]) -> "Cluster | None":
    """Returns the cluster that a command is to run on; None for this process.

    Raises UserError for what is said about a cluster where none is asked for, and where Ray is not
    installed.
    """
    given = {name: options[name] for name in _NAMES if options[name] is not None}
    if options["scale"] is None:
        if given:
            option = next(iter(given)).replace("_", "-")
            raise UserError(f"--{option} is about a Ray cluster; add --scale ray")
        return None
    from openrpt.extras import require

    require("ray", extra="ray", what="--scale ray")
    from openrpt.integrations.ray.cluster import Cluster

    return Cluster(**{_NAMES[name]: value for name, value in given.items()})


def opening(cluster: "Cluster | None", shared: Path, open_model: "OpenModel") -> "OpenModel":
    """Returns what opens models: as `open_model` does, and where there is a cluster, so that it
    makes their completions."""
    if cluster is None:
        return open_model
    from openrpt.integrations.ray.sampler import opening_on

    return opening_on(cluster, shared, open_model)
