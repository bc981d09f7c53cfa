"""The folder of a corpus's scores: what binds it, what stands in it, and how shards come into it.

A shard's files say all that it was made from, so one that was finished before is known by them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from openrpt.config.sections import Config
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.positions import ScoredDocument
from openrpt.data.score_summary import SCORED, ScoreSummary, read_scored_json
from openrpt.data.scored_shards import (
    complete_shards,
    document_ids,
    read_metadata,
    remove_shards,
    shard_paths,
    write_shard,
)
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.engine.model import Model
from openrpt.json_files import write_sealed
from openrpt.runs.scores import require_same_settings, require_same_weights, score_settings
from openrpt.runs.spent import SCORING_COST
from openrpt.stages.score.documents import Shard

_ADDED = ("tokens", "flops", "flops_alone", "seconds", "joules", "money")
"""The parts of a cost that add up."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreFolder:
    """A folder of scores, and the settings that its scores are made with."""

    path: Path
    settings: dict[str, Any]
    """All that the scores depend on, by configuration key."""
    models: dict[str, str]
    """The models whose files are read, by configuration key."""

    @classmethod
    def of(
        cls, config: Config, path: Path, *, policy: Model | None = None, scorer: Model | None = None
    ) -> "ScoreFolder":
        """Returns the folder at `path`; models that are given have no files that are read here."""
        settings = score_settings(config, policy, scorer)
        models = {} if policy else {"model.path": config.model.path}
        if scorer is None and (policy is None or config.score.model):
            models["score.model"] = str(settings["score.model"])
        return cls(path=path, settings=settings, models=models)

    @property
    def shards(self) -> int:
        """The number of whole shards, from the first on."""
        return complete_shards(self.path)

    def require_same(self) -> None:
        """Checks that the shards that stand here were made with these settings and models. Raises
        UserError that says what differs."""
        if before := self._before():
            require_same_settings(self.path, before["settings"], self.settings)
            bound = {key: name for key, name in self.models.items() if key in self.settings}
            require_same_weights(self.path, before, bound)

    def require_same_tokenizer(self, fingerprint: str) -> None:
        """Checks that they are in the tokens of this tokenizer. Raises UserError."""
        if before := self._before():
            require_same_settings(self.path, before, {"tokenizer": fingerprint})

    def _before(self) -> dict[str, Any] | None:
        """Returns what the last whole shard says of itself; None where there is none."""
        shards = self.shards
        return read_metadata(shard_paths(self.path, shards - 1)[1]) if shards else None

    def finished(self) -> ScoreSummary | None:
        """Returns what became of the corpus; None where scoring has not ended."""
        state = read_scored_json(self.path)
        if state is None or not state["finished"] or state["summary"]["shards"] != self.shards:
            return None
        return ScoreSummary(**state["summary"])

    def about(self, tokenizer: str) -> dict[str, Any]:
        """Returns what each file says of how the scores are made; `tokenizer`: the fingerprint of
        the policy's."""
        return {
            "scorer": self.settings["score.model"],
            "tokenizer": tokenizer,
            "settings": self.settings,
            "weights": {key: model_fingerprint(name) for key, name in self.models.items()},
        }

    def last_summary(self) -> ScoreSummary:
        """Returns the state of scoring behind the last whole shard; fresh where there is none."""
        shards = self.shards
        if not shards:
            return ScoreSummary()
        positions_path, documents_path = shard_paths(self.path, shards - 1)
        read_metadata(positions_path)  # broken files are found here, not after hours
        return ScoreSummary(**read_metadata(documents_path)["summary"])

    def write(
        self,
        about: dict[str, Any],
        documents: Sequence[ScoredDocument],
        summary: ScoreSummary,
    ) -> None:
        """Writes the shard that ends where `summary` stands; from the first one on its settings
        bind the folder."""
        write_shard(self.path, summary.shards - 1, documents, shard_metadata(about, summary))
        if not (self.path / SCORED).is_file():
            self.write_unfinished(about)

    def write_unfinished(self, about: dict[str, Any]) -> None:
        """Writes that scoring has begun, and with what."""
        write_sealed(self.path / SCORED, {"finished": False} | about)

    def write_finished(
        self, about: dict[str, Any], summary: ScoreSummary, corpus: dict[str, Any]
    ) -> None:
        """Writes what became of the corpus, whose counts these are."""
        remove_shards(self.path, summary.shards)  # an earlier start's, where shards were smaller
        write_sealed(
            self.path / SCORED,
            {"finished": True} | shard_metadata(about, summary) | {"corpus": corpus},
        )

    def stands(self, about: dict[str, Any], shard: Shard) -> bool:
        """Returns whether both files of a shard are here, and say that they are of the same
        documents, scored with the same."""
        paths = shard_paths(self.path, shard.summary.shards - 1)
        if not all(path.is_file() for path in paths):
            return False
        expected = json.loads(json.dumps(shard_metadata(about, shard.summary)))
        names = [one.document.document_id for pack in shard.packs for one in pack.documents]
        return all(read_metadata(path) == expected for path in paths) and names == document_ids(
            paths[1]
        )

    def write_cost(self, before: dict[str, float], more: dict[str, Any]) -> None:
        """Writes what scoring has taken, with what it took `before`."""
        write_sealed(self.path / SCORING_COST, added(before, more))


def public_counts(counts: CorpusCounts) -> dict[str, Any]:
    """Returns the counts of a corpus by their names."""
    names = [one.name for one in fields(counts) if not one.name.startswith("_")]
    return {name: getattr(counts, name) for name in names}


def added(before: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Returns the sum of two costs; what does not add up is the second's."""
    return more | {key: before.get(key, 0) + more[key] for key in _ADDED if key in more}


def shard_metadata(about: dict[str, Any], summary: ScoreSummary) -> dict[str, Any]:
    """Returns what a shard's files say: how the scores are made, and where it ends."""
    return about | {"corpus_hash": summary.corpus_hash, "summary": asdict(summary)}
