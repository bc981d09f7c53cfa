"""Linear probes: what can be read off a model's hidden states, by layer.

A probe is a multinomial logistic regression (scikit-learn) on standardised states, fitted on some
documents and tested on others; its regularisation is chosen on a third part, never on the test.
Beside each probe stand what needs no state (the commonest class; a probe that sees only how much
of the document is read) and the control task of Hewitt and Liang (arXiv 1909.03368): every type of
token gets a random label, which a probe can only learn by heart. Selectivity is the real accuracy
less the control's.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from openrpt.costs.meters import WorkMeter
from openrpt.data.scored import ScoredCorpus
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.data.work import Work, retokenized
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.evaluation.columns import Columns
from openrpt.evaluation.probes.labels import ProbeSample
from openrpt.evaluation.statistics import Difference, Estimate, mean_by_document, paired_difference
from openrpt.progress import SILENT, Progress
from openrpt.seeding import generator

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's C: the weight of the data against that of the squared norm."""
_ITERATIONS = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult(Columns):
    """A model's probes on the test positions [m].

    Columns: `document_id`, `byte_offset`; and, 1 = right, NaN where the target has no label there:
    `TARGET/LAYER`, `TARGET/LAYER/control`; `TARGET/majority`, the class that is commonest among
    those fitted on; `TARGET/offset`, a probe that is given only how many bytes of the document are
    read.
    """

    layers: list[int]
    """The layers that were probed: 0 = the embeddings, the greatest = what the head reads."""
    targets: list[str]
    strengths: dict[str, float]
    """The regularisation that was chosen, by `TARGET/LAYER`."""
    sample: dict[str, Any]
    """The description of the sample, `ProbeSample.about`."""

    def values(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns a column's values [k] and documents [k] at the positions that have a label."""
        found = self.columns[column].astype(float)
        known = ~np.isnan(found)
        return found[known], self.columns["document_id"][known]

    def estimate(self, column: str) -> Estimate:
        """Returns a column's mean over the positions that have a label, its error by document."""
        return mean_by_document(*self.values(column))

    def selectivity(self, target: str, layer: int) -> Estimate:
        """Returns accuracy less the control's, on the same positions."""
        real, documents = self.values(f"{target}/{layer}")
        control, _ = self.values(f"{target}/{layer}/control")
        return mean_by_document(real - control, documents)


def chosen_layers(last: int, count: int) -> list[int]:
    """Returns `count` of the layers 0 … last, evenly; 0 = all.

    >>> chosen_layers(30, 4), chosen_layers(2, 9)
    ([0, 10, 20, 30], [0, 1, 2])
    """
    if count == 0 or count > last:
        return list(range(last + 1))
    return np.unique(np.linspace(0, last, max(count, 2)).round().astype(int)).tolist()


@torch.no_grad()
def read_states(
    corpus: ScoredCorpus,
    sample: ProbeSample,
    layers: Sequence[int],
    meter: WorkMeter,
    progress: Progress,
) -> np.ndarray:
    """Returns [layers, n, d] float32: the state that has read all before each position of the
    sample."""
    policy = meter.engine.model
    head = policy.bos_ids
    parts: list[np.ndarray] = []
    done = 0
    for work in _in_own_tokens(policy, corpus, sample):
        places = [len(head) + p.index - work.window.start - 1 for p in work.positions]
        inside = work.document.token_ids[work.window.start : work.positions[-1].index].tolist()
        if len(head) + len(inside) > policy.max_length:
            raise UserError(
                f"prompt.window does not fit: model '{policy.name}' holds {policy.max_length}"
                f" tokens, document {work.document.document_id} has {len(head) + len(inside)}"
            )
        states = meter.engine.states([[*head, *inside]], layers)
        parts.append(torch.stack([layer[places] for layer in states]).float().cpu().numpy())
        meter.ledger.shared.run(len(head) + len(inside), 0)
        meter.ledger.alone.run(len(head) + len(inside), 0)
        done += len(places)
        progress.update(done)
    return np.concatenate(parts, axis=1)


def _in_own_tokens(policy: Model, corpus: ScoredCorpus, sample: ProbeSample) -> Iterator[Work]:
    foreign = tokenizer_fingerprint(policy.tokenizer) != corpus.metadata["tokenizer"]
    for work in sample.works:
        if foreign:
            yield retokenized(work, policy.tokenizer)
        else:
            yield work


# ---- probes -------------------------------------------------------------------------------------


def fit_all(
    states: np.ndarray,
    layers: Sequence[int],
    sample: ProbeSample,
    seed: int,
    progress: Progress = SILENT,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Fits all probes: states [layers, n, d] → the columns of a ProbeResult, and the
    regularisations chosen."""
    test = sample.roles == "test"
    columns = {
        "document_id": sample.documents[test],
        "byte_offset": sample.byte_offsets[test],
    }
    strengths: dict[str, float] = {}
    read = np.log1p(sample.byte_offsets.astype(float))[:, None]
    offsets = np.concatenate([read, read**2, sample.byte_offsets[:, None] / 1000.0], axis=1)
    for target, labels in sample.labels.items():
        majority = _commonest(labels[(sample.roles != "test") & (labels != "")])
        columns[f"{target}/majority"] = _where_known(labels[test], labels[test] == majority)
        by_offset, _ = fit_probe(offsets, labels, sample.roles)
        columns[f"{target}/offset"] = _where_known(labels[test], by_offset == labels[test])
    for number, layer in enumerate(layers):
        for target, labels in sample.labels.items():
            said, strength = fit_probe(states[number], labels, sample.roles)
            random = control_labels(sample.types, labels, sample.roles, seed, target)
            control, _ = fit_probe(states[number], random, sample.roles, (strength,))
            name = f"{target}/{layer}"
            strengths[name] = strength
            columns[name] = _where_known(labels[test], said == labels[test])
            columns[f"{name}/control"] = _where_known(random[test], control == random[test])
            progress.update(len(strengths), f"layer {layer}, {target}")
    return columns, strengths


def fit_probe(
    features: np.ndarray,
    labels: np.ndarray,
    roles: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[np.ndarray, float]:
    """Fits one probe: features [n, d], labels [n] ('' = none), roles [n] → what the probe says at
    the test positions, and its regularisation.

    Of several strengths the one of the least cross-entropy on the validation documents is taken;
    then the probe is fitted anew on those and the fitted ones together.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    known = labels != ""
    fit, validation = known & (roles == "fit"), known & (roles == "validation")
    chosen = strengths[0]
    if len(strengths) > 1 and validation.any():
        scaler = StandardScaler().fit(features[fit])
        inner, outer = scaler.transform(features[fit]), scaler.transform(features[validation])
        # The path from strong to weak: each fit starts from the last.
        probe = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
        losses = []
        for strength in strengths:
            _fit(probe.set_params(C=strength), inner, labels[fit])
            losses.append(_cross_entropy(probe, outer, labels[validation]))
        chosen = strengths[int(np.argmin(losses))]
    training = known & (roles != "test")
    if len(names := np.unique(labels[training])) == 1:  # a control of hardly any types
        return np.full((roles == "test").sum(), names[0]), chosen
    scaler = StandardScaler().fit(features[training])
    probe = LogisticRegression(C=chosen, max_iter=_ITERATIONS)
    _fit(probe, scaler.transform(features[training]), labels[training])
    return probe.predict(scaler.transform(features[roles == "test"])), chosen


def _fit(probe: Any, features: np.ndarray, labels: np.ndarray) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # A probe short of its optimum by a little is a probe, too; the test judges it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(features, labels)


def _cross_entropy(probe: Any, features: np.ndarray, labels: np.ndarray) -> float:
    """Returns the cross-entropy in nats a position; a class that was not fitted counts as 20."""
    place = {name: column for column, name in enumerate(probe.classes_.tolist())}
    logp = probe.predict_log_proba(features)
    known = [row for row, name in enumerate(labels.tolist()) if name in place]
    found = logp[known, [place[labels[row]] for row in known]]
    return float(-found.clip(-20).sum() + 20 * (len(labels) - len(known))) / len(labels)


def control_labels(
    types: np.ndarray, labels: np.ndarray, roles: np.ndarray, seed: int, target: str
) -> np.ndarray:
    """Returns [n] the labels of the control task: a random label a type of token, drawn as often
    as labels are among the fitted positions; none where the real task has none."""
    names, counts = np.unique(labels[(roles != "test") & (labels != "")], return_counts=True)
    shares = counts / counts.sum()
    drawn = {
        kind: generator(seed, "probe control", target, kind).choice(names, p=shares)
        for kind in np.unique(types).tolist()
    }
    random = np.array([drawn[kind] for kind in types.tolist()])
    return np.where(labels == "", "", random)


def _commonest(labels: np.ndarray) -> str:
    """Returns the commonest label, the first by name of equals."""
    names, counts = np.unique(labels, return_counts=True)
    return str(names[counts.argmax()])


def _where_known(labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.where(labels == "", np.nan, right.astype(float))


def probe_difference(a: ProbeResult, b: ProbeResult, column: str) -> Difference:
    """Returns a − b on the same test positions."""
    documents = a.columns["document_id"]
    return paired_difference(a.columns[column], b.columns[column], documents)
