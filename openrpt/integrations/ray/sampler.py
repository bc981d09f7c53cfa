"""An engine whose completions a pool of actors makes: for evaluation, and for traces of a model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.around import Around
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine, OpenModel
from openrpt.engine.generation import Generated, side_by_side
from openrpt.integrations.ray.cluster import Cluster, connected
from openrpt.integrations.ray.pool import Pool

_Batch = list[Request]


@dataclass(frozen=True, kw_only=True, eq=False)
class SpreadEngine(Around):
    """An engine around another, for requests that come all at once: what is decoded together stays
    together, so that the outcomes are the same to the bit."""

    opened: Callable[[], Engine]
    """Opens the same engine, in an actor."""
    cluster: Cluster
    shared: Path
    """A folder that all nodes see."""
    threads: int
    """CPU threads of an actor; 0 = its CPUs."""

    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        """Yields the outcomes of one document after another; a batch alone is made here."""
        batches = list(side_by_side(requests, layout, sampling))
        if len(batches) < 2:
            yield from self.engine.generate_each(requests, layout, sampling)
            return
        with connected(self.cluster, self.shared) as workers:
            used = min(workers, len(batches))
            pool = Pool(cluster=self.cluster, workers=used, threads=self.threads)
            work = partial(_generating, self.opened, layout, sampling)
            for outcomes in pool.each(partial(iter, batches), work):
                yield from outcomes


def opening_on(cluster: Cluster, shared: Path, open_model: OpenModel) -> OpenModel:
    """Returns what opens models as `open_model` does, and lets the cluster make their completions;
    `shared`: a folder that all nodes see."""

    def open_spread(config: Config, path: str) -> Engine:
        return SpreadEngine(
            engine=open_model(config, path),
            opened=partial(open_model, config, path),
            cluster=cluster,
            shared=shared,
            threads=config.model.threads,
        )

    return open_spread


def _generating(
    opened: Callable[[], Engine], layout: Layout, sampling: Sampling
) -> Callable[[_Batch], list[list[Generated]]]:
    """Opens the engine; returns what an actor does with a batch."""
    engine = opened()

    def generate(batch: _Batch) -> list[list[Generated]]:
        return list(engine.generate_each(batch, layout, sampling))

    return generate
