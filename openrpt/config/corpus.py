"""`[corpus]` and `[score]`: the documents, and the scorer's pass over them."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from openrpt.config.section import (
    MOST,
    MOST_TOKENS,
    NOTHING,
    Binds,
    OptionalPath,
    PathText,
    Section,
    binds,
)
from openrpt.types import Split


class CorpusConfig(Section):
    """Where the documents come from, and on which side of the split each stands."""

    BINDS: ClassVar[Binds] = binds("score")

    path: PathText = Field(
        "champ",
        description="'champ' (the default corpus), a .txt/.jsonl/.parquet file (the first two also"
        " as .gz), a folder of them, 'datasets:NAME[:CONFIG[:SPLIT]]',"
        " 'reasoning-gym:gsm_symbolic' (worked problems made at run time), 'bills' (sums in"
        " sentences, made at run time), or 'lab:WORLD[?KEY=VALUE&…]' (docs/lab.md)",
    )
    template: str = Field(
        "{text}", description='Which fields make the text, e.g. "{problem}\\n\\n{solution}"'
    )
    key: str = Field(
        "", description="Field whose hash decides the split; '' = the template's first field"
    )
    split: str = Field(
        "",
        description="Field that says the side itself: train, development or heldout (dev,"
        " validation, test, too); '' = by hash",
    )
    heldout_path: OptionalPath = Field(
        "",
        description="A corpus, as path, whose documents are the held-out ones: then none of path's"
        " are; '' = a share of path's",
    )
    offsets: str = Field(
        "",
        description="Field with a list of byte offsets into the document's text, for"
        " selection.where = 'offsets'; '' = none",
    )
    kind: str = Field(
        "",
        description="Field that says what kind of document it is (a domain, a level), by which"
        " accuracy is broken down; of a list, the first; '' = none",
    )
    kind_levels: int = Field(
        0,
        ge=0,
        le=1000,
        description="Of a kind such as 'A -> B -> C' or 'A/B/C', keep so many; 0 = all",
    )
    separator: str = Field(
        "",
        description="What separates the documents of a .txt file (a line break in it stands for LF"
        " and CRLF); '' = contiguous blocks",
    )
    block_characters: int = Field(
        4000, ge=100, le=10_000_000, description="Length of a block of a .txt file, in characters"
    )
    heldout_fraction: float = Field(0.2, ge=0, lt=1, description="Share of documents held out")
    development_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of documents for evaluation during training"
    )
    min_tokens: int = Field(
        32, ge=2, le=MOST_TOKENS, description="Shorter documents are skipped, in tokens"
    )
    limit: int = Field(0, ge=0, le=MOST, description="Read at most this many documents; 0 = all")
    strict: bool = Field(
        False, description="Refuse a corpus that has an unusable document, instead of skipping it"
    )

    @model_validator(mode="after")
    def _leaves_training_data(self) -> "CorpusConfig":
        if self.heldout_fraction + self.development_fraction >= 1:
            raise ValueError("heldout_fraction + development_fraction must be below 1")
        if self.split and self.heldout_path:
            raise ValueError("split and heldout_path both say what is held out: give one")
        return self


class ScoreConfig(Section):
    """The scorer's pass over the corpus."""

    BINDS: ClassVar[Binds] = binds("score")

    model: OptionalPath = Field(
        "", description="Scorer, as model.path; '' = the policy's start model"
    )
    splits: list[Split] = Field(
        ["train", "development", "heldout"], description="Which splits are scored"
    )
    tokens_only: list[Split] = Field(
        [],
        description="Splits of which the tokens are written and no scores: where positions are"
        " chosen by selection.where alone (strategy random), or only plain text is trained on",
    )
    max_tokens: int = Field(
        0,
        ge=0,
        le=1_000 * MOST,
        description="Stop after this many tokens in each split; 0 = the whole corpus",
    )
    shard_tokens: Annotated[int, NOTHING] = Field(
        100_000,
        ge=1000,
        le=100_000_000,
        description="Tokens of a parquet shard; one is also written after a minute, so that a"
        " restart loses no more",
    )

    @property
    def has_scores(self) -> bool:
        """Whether any split is scored, not only its tokens written."""
        return not {*self.splits} <= {*self.tokens_only}

    @model_validator(mode="after")
    def _has_no_idle_scorer(self) -> "ScoreConfig":
        if self.model and not self.has_scores:
            raise ValueError("tokens_only has all splits, so no scorer runs: leave model out")
        return self
