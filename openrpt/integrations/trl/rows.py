"""The rows of TRL's dataset."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from openrpt.data.prompts import Layout
from openrpt.data.training_work import take_work
from openrpt.integrations.rows import position_rows
from openrpt.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class DatasetRows:
    """The rows of the dataset. What they need is opened where they are read: `datasets` pickles
    what yields them, for a fingerprint."""

    run: Run
    layout: Layout

    def each(self) -> Iterator[dict[str, Any]]:
        """Yields a row a position, without end."""
        from openrpt.engine.loading import load_tokenizer
        from openrpt.runs.scores import scores_of

        config = self.run.config
        corpus = scores_of(self.run)
        tokenizer = load_tokenizer(config.model, config.model.path)
        count = config.train.positions_per_document
        taken = take_work(corpus, config, cursor=0, count=count, purpose="positions")
        for _, work in taken:
            for row in position_rows(work, self.layout, tokenizer):
                yield {
                    "prompt": {
                        "ids": row.prompt_ids,
                        "document_id": row.position.document_id,
                        "position": row.position.index,
                    },
                    "continuation": row.continuation,
                }
