"""What every metric means: one dict, from which the report's charts and docs/metrics.md come.

`metrics_markdown()` is the text of the docs; a test compares the two.
"""

from dataclasses import dataclass

from openrpt.runs.signatures import SIGNATURES


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    unit: str
    meaning: str
    """What is counted or averaged, over what."""
    healthy: str
    reading: str
    """One line: how to read it."""


def _pass_rate(name: str, threshold: str) -> Meaning:
    return Meaning(
        unit="fraction",
        meaning=f"Share of rollouts exactly right at {name} positions (scorer's entropy above"
        f" {threshold} nats; nested, so easy holds medium and hard)",
        healthy="easy above medium above hard, all rising slowly",
        reading="Read the three together: if only easy rises, the policy gets surer of what it"
        " knew already.",
    )


def _term(meaning: str) -> Meaning:
    return Meaning(
        unit="(no unit)",
        meaning=f"Mean of this term of the reward, before its weight: {meaning}",
        healthy="rises, and reward/exact with it",
        reading="Where a term rises and reward/exact does not, it is being gamed: docs/rewards.md"
        " says how that looks.",
    )


def _time(what: str, healthy: str) -> Meaning:
    return Meaning(
        unit="seconds",
        meaning=f"Wall-clock time of the step spent on {what}",
        healthy=healthy,
        reading="The tallest part is where time can be saved; a step that stands out shared the"
        " machine with something else.",
    )


def _by_difficulty(key: str, what: str) -> dict[str, Meaning]:
    thresholds = {"easy": "0.5", "medium": "1.0", "hard": "1.5"}
    return {
        f"development/{key}/{name}": Meaning(
            unit="fraction",
            meaning=f"The same at {name} positions ({what}; scorer's entropy above {nats} nats)",
            healthy="rises" if key == "reasoning_accuracy" else "does not fall",
            reading="Thinking helps where reasoning is above standard prediction; `openrpt scaling`"
            " fits this over compute. Hard positions are few, so noisy.",
        )
        for name, nats in thresholds.items()
    }


def _efficiency(phase: str, healthy: str) -> Meaning:
    return Meaning(
        unit="fraction",
        meaning=f"Share of the machine's limit that {phase} reached: FLOPs ÷ (seconds ×"
        " efficiency/limit)",
        healthy=healthy,
        reading="Only needed FLOPs count. Above 1, the machine was busy with something else when"
        " its limit was measured.",
    )


def _lost(phase: str) -> Meaning:
    return Meaning(
        unit="fraction",
        meaning=f"Share of the step's time in which {phase} was below the machine's limit",
        healthy="the largest says where a step can be made faster",
        reading="With efficiency/step these add up to 1.",
    )


METRICS: dict[str, Meaning] = {
    "reward/mean": Meaning(
        unit="(no unit)",
        meaning="Mean reward of all generated rollouts, as it is trained on: the weighted sum of"
        " reward.terms (by default the share exactly right)",
        healthy="rises slowly; noise of a few points a step",
        reading="Sampled on training positions that change each step: a rise can also mean that"
        " the policy only became more deterministic, so compare with development accuracy.",
    ),
    "reward/exact": Meaning(
        unit="fraction",
        meaning="Share of all generated rollouts whose prediction was exactly right (prefix match),"
        " whatever is trained on",
        healthy="rises with reward/mean",
        reading="Equal to reward/mean where prefix match alone is trained on; where it lags behind"
        " another reward, that reward is being gamed.",
    ),
    "reward/prefix": _term("prefix match, 0 or 1"),
    "reward/first_token": _term("the first token is right, 0 or 1"),
    "reward/dense": _term("1 if right, else the probability of what was said"),
    "reward/conditional_dense": _term("as dense, 0 in groups without a hit"),
    "reward/length_weighted": _term("prefix match with a bonus for further tokens"),
    "reward/information_gain": _term(
        "nats by which the thought makes the true tokens likelier than the baseline without it"
    ),
    "reward/segment": _term("the judge's word on the next segment"),
    "reward/random": _term("the random-reward control's coin; steady by construction"),
    "reward/errors": Meaning(
        unit="values",
        meaning="Terms of rollouts that raised or were no finite number, and counted as 0"
        " (reward.on_error = 'zero')",
        healthy="0",
        reading="Anything else is a fault in a reward of one's own: it teaches noise.",
    ),
    "pass_rate/easy": _pass_rate("easy", "0.5"),
    "pass_rate/medium": _pass_rate("medium", "1.0"),
    "pass_rate/hard": _pass_rate("hard", "1.5"),
    "group/flat_fraction": Meaning(
        unit="fraction",
        meaning="Share of generated groups whose rewards are all equal",
        healthy="0.2 to 0.7; above 0.9 the policy has collapsed or the positions are too easy"
        " or too hard",
        reading="A flat group gives the reward no gradient: the nearer to 1, the less is learned"
        " a step.",
    ),
    "group/generated": Meaning(
        unit="groups",
        meaning="Groups generated in the step, those that dynamic sampling drops included",
        healthy="documents_per_step × positions_per_document, or more with dynamic sampling",
        reading="More than that is what dynamic sampling pays for groups that are not flat.",
    ),
    "group/kept": Meaning(
        unit="groups",
        meaning="Groups that the update was made from",
        healthy="equal to group/generated without dynamic sampling",
        reading="Fewer than wanted: dynamic sampling used up its rounds.",
    ),
    "completion/closed_fraction": Meaning(
        unit="fraction",
        meaning="Share of rollouts with a prediction: thought ended, box opened and closed",
        healthy="above 0.95 after warmup",
        reading="Where it falls, rewards are lost to form: a longer warmup or a larger prediction"
        " budget helps.",
    ),
    "completion/stopped_fraction": Meaning(
        unit="fraction",
        meaning="Share of rollouts that ended by themselves, not by their token budget",
        healthy="above 0.9 after warmup",
        reading="A fall means rambling after the box: harmless for the reward, wasted tokens.",
    ),
    "completion/tokens_mean": Meaning(
        unit="tokens",
        meaning="Mean length of a completion, forced tokens included",
        healthy="steady; at most seed, think budget and prediction budget together",
        reading="A drift to the budget's limit means that the policy no longer stops.",
    ),
    "completion/thought_bytes_mean": Meaning(
        unit="bytes",
        meaning="Mean length of the thought, candidates that seed it included",
        healthy="steady, or rising while development accuracy rises",
        reading="With a think budget of 0 this is the length of the forced candidates alone.",
    ),
    "completion/prediction_bytes_mean": Meaning(
        unit="bytes",
        meaning="Mean length of the predictions",
        healthy="steady, near the mean length of a token of the text",
        reading="Falling while the reward rises: the policy says the least that can be right.",
    ),
    "completion/content_fraction": Meaning(
        unit="fraction",
        meaning="Share of predictions with a letter, a digit or a mathematical sign",
        healthy="steady, as that of the text's tokens",
        reading="Falling while the reward rises: rewards are won by spaces and punctuation.",
    ),
    "completion/commonest_fraction": Meaning(
        unit="fraction",
        meaning="Share of predictions that are the step's commonest one",
        healthy="below 0.2",
        reading="Rising: the policy gives one answer everywhere.",
    ),
    "sampler/near_boundary_tokens": Meaning(
        unit="tokens",
        meaning="Drawn tokens whose uniform number lay within 1e-5 of a boundary: another"
        " plan of execution may draw them otherwise",
        healthy="about 1 in 10,000 drawn tokens, or 0",
        reading="Counts how many tokens are not reproducible over micro-batch sizes in float32.",
    ),
    "policy/entropy": Meaning(
        unit="nats a token",
        meaning="Mean entropy of the policy over the trained tokens that were run",
        healthy="above 0.1; falls slowly",
        reading="A fall to 0 is collapse: all rollouts of a group agree and nothing more is"
        " learned; raise entropy_weight or lower the learning rate.",
    ),
    "policy/sampler_difference": Meaning(
        unit="nats a token",
        meaning="Mean |log-probability by the trainer − by the sampler| of the trained tokens",
        healthy="below 1e-4 in float32 before the first update, below 0.05 in bfloat16",
        reading="What sampler and trainer disagree by; with several updates a batch it also"
        " holds what the policy has moved.",
    ),
    "policy/ratio": Meaning(
        unit="ratio",
        meaning="Mean probability ratio of trainer and old policy over the trained tokens",
        healthy="1 to rounding on-policy; 0.9 to 1.1 with several updates a batch",
        reading="Away from 1 on-policy, sampler and trainer do not agree.",
    ),
    "policy/mismatch": Meaning(
        unit="nats a token",
        meaning="Mean |old − sampler| log-probability of the trained tokens",
        healthy="0 (sampler and trainer share one code path here)",
        reading="Above 0 only where another engine samples.",
    ),
    "policy/clip_fraction": Meaning(
        unit="fraction",
        meaning="Share of trained tokens whose ratio was clipped",
        healthy="0 on-policy; below 0.2 with several updates a batch",
        reading="High values mean that the updates on one batch go too far.",
    ),
    "policy/dropped_fraction": Meaning(
        unit="fraction",
        meaning="Share of trained tokens that train.importance_correction dropped by a mask",
        healthy="below 0.05",
        reading="High values mean that sampler and trainer hardly agree: look for a difference of"
        " precision, temperature or weights before widening the band.",
    ),
    "loss/policy": Meaning(
        unit="(no unit)",
        meaning="The policy-gradient loss with its KL and entropy terms",
        healthy="near 0 on-policy",
        reading="Its value says nothing on-policy: advantages of a group sum to 0. Look at the"
        " gradient norm and at flat groups.",
    ),
    "loss/ntp": Meaning(
        unit="nats a token",
        meaning="Plain next-token loss on the prefix, before its weight",
        healthy="steady or falling slowly",
        reading="A rise means that the model loses its language; a fast fall, that it learns the"
        " documents by heart.",
    ),
    "loss/trace": Meaning(
        unit="nats a trace",
        meaning="Warmup: weighted cross-entropy of the traces' answers and form",
        healthy="a sudden fall within 5 to 15 steps, then flat",
        reading="The fall is the form being learned; without it, warm up longer or at a higher"
        " rate.",
    ),
    "loss/tail_kl": Meaning(
        unit="nats a position",
        meaning="Unseeded warmup: KL(frozen plain model || model after the tail)",
        healthy="falls, to below about 1",
        reading="How far the tail still disturbs the next-token prediction.",
    ),
    "loss/text_kl": Meaning(
        unit="nats a token",
        meaning="Warmup: KL(start model || policy) on the plain text, unweighted",
        healthy="below 0.05",
        reading="What the cold start costs the model's language; raise text_kl_weight if it grows.",
    ),
    "optim/grad_norm": Meaning(
        unit="L2 norm",
        meaning="Norm of the whole gradient, before clipping",
        healthy="same order of magnitude throughout; 0 only if every group is flat",
        reading="Single spikes are clipped and harmless; a steady rise calls for a lower learning"
        " rate.",
    ),
    "optim/skipped": Meaning(
        unit="0 or 1",
        meaning="1 where the step's update was left out, since its gradient was not finite"
        " (optim.on_nonfinite = 'skip')",
        healthy="0",
        reading="The step's warning says where in the text it came from. A few of thousands do no"
        " harm; more call for a lower learning rate.",
    ),
    "optim/learning_rate": Meaning(
        unit="(no unit)",
        meaning="Learning rate of the step",
        healthy="rises for schedule_steps, then constant",
        reading="Only to check the schedule.",
    ),
    "development/reasoning_accuracy": Meaning(
        unit="fraction",
        meaning="Greedy accuracy of think-then-predict on the development split",
        healthy="rises; the line to judge a run by",
        reading="Reasoning helps only where its line is above NTP's; with a few hundred"
        " positions, gaps of a few points are noise.",
    ),
    "development/ntp_accuracy": Meaning(
        unit="fraction",
        meaning="Accuracy of the same weights' standard prediction on the same positions",
        healthy="does not fall",
        reading="The baseline of the reasoning line; a fall is the price paid in plain language"
        " modelling.",
    ),
    "development/positions": Meaning(
        unit="positions",
        meaning="Positions of the development evaluation",
        healthy="train.eval_positions, or all that the split has",
        reading="The standard error is about 0.5 / √positions, more as documents are few.",
    ),
    "development/perplexity": Meaning(
        unit="(no unit)",
        meaning="exp of the mean negative log-likelihood of the development split's tokens, each"
        " seen from its window's prefix",
        healthy="falls, then stays",
        reading="A rise while loss/ntp falls is overfitting: fewer steps or a lower rate.",
    ),
    "documents/pieces": Meaning(
        unit="pieces",
        meaning="Documents, or pieces of long ones, in the step",
        healthy="steady; with pretrain.match_by documents, the matched step's",
        reading="Few pieces a step make a noisy gradient.",
    ),
    **_by_difficulty("reasoning_accuracy", "thinking"),
    **_by_difficulty("ntp_accuracy", "standard prediction"),
    **{
        f"development/positions/{name}": Meaning(
            unit="positions",
            meaning=f"Those of them that are {name}",
            healthy="steady: the same positions every time",
            reading="Few make wide bands in the report.",
        )
        for name in ("easy", "medium", "hard")
    },
    "development/flops": Meaning(
        unit="FLOPs",
        meaning="Floating-point operations of the development evaluation",
        healthy="steady",
        reading="Not in the training compute of `openrpt scaling`.",
    ),
    "development/seconds": Meaning(
        unit="seconds",
        meaning="Wall-clock time of the development evaluation",
        healthy="a small part of eval_every steps",
        reading="Lower train.eval_positions or raise train.eval_every where it is too much.",
    ),
    "time/generate": _time("generating and grading rollouts", "20 to 60 % of a step"),
    "time/update": _time("log-probabilities, gradients and the optimizer", "40 to 80 % of a step"),
    "time/store": _time("writing the rollouts", "below 2 % of a step"),
    "time/step": _time("all phases together", "steady"),
    "tokens/generate": Meaning(
        unit="tokens",
        meaning="Tokens run forward in generation: prefix once, tail once a position, completions",
        healthy="steady",
        reading="What the document tree really ran, against what separate sequences would have"
        " cost.",
    ),
    "tokens/update": Meaning(
        unit="tokens",
        meaning="Tokens run forward and backward in the update",
        healthy="falls as groups become flat",
        reading="Completions of flat groups are not run, unless a KL or entropy term reads them.",
    ),
    "tokens/trained": Meaning(
        unit="tokens",
        meaning="Tokens of text with a next-token loss",
        healthy="near tokens/update; fewer where only selected tokens train",
        reading="What the loss is a mean over.",
    ),
    "tokens/not_computed": Meaning(
        unit="tokens",
        meaning="Tokens that running every rollout's sequence alone would have added, in"
        " generation and update",
        healthy="many times tokens/generate and tokens/update together",
        reading="What sharing the prefix and skipping flat groups saved.",
    ),
    "tokens/trained_run": Meaning(
        unit="tokens",
        meaning="Completion tokens with a loss that the last update ran",
        healthy="above 0",
        reading="0 means that every group was flat.",
    ),
    "flops/generate": Meaning(
        unit="FLOPs",
        meaning="Floating-point operations of generation, counted from shapes",
        healthy="steady",
        reading="Divide by the seconds and compare with the machine's limit (openrpt doctor).",
    ),
    "flops/update": Meaning(
        unit="FLOPs",
        meaning="Floating-point operations of the update; backward counts twice forward",
        healthy="falls as groups become flat",
        reading="Divide by the seconds and compare with the machine's limit (openrpt doctor).",
    ),
    "sharing/flops_alone": Meaning(
        unit="FLOPs",
        meaning="What the same work would take if every rollout's sequence were computed alone",
        healthy="several times flops/generate and flops/update together",
        reading="The ratio is what the document tree saves; flat groups are left out of both.",
    ),
    "efficiency/limit": Meaning(
        unit="FLOP/s",
        meaning="Rate of the model's own matrix products on this machine, measured after the first"
        " step of a start",
        healthy="the same at every start",
        reading="A lower one at a resumed start: the machine was shared, or has other threads.",
    ),
    "efficiency/generate": _efficiency("generation", "the nearer to 1, the better"),
    "efficiency/update": _efficiency("the update", "the nearer to 1, the better"),
    "efficiency/step": _efficiency("the whole step", "the nearer to 1, the better"),
    "efficiency/lost_generate": _lost("generation"),
    "efficiency/lost_update": _lost("the update"),
    "efficiency/lost_store": _lost("writing the rollouts"),
    "energy/joules": Meaning(
        unit="J",
        meaning="Energy of the step",
        healthy="steady",
        reading="3.6 million are a kilowatt-hour.",
    ),
    "energy/measured": Meaning(
        unit="0 or 1",
        meaning="1 where energy/joules was measured (RAPL, NVML); 0 where it is seconds × watts",
        healthy="1",
        reading="An estimate is as good as cost.watts; where nobody gave it, it is a guess.",
    ),
    "memory/peak_gib": Meaning(
        unit="GiB",
        meaning="Greatest resident memory of the process so far",
        healthy="flat after the first steps and the first evaluation",
        reading="It can't fall; if it climbs on and on, memory leaks. Lower microbatch_tokens or"
        " generation_rollouts to reduce it.",
    ),
}


def _predicted(what: str, healthy: str) -> Meaning:
    return Meaning(
        unit="fraction",
        meaning=f"Of the stored rollouts, {what}",
        healthy=healthy,
        reading="Copying standard prediction is the floor from which RL starts; what it can win"
        " lies in the other candidates.",
    )


def _predicted_right(what: str) -> Meaning:
    return Meaning(
        unit="fraction",
        meaning=f"Of the stored rollouts that predicted {what}, those that are right",
        healthy="rises",
        reading="Another candidate is worth taking only where it is right as often as standard"
        " prediction.",
    )


DERIVED: dict[str, Meaning] = {
    "speed/generate": Meaning(
        unit="FLOPs a second",
        meaning="FLOPs of generation by its seconds",
        healthy="near the machine's limit, which openrpt doctor measures",
        reading="How much of the machine is used; a dip means that something else ran on it.",
    ),
    "speed/update": Meaning(
        unit="FLOPs a second",
        meaning="FLOPs of the update by its seconds",
        healthy="near the machine's limit, which openrpt doctor measures",
        reading="How much of the machine is used; a dip means that something else ran on it.",
    ),
    "predicted/standard": _predicted("those that say what standard prediction says", "below 0.9"),
    "predicted/candidate": _predicted("those that say another of the candidates", "above 0.1"),
    "predicted/other": _predicted("those that say what is no candidate", "small, not 0"),
    "predicted/none": _predicted("those without a prediction", "0 after warmup"),
    "predicted_right/standard": _predicted_right("what standard prediction says"),
    "predicted_right/candidate": _predicted_right("another of the candidates"),
    "predicted_right/other": _predicted_right("what is no candidate"),
}
"""What the report makes of the stored rollouts and of metrics; metrics.jsonl holds none of it."""

EVALUATION: dict[str, Meaning] = {
    "ntp": Meaning(
        unit="fraction",
        meaning="Standard prediction right: argmax of one forward pass, special tokens masked",
        healthy="does not fall by training",
        reading="The baseline, graded by the same rule on the same prefix.",
    ),
    "reasoning": Meaning(
        unit="fraction",
        meaning="Prediction after thinking right up to a token boundary (mean over samples)",
        healthy="above ntp, if thinking helps",
        reading="Compare it in pairs, never by two separate errors.",
    ),
    "single_token": Meaning(
        unit="fraction",
        meaning="As reasoning, and exactly one token long",
        healthy="equal to reasoning, or a little below",
        reading="The stricter rule: ntp can only be one token long.",
    ),
    "any_right": Meaning(
        unit="fraction",
        meaning="pass@k: at least one of k samples right (greedy: as reasoning)",
        healthy="above reasoning when samples are drawn",
        reading="What a better choice among samples could still win.",
    ),
    "majority": Meaning(
        unit="fraction",
        meaning="The commonest of k predictions right",
        healthy="at or above reasoning",
        reading="Voting; compare it with NTP at equal cost.",
    ),
    "predicted_tokens": Meaning(
        unit="tokens",
        meaning="Tokens of the continuation that a right prediction covers, where one was right",
        healthy="1 to 2",
        reading="1 everywhere: the model predicts single tokens.",
    ),
    "closed": Meaning(
        unit="fraction",
        meaning="Share of completions with a prediction",
        healthy="above 0.95 after warmup",
        reading="Low: the model lacks the form, not the knowledge.",
    ),
    "agrees": Meaning(
        unit="fraction",
        meaning="Share of predictions equal to standard prediction's",
        healthy="0.8 to 0.98",
        reading="1 means that the policy copies its standard prediction and thinking changes"
        " nothing.",
    ),
    "agrees_start": Meaning(
        unit="fraction",
        meaning="Share of predictions equal to the start model's standard prediction (where the"
        " start model is the scorer)",
        healthy="below agrees, once the policy has learned something",
        reading="1 means that the policy only copies what the start model would have said.",
    ),
    "confidence": Meaning(
        unit="fraction",
        meaning="Share of the samples that made the commonest prediction",
        healthy="near majority: then the policy knows how often it is right",
        reading="`calibration` holds the gap to majority by bins, and its mean, the expected"
        " calibration error.",
    ),
    "emptied": Meaning(
        unit="fraction",
        meaning="As reasoning, with nothing in place of the thought",
        healthy="below reasoning, if the thought helps",
        reading="Equal to reasoning: the thought is decoration.",
    ),
    "cut": Meaning(
        unit="fraction",
        meaning="As reasoning, with the first half of the thought's tokens",
        healthy="between emptied and reasoning",
        reading="Equal to reasoning: the second half of the thought adds nothing.",
    ),
    "swapped": Meaning(
        unit="fraction",
        meaning="As reasoning, with another position's thought",
        healthy="below reasoning, if the thought is about its position",
        reading="Equal to reasoning: any thought would do.",
    ),
    "ntp_voting": Meaning(
        unit="fraction",
        meaning="The commonest of voting_draws sampled NTP tokens right",
        healthy="near ntp",
        reading="What standard prediction makes of the computation that thinking costs.",
    ),
    "voting_draws": Meaning(
        unit="tokens",
        meaning="NTP tokens drawn at a position, for the FLOPs of its rollouts",
        healthy="near the tokens of a position's tail and completions",
        reading="What a rollout costs, in standard predictions.",
    ),
    "nll_ntp": Meaning(
        unit="nats",
        meaning="Negative log-likelihood of the true token after the text alone",
        healthy="does not rise by training",
        reading="The policy as a plain language model.",
    ),
    "nll": Meaning(
        unit="nats",
        meaning="Negative log-likelihood of the true token behind thought, close and opened box",
        healthy="below nll_ntp, if the thought informs",
        reading="Far above nll_ntp with good accuracy: the policy is too sure of what it says.",
    ),
    "information_gain": Meaning(
        unit="nats",
        meaning="nll_ntp − nll",
        healthy="above 0, if the thought informs",
        reading="Reward that rises without it is won by something else than knowing more.",
    ),
    "nll_emptied": Meaning(
        unit="nats",
        meaning="As nll, with nothing in place of the thought",
        healthy="above nll",
        reading="nll_emptied − nll is what the thought adds to the form alone.",
    ),
    "nll_cut": Meaning(
        unit="nats",
        meaning="As nll, with the first half of the thought's tokens",
        healthy="between nll and nll_emptied",
        reading="As cut.",
    ),
    "nll_swapped": Meaning(
        unit="nats",
        meaning="As nll, with another position's thought",
        healthy="above nll",
        reading="As swapped.",
    ),
    "information_gain_bits_a_byte": Meaning(
        unit="bits a byte",
        meaning="Information gain in bits, summed, over the bytes of the true tokens, summed",
        healthy="above 0, if the thought informs",
        reading="The figure to compare between tokenizers.",
    ),
}

WARMUP_KEYS = (
    "loss/trace",
    "loss/text_kl",
    "loss/tail_kl",
    "loss/ntp",
    "optim/grad_norm",
    "optim/skipped",
    "time/generate",
    "time/update",
    "flops/generate",
    "flops/update",
    "sharing/flops_alone",
    "efficiency/limit",
    "efficiency/generate",
    "efficiency/update",
    "efficiency/step",
    "efficiency/lost_generate",
    "efficiency/lost_update",
    "energy/joules",
    "energy/measured",
    "memory/peak_gib",
)
"""What a warmup step writes; a train step writes all but the first three's losses."""
PRETRAIN_KEYS = (
    "loss/ntp",
    "documents/pieces",
    "optim/grad_norm",
    "optim/skipped",
    "optim/learning_rate",
    "development/ntp_accuracy",
    "development/perplexity",
    "development/positions",
    "time/update",
    "time/step",
    "tokens/update",
    "tokens/trained",
    "flops/update",
    "efficiency/limit",
    "efficiency/update",
    "efficiency/step",
    "efficiency/lost_update",
    "energy/joules",
    "energy/measured",
    "memory/peak_gib",
)
"""What a step of plain next-token training writes."""
PRETRAIN_ONLY = {"documents/pieces", "development/perplexity", "tokens/trained"}
WARMUP_ONLY = {"loss/trace", "loss/text_kl", "loss/tail_kl"}

INTRO = """\
# Metrics

<!-- Made from openrpt/report/glossary.py; to make it anew:
python -c "from openrpt.report.glossary import *; print(metrics_markdown())" > docs/metrics.md -->

Every step of `warmup`, `train`, `pretrain` and `finetune` adds one JSON object to `metrics.jsonl`
in the run folder, with `stage` (the command's name), `step` (from 1), `seconds` (of the stage so
far, over all starts, evaluations included), `sha256` (the line's own hash: one that was changed is
named and left out) and the keys below. `finetune` writes those of `train`,
where a question is a position. A key is absent where it does not apply: `pass_rate/hard` in a step
without hard positions, `policy/…` where every group was flat and nothing was run, `development/…`
between evaluations. Healthy ranges come from small models on a CPU; treat them as where to look
first, not as limits.

A resumed run may change a few keys that results depend on ([configuration](configuration.md)): the
first step with another value than the checkpoint's has `changed`, which holds `before` and `now`
for each such key.
"""

EVALUATION_INTRO = """\
## evaluation.json

`evaluations.LABEL.summary.KEY.SLICE` holds `value`, `standard_error` (by document: positions of
one document are not independent), `n` positions and `documents`. Slices: `all`; by the scorer's
entropy in nats `easy` (> 0.5), `medium` (> 1.0), `hard` (> 1.5), nested; and the disjoint bands
`<=0.5`, `0.5-1.0`, `1.0-1.5`, `>1.5`; the classes of the true token; and the kinds of documents,
`kind: NAME` ([evaluation](evaluation.md)). Keys from `emptied` on stand there only where they were
asked for. `evaluations.LABEL.evaluation_cost` holds what the evaluation took: `tokens`, `flops`,
`flops_alone` (without sharing), `seconds`, `joules`, `energy_measured`, and `money` with its
`currency` where `cost.price_per_hour` is given ([costs](costs.md)); `evaluations.LABEL.cost` the
`flops`, `seconds`, `joules` and `money` of the training that made the model (null where not known).
"""

DIFFERENCE_TEXT = """\
`perplexity.LABEL.TEXT` (by `openrpt perplexity`) holds `perplexity` (`value`, and `low` and `high`:
95 %), `nats_per_token` and `bits_per_byte` (its n is bytes), each with `standard_error` by
document, `n` and `documents`, the `window` in tokens, the documents `skipped` and the `cost`.

`openrpt probe`, `openrpt writing` and `openrpt questions` write files of their own; their pages say
what stands there ([probes](probes.md), [writing](writing.md),
[questions](finetune.md#without-training)).

`differences` is a list of paired differences a − b on the same positions: `a` and `b` (each a
`label` and a `mode`), and by slice `value`, `low` and `high` (95 % of resamples of documents),
`p` (two-sided), `standard_error`, `n`, `documents` and `distinguishable` (the interval leaves 0
out).
"""

WARNINGS_INTRO = """\
## warnings

The step at which a failure signature first shows has a list `warnings` besides its metrics, each
with `name`, `step`, `seen` (what, with the numbers) and `helps` (what usually does). The stage
says it once, when it happens. Windows are of 5 steps; the thresholds and their reasons stand in
`openrpt/runs/signatures.py`. A warning is a reason to look, no proof.

A step whose update was left out (`optim/skipped`) has the warning `skipped_update`, each time:
`seen` says where in the text its gradient came from.
"""


def _table(meanings: dict[str, Meaning]) -> str:
    lines = ["| key | unit | what it is | healthy | how to read it |", "|---|---|---|---|---|"]
    for key, m in meanings.items():
        cells = [f"`{key}`", m.unit, m.meaning, m.healthy, m.reading]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _warnings_table() -> str:
    lines = ["| name | when | what usually helps |", "|---|---|---|"]
    lines += [f"| `{name}` | {s.when} | {s.helps} |" for name, s in SIGNATURES.items()]
    return "\n".join(lines) + "\n"


def metrics_markdown() -> str:
    """The text of docs/metrics.md."""
    train = {key: m for key, m in METRICS.items() if key not in WARMUP_ONLY | PRETRAIN_ONLY}
    warmup = {key: METRICS[key] for key in WARMUP_KEYS}
    pretrain = {key: METRICS[key] for key in PRETRAIN_KEYS}
    parts = [INTRO, "## train\n", _table(train), "## warmup\n", _table(warmup)]
    parts += ["## pretrain\n", _table(pretrain)]
    parts += [WARNINGS_INTRO, _warnings_table()]
    parts += [EVALUATION_INTRO, _table(EVALUATION), DIFFERENCE_TEXT]
    return "\n".join(parts).rstrip("\n")
