"""The results of an evaluation: a row a position, a column a measure, so that any two columns can
be compared in pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from openrpt.data.kinds import ordered_kinds
from openrpt.data.positions import DIFFICULTIES, slices
from openrpt.data.token_classes import COMPUTED, TOKEN_CLASSES
from openrpt.evaluation.columns import NOT_STORED, Columns
from openrpt.evaluation.statistics import (
    Difference,
    Estimate,
    calibration,
    mean_by_document,
    paired_difference,
    ratio_by_document,
)

THOUGHT_CONTROLS = ("emptied", "cut", "swapped")
_CONTROLS = (*THOUGHT_CONTROLS, "ntp_voting")
ACCURACIES = ("ntp", "reasoning", "majority", "any_right", *_CONTROLS)
"""Measures that are shares of right predictions."""
_OF_STANDARD = ("first_token_ntp", "span_ntp")
_OF_REASONING = (
    "reasoning",
    "first_token",
    "span",
    "single_token",
    "any_right",
    "majority",
    "predicted_tokens",
    "closed",
    "agrees",
    "agrees_start",
    "confidence",
)
SIDES = {"reasoning": "ntp", "first_token": "first_token_ntp", "span": "span_ntp"}
"""The ways of grading: a measure of reasoning → the same of standard prediction."""
CARRIED = "carried"
"""Share of the predictions after a swapped thought that are those of its own position."""
_OF_CONTROLS = (*_CONTROLS, CARRIED, "voting_draws")
_LIKELIHOODS = ("nll_ntp", "nll", "information_gain", *(f"nll_{name}" for name in THOUGHT_CONTROLS))
KIND = "kind: "
"""The beginning of a slice's name that is a kind of document."""
BITS_A_BYTE = "information_gain_bits_a_byte"
MEASURES = ("ntp", *_OF_STANDARD, *_OF_REASONING, *_OF_CONTROLS, *_LIKELIHOODS, BITS_A_BYTE)
"""Every key of a summary, in order; docs/evaluation.md says what each is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionResult:
    """The results of a model at one position. With samples, fractions over the samples."""

    document_id: str
    position: int
    """An index into the model's own tokens."""
    byte_offset: int
    """The position's byte in the text: the same for every tokenizer."""
    entropy: float
    document_kind: str
    """The kind of its document, by `corpus.kind`; empty without one."""
    token_class: str
    """The class of the true token, one of TOKEN_CLASSES."""
    token_bytes: int
    """Length of the true token."""
    computed: bool
    """Whether a computed number begins in the true token."""
    ntp: float
    """1 if standard prediction was right."""
    first_token_ntp: float
    """1 if standard prediction is the true token, or right."""
    span_ntp: float
    """1 if standard prediction, decoded greedily to its span's end, is the text's whole span; NaN
    where only white space is left of the text."""
    reasoning: float
    """The prefix match of the prediction: 1 if right up to a token boundary (mean over samples)."""
    first_token: float
    """1 if the prediction's first tokens are the true one, or all of it is right."""
    span: float
    """1 if the prediction, cut at its span's end, is the text's whole span; NaN as `span_ntp`."""
    single_token: float
    """1 if the prediction is right and exactly one token long."""
    any_right: float
    """1 if any of the samples is right (pass@k)."""
    majority: float
    """1 if the commonest prediction is right."""
    confidence: float
    """Share of the samples that made the commonest prediction; NaN where that is none, or where
    there is one sample: the pass rate that the model itself predicts."""
    predicted_tokens: float
    """Tokens of the continuation that a right prediction covers; NaN where none was right."""
    closed: float
    """Share of completions with a prediction."""
    agrees: float
    """Share of predictions that equal standard prediction's."""
    agrees_start: float
    """Share of predictions that equal the start model's standard prediction; NaN where the scores
    don't hold it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationResult(Columns):
    """A model on a set of positions, column by column: PositionResult's fields, and those of the
    controls and likelihoods that were asked for."""

    has_reasoning: bool
    """Whether the model has thought before it predicted."""
    thinks: bool = True
    """Whether the prompt leaves room for a thought: candidates or a think budget."""
    samples: int = 0
    """Samples a position; 0 = greedy."""
    tokenizer: str = ""
    """Fingerprint of the model's tokenizer."""
    scorer: str = ""
    """The model whose entropy the difficulty is."""
    rollouts: pa.Table | None = field(default=None, metadata=NOT_STORED)
    """The thoughts and predictions, as `rollouts.SCHEMA`; a file of its own."""

    @property
    def num_positions(self) -> int:
        """The number of positions evaluated."""
        return len(self.columns["position"])

    @property
    def measures(self) -> list[str]:
        """Those of MEASURES that were taken, in their order; BITS_A_BYTE is no column."""
        taken = [name for name in MEASURES if name in self.columns]
        return [name for name in taken if self.has_reasoning or name not in _OF_REASONING]

    def slices(self) -> dict[str, np.ndarray]:
        """Returns the masks [n]: by difficulty, by band, by those token classes that occur, of
        computed numbers (which are among the numbers, too), and by those kinds of document (`kind:
        NAME`: numbers ascending, else the commonest first)."""
        parts: dict[str, np.ndarray] = slices(self.columns["entropy"])
        if "token_class" in self.columns:
            classes = self.columns["token_class"].astype(str)
            masks = {name: classes == name for name in TOKEN_CLASSES}
            parts |= {name: mask for name, mask in masks.items() if mask.any()}
        if "computed" in self.columns and self.columns["computed"].any():
            parts[COMPUTED] = self.columns["computed"].astype(bool)
        if "document_kind" in self.columns:
            kinds = self.columns["document_kind"].astype(str)
            names = ordered_kinds(kinds.tolist())
            parts |= {f"{KIND}{name}": kinds == name for name in names}
        return parts

    def estimate(self, column: str, inside: np.ndarray | None = None) -> Estimate:
        """Returns the mean of a column over the positions of a mask [n] (default all), error by
        document."""
        values = self.columns[column].astype(float)
        known = ~np.isnan(values) if inside is None else inside & ~np.isnan(values)
        return mean_by_document(values[known], self.columns["document_id"][known])

    def accuracy(self, mode: str) -> float:
        """Returns the mean of a measure over all positions."""
        return self.estimate(mode).value

    def bits_a_byte(self, inside: np.ndarray) -> Estimate:
        """Returns the information gain in bits over the bytes of the true tokens, both summed."""
        bits = self.columns["information_gain"][inside] / np.log(2)
        sizes = self.columns["token_bytes"][inside].astype(float)
        return ratio_by_document(bits, sizes, self.columns["document_id"][inside])

    def summary(self) -> dict[str, dict[str, Any]]:
        """Returns the numbers for `evaluation.json`: measure → slice → estimate."""
        parts = self.slices()
        found = {
            name: {part: self.estimate(name, inside).as_dict() for part, inside in parts.items()}
            for name in self.measures
        }
        if "information_gain" in found:
            found[BITS_A_BYTE] = {
                part: self.bits_a_byte(inside).as_dict() for part, inside in parts.items()
            }
        return found

    def thought_value(self) -> dict[str, dict[str, Any]]:
        """Returns what the thought adds, for `evaluation.json`: a measure of SIDES → slice →
        reasoning − the same weights' standard prediction, paired; empty where nothing was
        thought."""
        parts = self.slices()
        return {
            name: {
                part: difference.as_dict()
                for part, difference in paired_differences(
                    self, name, self, standard, parts
                ).items()
            }
            for name, standard in SIDES.items()
            if name in self.measures and standard in self.measures
        }

    def calibration(self) -> dict[str, Any] | None:
        """Returns how well the samples' agreement predicts their majority's accuracy; None without
        several samples."""
        if self.samples < 2 or not self.has_reasoning:
            return None
        return calibration(self.columns["confidence"], self.columns["majority"])

    def at(self, rows: np.ndarray) -> "EvaluationResult":
        """Returns the results at some positions only: indices [m]."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return replace(self, columns=columns, rollouts=None)

    def development(self) -> dict[str, float]:
        """Returns metrics of a development evaluation: accuracy, overall and by difficulty where
        it has positions, and what it cost."""
        summary = self.summary()
        found = {
            "development/reasoning_accuracy": summary["reasoning"]["all"]["value"],
            "development/ntp_accuracy": summary["ntp"]["all"]["value"],
            "development/positions": float(self.num_positions),
            "development/flops": self.cost["flops"],
            "development/seconds": self.cost["seconds"],
        }
        for name in DIFFICULTIES:
            if summary["reasoning"][name]["n"]:
                found |= {
                    f"development/{mode}_accuracy/{name}": summary[mode][name]["value"]
                    for mode in ("reasoning", "ntp")
                }
                found[f"development/positions/{name}"] = float(summary["ntp"][name]["n"])
        return found


def paired_differences(
    a: EvaluationResult,
    a_column: str,
    b: EvaluationResult,
    b_column: str,
    parts: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Difference]:
    """Returns a − b by slice, for results whose rows are the same positions. `parts`: a's slices,
    where they are at hand."""
    documents = a.columns["document_id"]
    left, right = a.columns[a_column], b.columns[b_column]
    return {
        name: paired_difference(left[inside], right[inside], documents[inside])
        for name, inside in (a.slices() if parts is None else parts).items()
    }
