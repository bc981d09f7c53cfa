"""A real Ray cluster of nodes on this machine, as small as it gets."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.config.sections import Config
from openrpt.integrations.ray.cluster import ENVIRONMENT
from openrpt.stages.score.documents import Shard
from openrpt.stages.score.folder import ScoreFolder

SMALL = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process a start, which waits for a cloud's word
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # until the loss of a worker is seen; 2 by default
}
PATIENT = {
    # A process that has nothing to do stays, for the next test; 1 s by default.
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
    "RAY_worker_niceness": "0",  # 15 by default: beside one busy process they hardly run at all
    # A node that is not heard for half a minute is given up by default, and a process that takes a
    # minute to begin is killed: other programs may have the processor.
    "RAY_health_check_failure_threshold": "100",
    "RAY_worker_register_timeout_seconds": "600",
}
TRIES = 5
"""Ray gives a node half a minute to begin, and no way to give it more."""


@contextmanager
def ray_nodes(count: int = 2) -> Iterator[str]:
    """Starts nodes of a CPU each, connects this process to them, and gives the head's address."""
    for name, value in (ENVIRONMENT | SMALL | PATIENT).items():
        os.environ.setdefault(name, value)
    import ray

    nodes = _started(count)
    try:
        ray.init(nodes.address, logging_level="ERROR", log_to_driver=False)
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()


def _started(count: int) -> Any:
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_log_monitor": False}
    head = small | {"include_dashboard": False, "no_monitor": True}
    for left in reversed(range(TRIES)):
        nodes = Cluster()
        try:
            for settings in (head, *[small] * (count - 1)):
                nodes.add_node(**settings)
            return nodes
        except Exception as error:  # Ray raises nothing narrower
            nodes.shutdown()
            if not left or "timed out" not in str(error).lower():
                raise


@dataclass(frozen=True, kw_only=True)
class DiesOnce:
    """Opens an actor's work as `scoring._opened` does; the first actor that comes to a shard kills
    itself as it writes it."""

    shard: int
    """Counted from 1."""
    notes: Path
    """A folder for the numbers of the processes: `opened-N` of each, and `killed-N`."""

    def __call__(
        self, config: Config, folder: ScoreFolder, about: dict[str, Any]
    ) -> Callable[[Any], Any]:
        from openrpt.integrations.ray.scoring import _opened

        score, own = _opened(config, folder, about), os.getpid()
        (self.notes / f"opened-{own}").touch()

        def score_or_die(one: Any) -> Any:
            if isinstance(one, Shard) and one.summary.shards == self.shard and not self.killed():
                half = f"positions-{self.shard - 1:05}.parquet.{own}.partial"
                (folder.path / half).write_bytes(b"PAR1")
                (self.notes / f"killed-{own}").touch()
                os.kill(own, signal.SIGKILL)
            return score(one)

        return score_or_die

    def opened(self) -> set[int]:
        """The actors that have opened their work."""
        return self._noted("opened")

    def killed(self) -> set[int]:
        """The actors that have killed themselves."""
        return self._noted("killed")

    def _noted(self, what: str) -> set[int]:
        return {int(path.name.rpartition("-")[2]) for path in self.notes.glob(f"{what}-*")}
