"""The scorer's pass over a corpus: what it says of every token, from plain text alone.

Each token gets its negative log-likelihood, the entropy of its distribution (the difficulty),
the same over the 16 most probable, and whether standard prediction was right. Documents are
scored in their order, some at a time; whole shards are written (`openrpt.data.scored`), and a
restart goes on after the last one. Memory does not grow with the corpus.
"""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from openrpt.config.corpus import CorpusConfig
from openrpt.config.sections import Config
from openrpt.costs.meters import WorkMeter
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.corpus_size import expected_tokens
from openrpt.data.documents import read_corpus
from openrpt.data.positions import ScoredDocument, check_window
from openrpt.data.score_summary import ScoreSummary
from openrpt.data.scored import load_scored
from openrpt.data.scored_shards import remove_shards
from openrpt.data.skipped import skipped_lines
from openrpt.data.tokens import token_table
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.loading import load_tokenizer, resolve_model
from openrpt.files import writing
from openrpt.progress import Progress
from openrpt.runs.run import Run, keep_config
from openrpt.runs.spent import scoring_cost
from openrpt.stages.score.documents import Encoder, end_shard, packs, skip_read
from openrpt.stages.score.folder import ScoreFolder, public_counts
from openrpt.stages.score.said import score_lines
from openrpt.stages.score.scores import Report, Scoring

Score = Callable[[Config, Path, Report], ScoreSummary]
"""What scores a corpus into a folder."""
_SHARD_SECONDS = 60.0
"""Seconds after which a shard is written, full or not: what a restart can lose."""


def check_input(run: Run) -> None:
    """Checks that scoring could begin, or has ended. Raises UserError for a corpus or a model that
    can't be read, or a window that doesn't fit."""
    config = run.config
    if is_scored(run):
        return
    check_window(config.prompt.window, config.prompt.min_context)
    require_readable(config.corpus)
    for model in filter(None, (config.model.path, config.score.model)):
        resolve_model(model)


def is_scored(run: Run) -> bool:
    """Returns whether a run's corpus is scored to its end. Raises UserError for damaged scores."""
    return ScoreFolder.of(run.config, run.scored).finished() is not None


def require_readable(corpus: CorpusConfig) -> None:
    """Reads the first document of the corpus, and of the held-out one. Raises UserError."""
    for path in filter(None, (corpus.path, corpus.heldout_path)):
        one = corpus.model_copy(update={"path": path, "heldout_path": ""})
        with closing(read_corpus(one, CorpusCounts())) as documents:
            next(documents)


def _in_this_process(config: Config, path: Path, progress: Report) -> ScoreSummary:
    return score_corpus(config, path, progress=progress)


def score_run(run: Run, progress: Progress, *, score: Score = _in_this_process) -> ScoreSummary:
    """Scores a run's corpus into its folder, by `score`, and says what was scored and what was
    skipped."""
    config, begun = run.config, False
    if not is_scored(run):
        scorer = config.score.model or config.model.path
        progress.say(f"{config.corpus.path}, scored by {scorer}")
        keep_config(run)
        progress.begin("load the scorer", 0)

    def update(tokens: int, note: str) -> None:
        nonlocal begun
        if not begun:
            tokenizer = load_tokenizer(config.model, config.model.path)
            progress.begin("score", expected_tokens(config, tokenizer), "tokens, at a guess")
            begun = True
        progress.update(tokens, note)

    summary = score(config, run.scored, update)
    progress.end()
    corpus = load_scored(run.scored)
    lines = score_lines(corpus, config, progress=progress)
    for line in (*skipped_lines(corpus.metadata), *lines):
        progress.say(line)
    return summary


def score_corpus(
    config: Config,
    path: Path,
    *,
    policy: Engine | None = None,
    scorer: Engine | None = None,
    progress: Report = lambda tokens, text: None,
) -> ScoreSummary:
    """Scores config.corpus into the folder at `path`, and goes on from where an earlier start
    stopped.

    `policy`, whose tokens the positions are, and `scorer` are loaded where they are not given.
    Documents stay whole: a split ends with the document that reaches score.max_tokens. Raises
    UserError for scores of other settings, a corpus that changed meanwhile or has no usable
    document, a window that does not fit, and files that can't be read or written.
    """
    check_window(config.prompt.window, config.prompt.min_context)
    given = [None if one is None else one.model for one in (policy, scorer)]
    folder = ScoreFolder.of(config, path, policy=given[0], scorer=given[1])
    folder.require_same()
    if policy is None and (finished := folder.finished()):
        return finished
    require_readable(config.corpus)  # before a model is loaded
    policy = policy or open_engine(config)
    if scorer is None:
        other = config.score.model
        scorer = open_engine(config, path=other) if other else policy
    encoder = Encoder(
        config=config,
        tokenizer=policy.model.tokenizer,
        scorer_tokenizer=scorer.model.tokenizer,
    )
    folder.require_same_tokenizer(encoder.fingerprint)
    if finished := folder.finished():
        return finished
    meter = WorkMeter(scorer, config)
    scoring = Scoring(config=config, table=token_table(encoder.tokenizer), meter=meter)
    return _run(encoder, scoring, folder, progress)


def _run(encoder: Encoder, scoring: Scoring, folder: ScoreFolder, progress: Report) -> ScoreSummary:
    """Scores what is left after the shards that are whole."""
    remove_shards(folder.path, folder.shards)
    about, summary, counts = (
        folder.about(encoder.fingerprint),
        folder.last_summary(),
        CorpusCounts(),
    )
    spent: dict[str, float] = {}
    if summary.shards:
        folder.write_unfinished(about)
        spent = scoring_cost(folder.path)
    with writing(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    pending: list[ScoredDocument] = []
    written = time.monotonic()

    def flush() -> None:
        nonlocal written
        end_shard(summary, counts)
        folder.write(about, pending, summary)
        folder.write_cost(spent, scoring.meter.cost())
        pending.clear()
        written = time.monotonic()

    index_path = folder.path / "duplicates.sqlite"
    corpus = scoring.config.corpus
    with closing(read_corpus(corpus, counts, index_path=index_path)) as documents:
        if summary.shards:
            progress(summary.num_tokens, f"goes on after {summary.documents} documents")
            skip_read(documents, summary, counts, folder.path)
        for pack in packs(encoder, documents, summary):
            pending += scoring.score(pack, progress)
            if pack.ends_shard or time.monotonic() - written > _SHARD_SECONDS:
                flush()
        if pending:
            flush()
    summary.corpus_hash = counts.corpus_hash()
    folder.write_finished(about, summary, public_counts(counts))
    return summary
