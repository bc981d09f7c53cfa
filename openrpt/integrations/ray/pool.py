"""A pool of Ray Data's actors: each opens what it needs once, and takes item after item.

Items come from one function that runs beside this process and waits for the actors (back-pressure),
so that there are never more of them than the actors will take next.
"""

import logging
import os
import pickle
import queue
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from openrpt.errors import UserError
from openrpt.integrations.ray.cluster import Cluster

_Rows = dict[str, list[bytes]]
_DEATHS = 3
"""The most often that an actor is started again, and an item given to it again."""
_LOOK_SECONDS = 5.0
"""Seconds between two looks at the nodes, where nothing comes."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """What the user is to be told."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Actors of a cluster."""

    cluster: Cluster
    workers: int
    threads: int = 0
    """CPU threads of an actor's model; 0 = its CPUs."""

    def each(
        self, items: Callable[[], Iterator[Any]], opened: Callable[[], Callable[[Any], Any]]
    ) -> Iterator[Any]:
        """Yields what the function that `opened` returns makes of each item, in the items' order.

        `items` runs once on this machine, and again from the beginning where its process dies;
        `opened` runs once in each actor, and an item more than once where its actor dies: both are
        to give the same again. Raises the first UserError that one of them raises, and UserError
        where actors die again and again, or a lost node leaves no room for them.
        """
        for row in self._watched(self._rows(items, opened)):
            found = pickle.loads(row["item"])
            if isinstance(found, _Failed):
                raise UserError(found.message)
            yield found

    def _rows(
        self, items: Callable[[], Iterator[Any]], opened: Callable[[], Callable[[Any], Any]]
    ) -> Iterable[dict[str, Any]]:
        """Returns the data set whose rows are the results, pickled; it runs when it is read."""
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        here = ray.get_runtime_context().get_node_id()
        threads = self.threads or self.cluster.cpus
        with DataContext.current(_context()), warnings.catch_warnings():
            # The only way to say how often an actor is started again; Ray 2.64 removes it.
            warnings.filterwarnings("ignore", message=".*ray_remote_args_fn")
            return (
                ray.data.from_items([{"item": b""}])
                .map_batches(
                    _Source(items, os.getcwd()),
                    batch_size=None,
                    num_cpus=0,
                    label_selector={"ray.io/node-id": here},
                )
                .map_batches(
                    _Actor,
                    fn_constructor_args=(opened, os.getcwd(), threads),
                    batch_size=1,
                    compute=ActorPoolStrategy(size=self.workers),
                    num_cpus=self.cluster.cpus,
                    num_gpus=self.cluster.gpus or None,
                    ray_remote_args_fn=_retried,
                )
                .iter_rows()
            )

    def _watched(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yields the rows; raises UserError where the cluster can't give any more."""
        import ray

        found: queue.Queue[Any] = queue.Queue()
        ended = threading.Event()

        def read() -> None:
            last: Any = None
            try:
                for row in rows:
                    found.put(row)
                    if ended.is_set():
                        return
            except Exception as error:  # raised again, in the thread that waits for rows
                last = error
            found.put(last)

        threading.Thread(target=read, daemon=True).start()
        try:
            while True:
                try:
                    row = found.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    self._require_room()
                    continue
                if row is None:
                    return
                if isinstance(row, ray.exceptions.RayTaskError):
                    raise row
                if isinstance(row, ray.exceptions.RayError):
                    raise UserError(_died(row)) from None
                if isinstance(row, Exception):
                    raise row
                yield row
        finally:
            ended.set()

    def _require_room(self) -> None:
        room = self.cluster.room()
        if room < self.workers:
            raise UserError(
                f"a node of the Ray cluster was lost: there is room for {room} workers of"
                f" {self.cluster.worker}, not for {self.workers}; the same command with"
                f" --workers {max(room, 1)} goes on"
            )


def _context() -> Any:
    """Returns Ray Data's settings: an item a block, in order, and nothing printed."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current().copy()
    context.target_max_block_size = 1  # bytes: blocks are closed behind each row
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context


def _retried() -> dict[str, Any]:
    """Returns how often Ray starts an actor again; by default for ever."""
    return {"max_restarts": _DEATHS, "max_task_retries": _DEATHS}


def _died(error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    return (
        f"Ray's workers died {_DEATHS + 1} times at the same piece of work, or their node is gone"
        f" ({reason}); see to their memory (--workers, --score.shard_tokens), the same"
        " command goes on"
    )


class _Source:
    """The function that gives the items, as Ray Data calls it."""

    def __init__(self, items: Callable[[], Iterator[Any]], where: str) -> None:
        self.items, self.where = items, where

    def __call__(self, batch: Any) -> Iterator[_Rows]:
        os.chdir(self.where)
        try:
            for item in self.items():
                yield {"item": [pickle.dumps(item)]}
        except UserError as error:
            yield {"item": [pickle.dumps(_Failed(str(error)))]}


class _Actor:
    """A worker, as Ray Data calls it."""

    def __init__(
        self, opened: Callable[[], Callable[[Any], Any]], where: str, threads: int
    ) -> None:
        self.opened, self.where, self.threads = opened, where, threads
        self.made: Callable[[Any], Any] | None = None

    def __call__(self, batch: Any) -> _Rows:
        return {"item": [pickle.dumps(self._made(pickle.loads(one))) for one in batch["item"]]}

    def _made(self, item: Any) -> Any:
        if isinstance(item, _Failed):
            return item
        try:
            if self.made is None:  # not above: what Ray says of an error there hides its message
                from openrpt.engine.cpu import use_cpu  # with torch, which the items' source spares

                os.chdir(self.where)
                use_cpu(self.threads)
                self.made = self.opened()
            return self.made(item)
        except UserError as error:
            return _Failed(str(error))
