"""A Ray cluster: connecting to one, or starting one on this machine, and what must hold there."""

import math
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openrpt
from openrpt.errors import UserError
from openrpt.extras import require
from openrpt.files import write_text, writing

_STORE_BYTES = 512 << 20
"""Memory of the object store of a cluster that is started here: what passes through it is small."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # 60 by default: a busy machine takes longer
}
"""What Ray reads when it is imported or started: it reports nothing to anyone, and says less."""
_CONNECT_SECONDS = 5.0
_LOOK_SECONDS = 600.0
"""Seconds that a node has to say whether it sees the shared folder; its first process imports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Where something runs: which Ray cluster, and what each of its workers takes there."""

    address: str = ""
    """The head's HOST:PORT, or "auto" for the cluster that this machine belongs to; empty: one is
    started here, and ended again."""
    workers: int = 0
    """0 = as many as there is room for."""
    cpus: int = 1
    """CPUs of a worker, which are the threads that its model computes with."""
    gpus: float = 0.0
    """GPUs of a worker."""

    @property
    def resources(self) -> dict[str, float]:
        """What a worker takes, in Ray's words."""
        needed: dict[str, float] = {"CPU": self.cpus}
        return needed | {"GPU": self.gpus} if self.gpus else needed

    @property
    def worker(self) -> str:
        """What a worker takes, in ours."""
        return f"{self.cpus} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")

    def room(self) -> int:
        """Returns how many workers the nodes that are alive hold, whatever else runs there."""
        return sum(self._fit(node["Resources"]) for node in _alive())

    def _fit(self, resources: dict[str, float]) -> int:
        shares = [resources.get(name, 0) / each for name, each in self.resources.items()]
        return math.floor(min(shares) + 1e-9)


def _alive() -> list[dict[str, Any]]:
    """Returns the nodes that are alive, as Ray describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


@contextmanager
def connected(cluster: Cluster, shared: Path) -> Iterator[int]:
    """Connects to the cluster, or starts one, and gives the number of workers.

    A process that is connected already stays so. Raises UserError where Ray is not installed, where
    there is no cluster, where the workers do not fit into it (Ray itself would wait for ever), and
    where a node does not see the folder `shared`.
    """
    require("ray", extra="ray", what="--scale ray")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    was_connected = ray.is_initialized()
    if not was_connected:
        _connect(cluster)
    try:
        room = cluster.room()
        workers = cluster.workers or room
        if not 0 < workers <= room:
            raise UserError(
                f"--workers {max(workers, 1)}: the Ray cluster has room for {room} workers of"
                f" {cluster.worker} ({_described()}); give fewer workers or --worker-cpus, or add"
                " nodes"
            )
        _require_shared(shared)
        yield workers
    finally:
        if not was_connected:
            ray.shutdown()


def _connect(cluster: Cluster) -> None:
    import ray

    from openrpt.engine.cpu import usable_cpus  # with torch, which a node that only looks is spared

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if not cluster.address:
        cpus = usable_cpus()
        wanted = max(cluster.workers, 1) * cluster.cpus
        if wanted > cpus:
            raise UserError(
                f"--workers {max(cluster.workers, 1)} of {cluster.worker}: this machine has"
                f" {cpus} CPUs to give; give fewer, or --address of a Ray cluster"
            )
        ray.init(
            "local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            **quiet,
        )
        return
    host, _, port = cluster.address.rpartition(":")
    if cluster.address != "auto":
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise _unreachable(cluster.address, error) from None
    try:
        ray.init(cluster.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(cluster.address, error) from None


def _unreachable(address: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"--address {address}: no Ray cluster there ({reason}); start one by 'ray start"
        " --head', or leave the address out for one on this machine"
    )


def _described() -> str:
    nodes = _alive()
    each = [f"{node['Resources'].get('CPU', 0):g}" for node in nodes]
    return f"{len(nodes)} nodes with {' + '.join(each)} CPUs"


def _require_shared(folder: Path) -> None:
    """Checks that all nodes see one folder, and have this OpenRPT. Raises UserError."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    seen = folder / f".seen-{token}"
    write_text(seen, token)
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    try:
        asked = {
            node["NodeManagerAddress"]: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(seen.absolute()), token)
            for node in _alive()
        }
        for address, said in asked.items():
            _require(address, folder, said)
    finally:
        seen.unlink(missing_ok=True)


def _require(address: str, folder: Path, said: Any) -> None:
    import ray

    try:
        version = ray.get(said, timeout=_LOOK_SECONDS)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise UserError(
            f"node {address} can't run OpenRPT ({reason}); install the same there"
        ) from None
    if version is None:
        raise UserError(
            f"{folder}: node {address} does not see this folder; put it on a disk that all nodes"
            " share, by the same path (--run)"
        )
    if version != openrpt.__version__:
        raise UserError(
            f"node {address} has OpenRPT {version}, this one {openrpt.__version__}; install the"
            " same there"
        )


def _look(path: str, token: str) -> str | None:
    """Returns OpenRPT's version on a node; None where the file isn't there."""
    try:
        there = Path(path).read_text(encoding="utf-8") == token
    except OSError:
        return None
    return openrpt.__version__ if there else None
