"""Scoring a corpus on a Ray cluster: one documents pass, and shards scored by a pool of actors.

The files are those of `openrpt.stages.score.score.score_corpus`, byte for byte, where that did not
close a shard early because a minute had passed.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from openrpt.config.sections import Config
from openrpt.costs.meters import WorkMeter
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import read_corpus
from openrpt.data.positions import check_window
from openrpt.data.score_summary import ScoreSummary
from openrpt.data.scored_shards import write_shard
from openrpt.data.tokens import token_table
from openrpt.engine.engine import open_engine
from openrpt.engine.loading import load_tokenizer
from openrpt.files import clear_leftovers
from openrpt.integrations.ray.cluster import Cluster, connected
from openrpt.integrations.ray.pool import Pool
from openrpt.runs.spent import scoring_cost
from openrpt.stages.score.documents import Encoder, Shard, shards, skip_read
from openrpt.stages.score.folder import ScoreFolder, added, public_counts, shard_metadata
from openrpt.stages.score.score import Score, require_readable
from openrpt.stages.score.scores import Report, Scoring


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scored:
    """A shard that stands in the folder."""

    tokens: int
    documents: int
    cost: dict[str, Any] = field(default_factory=dict)
    """What it took; empty where it stood there before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ended:
    """The end of the documents pass."""

    summary: ScoreSummary
    corpus: dict[str, Any]


def scoring_on(cluster: Cluster) -> Score:
    """Returns what scores a corpus on a cluster."""
    return partial(score_corpus, cluster)


def score_corpus(
    cluster: Cluster,
    config: Config,
    path: Path,
    progress: Report = lambda tokens, text: None,
) -> ScoreSummary:
    """Scores config.corpus into the folder at `path`, which all nodes share; shards that stand
    there are left. Raises UserError as the stage's own, and for what the cluster lacks."""
    check_window(config.prompt.window, config.prompt.min_context)
    folder = ScoreFolder.of(config, path.absolute())
    folder.require_same()
    if finished := folder.finished():
        return finished
    require_readable(config.corpus)
    encoder = _encoder(config)
    folder.require_same_tokenizer(encoder.fingerprint)
    about = folder.about(encoder.fingerprint)
    spent, tokens, documents = scoring_cost(folder.path), 0, 0
    ended: _Ended | None = None
    with connected(cluster, folder.path) as workers:
        pool = Pool(cluster=cluster, workers=workers, threads=config.model.threads)
        found = pool.each(
            partial(_documents, config, folder, about), partial(_opened, config, folder, about)
        )
        for one in found:
            if isinstance(one, _Ended):
                ended = one
                continue
            if not documents:  # from here on its settings bind the folder
                folder.write_unfinished(about)
            tokens, documents = tokens + one.tokens, documents + one.documents
            if one.cost:
                spent = added(spent, one.cost)
                folder.write_cost({}, spent)
            progress(tokens, f"{documents} documents")
    assert ended is not None
    clear_leftovers(folder.path)  # of actors that were killed as they wrote
    folder.write_finished(about, ended.summary, ended.corpus)
    return ended.summary


def _encoder(config: Config) -> Encoder:
    tokenizer = load_tokenizer(config.model, config.model.path)
    other = config.score.model
    scorer_tokenizer = load_tokenizer(config.model, other) if other else tokenizer
    return Encoder(config=config, tokenizer=tokenizer, scorer_tokenizer=scorer_tokenizer)


def _documents(
    config: Config, folder: ScoreFolder, about: dict[str, Any]
) -> Iterator[Shard | _Scored | _Ended]:
    """Yields what is left to score by shard, what stands, and at last what became of the corpus."""
    counts, summary = CorpusCounts(), folder.last_summary()
    with closing(read_corpus(config.corpus, counts)) as documents:
        if summary.shards:
            yield _Scored(tokens=summary.num_tokens, documents=summary.documents)
            skip_read(documents, summary, counts, folder.path)
        for shard in shards(_encoder(config), documents, counts, summary):
            yield _standing(shard) if folder.stands(about, shard) else shard
    yield _Ended(summary=summary, corpus=public_counts(counts))


def _opened(
    config: Config, folder: ScoreFolder, about: dict[str, Any]
) -> Callable[[Any], _Scored | _Ended]:
    """Loads the scorer; returns what an actor does with each of these."""
    scorer = open_engine(config, path=config.score.model or config.model.path)
    table = token_table(load_tokenizer(config.model, config.model.path))

    def score(one: Shard | _Scored | _Ended) -> _Scored | _Ended:
        if not isinstance(one, Shard):
            return one
        if folder.stands(about, one):  # where its actor died behind the last file
            return _standing(one)
        meter = WorkMeter(scorer, config)
        scoring = Scoring(config=config, table=table, meter=meter)
        documents = [
            document
            for pack in one.packs
            for document in scoring.score(pack, lambda tokens, text: None)
        ]
        metadata = shard_metadata(about, one.summary)
        write_shard(folder.path, one.summary.shards - 1, documents, metadata)
        return _standing(one, cost=meter.cost())

    return score


def _standing(shard: Shard, *, cost: dict[str, Any] | None = None) -> _Scored:
    documents = [one for pack in shard.packs for one in pack.documents]
    tokens = sum(len(one.token_ids) for one in documents)
    return _Scored(tokens=tokens, documents=len(documents), cost=cost or {})
