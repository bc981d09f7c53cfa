"""Next-token accuracy on held-out positions (the paper's Section 4.1, Table 1).

Both modes stand on the same positions and the same prefix and are graded by the same
`prefix_match`: `ntp`, the argmax of one forward pass (special tokens masked), and `reasoning`,
think and then predict. Errors are by document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from openrpt.config.sections import Config
from openrpt.data.evaluation_work import asked_evaluation_work
from openrpt.data.prompt_texts import prompt_settings
from openrpt.data.scored import ScoredCorpus
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.data.work import Work, works_key
from openrpt.engine.engine import Engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.errors import UserError
from openrpt.evaluation.instrument import Bench, measure
from openrpt.evaluation.next_token.passes import Passes, in_tokens_of
from openrpt.evaluation.next_token.results import MEASURES, THOUGHT_CONTROLS, EvaluationResult
from openrpt.evaluation.next_token.subject import Subject
from openrpt.types import Split


@dataclass(frozen=True, kw_only=True, eq=False)
class NextToken:
    """The instrument: standard and reasoned prediction at a split's evaluation positions.

    The positions depend on the seed, the corpus and `config.evaluate` only, never on the model: a
    model with another tokenizer than the corpus's is asked at those on a boundary of its own
    tokens, in its own tokens.
    """

    corpus: ScoredCorpus
    config: Config
    split: Split
    positions: int
    """The most that are evaluated."""
    modes: Sequence[str]
    controls: Sequence[str] = ()
    likelihood: bool = False
    kind = EvaluationResult
    done = "evaluated before"

    @classmethod
    def of(cls, corpus: ScoredCorpus, config: Config) -> "NextToken":
        """Returns all that [evaluate] asks for."""
        asked = config.evaluate
        return cls(
            corpus=corpus,
            config=config,
            split=asked.split,
            positions=asked.positions,
            modes=asked.modes,
            controls=asked.controls,
            likelihood=asked.likelihood,
        )

    @cached_property
    def works(self) -> list[Work]:
        """The positions, in the tokens of the scores."""
        return asked_evaluation_work(
            self.corpus, self.config, split=self.split, positions=self.positions
        )

    @property
    def settings(self) -> dict[str, Any]:
        """All that a result depends on beside the model's files."""
        config, known = self.config, self.corpus.metadata
        start = ""
        if config.prompt.is_seeded_by_start:
            start = model_fingerprint(config.model.path)
        return {
            "seed": config.seed,
            "prompt": prompt_settings(config.prompt),
            "dtype": config.model.precision,
            "start": start,
            "samples": config.evaluate.samples,
            "temperature": config.evaluate.temperature,
            "modes": sorted(self.modes),
            "measures": list(MEASURES),
            "controls": sorted(self.controls),
            "likelihood": self.likelihood,
            "scores": [known["scorer"], known["tokenizer"]],
            "works": works_key(self.works),
        }

    def title(self, label: str) -> str:
        """Returns the name of the progress of a model's measurement."""
        return f"evaluate {label}"

    def run(self, bench: Bench) -> EvaluationResult:
        """Predicts at every position; what is kept of a stopped evaluation is a work of a pass.
        Raises UserError for controls without a thought to change, and where the prompt does not
        fit."""
        prompt, policy, works = self.config.prompt, bench.model, self.works
        reasoning = "reasoning" in self.modes
        thinks = prompt.candidates > 0 or prompt.think_budget > 0
        _check_controls(self.controls, reasoning, thinks)
        tokenizer, longest = tokenizer_fingerprint(policy.tokenizer), prompt.window
        if tokenizer != self.corpus.metadata["tokenizer"]:
            works = in_tokens_of(policy, works, bench.progress)
            longest = max(work.positions[-1].index - work.window.start for work in works)
        layout = policy.layout(prompt, window=longest)
        evaluation = Passes(
            subject=Subject(engine=bench.engine, config=self.config, layout=layout),
            works=works,
            progress=bench.progress,
            title=bench.title,
            start_ids=_is_start(self.corpus, self.config),
            kept=bench.kept,
        )
        columns = evaluation.run(reasoning, self.controls, self.likelihood)
        return EvaluationResult(
            columns=columns,
            has_reasoning=reasoning,
            thinks=thinks,
            samples=self.config.evaluate.samples,
            tokenizer=tokenizer,
            scorer=self.corpus.metadata["scorer"],
            rollouts=pa.concat_tables(evaluation.rollouts) if evaluation.rollouts else None,
        )


def evaluate_policy(
    engine: Engine,
    corpus: ScoredCorpus,
    config: Config,
    *,
    split: Split | None = None,
    positions: int | None = None,
    modes: Sequence[str] = ("ntp", "reasoning"),
) -> EvaluationResult:
    """Measures standard and reasoned prediction without controls, and stores nothing; `split`,
    `positions`: in place of the configuration's. Raises UserError as `NextToken.run`."""
    instrument = NextToken(
        corpus=corpus,
        config=config,
        split=split or config.evaluate.split,
        positions=positions or config.evaluate.positions,
        modes=modes,
    )
    return measure(instrument, engine, title="evaluate")


def _check_controls(controls: Sequence[str], reasoning: bool, thinks: bool) -> None:
    if controls and not reasoning:
        raise UserError(
            f"evaluate.controls = {controls[0]} changes a thought, and evaluate.modes has no"
            " 'reasoning'; add it"
        )
    of_thought = [control for control in controls if control in THOUGHT_CONTROLS]
    if of_thought and not thinks:
        raise UserError(
            f"evaluate.controls = {of_thought[0]}: with prompt.candidates = 0 and"
            " prompt.think_budget = 0 there is no thought to change"
        )


def _is_start(corpus: ScoredCorpus, config: Config) -> bool:
    """Returns whether the scores were made by the start model: its standard predictions stand
    among them."""
    return corpus.metadata["scorer"] == config.model.path
