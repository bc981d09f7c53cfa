"""The losses of one document, as an engine asks for them: of its rollouts, and of its text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.config.reinforcement import TrainConfig
from openrpt.data.work import Work
from openrpt.engine.branches import CompletionIndex
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.model import Model
from openrpt.engine.text_loss import TextTerms, text_loss
from openrpt.rl.answers import Answered, answer_logprobs
from openrpt.rl.losses import LossConfig, LossInputs, StepTotals, policy_loss
from openrpt.rl.nonfinite import Places
from openrpt.rl.tally import Mean, Tally
from openrpt.rl.tensors import RolloutTensors


@dataclass(frozen=True, kw_only=True, eq=False)
class UpdateTerms:
    """What the losses of one update share. All are divided by the whole step's totals."""

    policy: Model
    train: TrainConfig
    config: LossConfig
    totals: StepTotals
    head_length: int
    """Tokens of the prompt's head."""
    ntp_tokens: int
    """Tokens of the whole step that the plain next-token loss reads, at least 1."""
    tally: Tally
    places: Places


@dataclass(frozen=True, kw_only=True, eq=False)
class RolloutLoss:
    """The policy loss of a document's micro-batches; adds to the tally as it is called.

    Legend: R distinct completions of a micro-batch, N rollouts of them, T tokens, d hidden size.
    """

    shared: UpdateTerms
    work: Work
    tensors: RolloutTensors

    def __call__(self, rows: list[CompletionIndex], hidden: Tensor) -> Tensor:
        """Returns a micro-batch's share of the step's loss.

        hidden [R, T, d]: the one at t predicts token t of its completion.
        """
        part = self.tensors.of_rows(rows, hidden.shape[1])
        logprobs, entropies = self._logprobs(part, hidden)  # [N, T]

        def alike(values: Tensor) -> Tensor:
            return values.to(logprobs.dtype)

        def of_rollouts(values: Tensor | None) -> Tensor | None:
            return None if values is None else alike(values[part.row_of])  # [R, T] → [N, T]

        sampler = alike(part.sampler_logprobs)
        old = of_rollouts(part.old_logprobs)
        inputs = LossInputs(
            trainer_logprobs=logprobs,
            old_logprobs=sampler if old is None else old,
            sampler_logprobs=sampler,
            reference_logprobs=of_rollouts(part.reference_logprobs),
            entropies=entropies,
            advantages=alike(part.advantages),
            loss_mask=part.loss_mask,
        )
        outputs = policy_loss(inputs, self.shared.config, self.shared.totals)
        if not math.isfinite(outputs.loss.detach()):
            self._note_places(inputs, part.branch_of)
        with torch.no_grad():
            mask = part.loss_mask
            tokens = float(mask.sum())
            difference = (logprobs - sampler)[mask].abs()
            tally = self.shared.tally
            tally.add("tokens/trained_run", tokens)
            tally.add("loss/policy", float(outputs.loss.detach()))
            tally.add_means(
                outputs.metrics
                | {
                    "policy/entropy": Mean(total=float(entropies[mask].sum()), count=tokens),
                    "policy/sampler_difference": Mean(total=float(difference.sum()), count=tokens),
                }
            )
        return outputs.loss

    def _logprobs(self, part: RolloutTensors, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log-probabilities and entropies, each [N, T]; a logit is computed once a
        completion."""
        read = part.read  # [R, T]
        head, temperature = self.shared.policy.head, self.shared.train.temperature
        found = selected_logprobs(
            hidden[read], head, part.ids[read], temperature=temperature
        )  # each [tokens read]
        logprobs, entropies = (
            torch.zeros_like(read, dtype=values.dtype).masked_scatter(read, values)[part.row_of]
            for values in found
        )  # each [R, T] → [N, T]
        return logprobs, entropies

    def _note_places(self, inputs: LossInputs, branch_of: Tensor) -> None:
        """Notes the positions of rollouts with a number that is not finite; all, where each is
        finite."""
        read = [inputs.trainer_logprobs, inputs.sampler_logprobs, inputs.old_logprobs]
        read += [
            known for known in (inputs.entropies, inputs.reference_logprobs) if known is not None
        ]
        finite = inputs.advantages.isfinite()  # [N]
        for values in read:
            finite = finite & (values.isfinite() | ~inputs.loss_mask).all(1)  # [N]
        bad = branch_of[~finite].tolist() or branch_of.tolist()
        positions = [self.work.positions[b].index for b in bad]
        self.shared.places.note(self.work.document.document_id, positions)


@dataclass(frozen=True, kw_only=True, eq=False)
class AnswerLoss:
    """The answer's exact gradient: − Σ weight · V over a document's rollouts, divided as the policy
    loss is with `constant_length`.

    V = Σ P(right answer | thought) is a sum over completions, so that each micro-batch adds its
    own.
    """

    shared: UpdateTerms
    work: Work
    answered: Sequence[Answered]
    weights: Sequence[float]
    """The weight of each answered thought: its rollouts' together."""

    def __call__(self, rows: list[CompletionIndex], hidden: Tensor) -> Tensor:
        """Returns a micro-batch's share of the step's loss; rows (answered thought, right answer)
        and hidden [R, T, d]."""
        shared = self.shared
        logprobs = answer_logprobs(
            shared.policy, self.answered, rows, hidden, temperature=shared.train.temperature
        )  # [R]
        weights = logprobs.new_tensor([self.weights[a] for a, _ in rows])  # [R]
        divisor = max(shared.totals.rollouts * shared.totals.length, 1)
        loss = -(weights * logprobs.exp()).sum() / divisor
        if not math.isfinite(loss.detach()):
            groups = [self.answered[a].group for a, _ in rows]
            positions = [self.work.positions[g].index for g in dict.fromkeys(groups)]
            shared.places.note(self.work.document.document_id, positions)
        shared.tally.add("loss/answer", float(loss.detach()))
        return loss


@dataclass(frozen=True, kw_only=True, eq=False)
class DocumentLoss:
    """The losses of a document's completions: first come the rollouts' branches, then the right
    answers'."""

    rollouts: RolloutLoss | None
    answers: AnswerLoss | None
    first_answer: int
    """The number of the first branch of right answers."""

    def __call__(self, rows: list[CompletionIndex], hidden: Tensor) -> Tensor:
        """Returns a micro-batch's share of the step's loss: hidden [R, T, d]."""
        count = sum(b < self.first_answer for b, _ in rows)  # rows come in order
        losses = []
        if count:
            assert self.rollouts is not None
            width = self.rollouts.tensors.ids.shape[1]
            losses.append(self.rollouts(rows[:count], hidden[:count, :width]))
        if count < len(rows):
            assert self.answers is not None
            answers = [(b - self.first_answer, c) for b, c in rows[count:]]
            losses.append(self.answers(answers, hidden[count:]))
        return losses[0] if len(losses) == 1 else losses[0] + losses[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowLoss:
    """The plain next-token loss over a window's real tokens, in the same pass."""

    shared: UpdateTerms
    work: Work
    prefix_ids: tuple[int, ...]

    def __call__(self, hidden: Tensor) -> Tensor:
        """Returns weight · Σ −log p / the step's tokens; hidden [L, d], the prefix's states."""
        shared = self.shared
        first = max(shared.head_length, 1)
        targets = torch.tensor(self.prefix_ids[first:], device=hidden.device)  # [L − first]
        scale = shared.train.ntp_weight / shared.ntp_tokens
        terms = TextTerms(targets=targets, ntp_scale=scale)
        loss, ntp, _ = text_loss(
            hidden[first - 1 : -1], shared.policy.head, terms
        )  # [L − first, d]
        if not math.isfinite(ntp):
            window, document_id = self.work.window, self.work.document.document_id
            own = hidden[shared.head_length :]  # [L − head, d]
            if not shared.places.note_text(document_id, own, start=window.start):
                shared.places.note(document_id, [window.start])
        shared.tally.add("loss/ntp", ntp / shared.ntp_tokens)
        return loss
