"""Checks that rewards, advantages and budgets can stand together, before anything is loaded."""

from openrpt.config.rewards import EXACT_TERMS
from openrpt.config.sections import Config
from openrpt.errors import UserError

_OF_THE_THOUGHT = ("information_gain", "expected", "log_expected")
"""Terms that read the thought and not the prediction that was sampled after it."""


def require_fitting(config: Config) -> None:
    """Checks that the reward fits the budgets. Raises UserError where more true tokens are to be
    weighed than a prediction may hold, where all that is rewarded is a thought in which nothing is
    drawn, where the answer's exact gradient is asked for of a reward that has none, and where an
    advantage can't take what a reward may be."""
    settings, train = config.reward, config.train
    most = config.prompt.prediction_budget
    if "information_gain" in settings.terms and settings.information_tokens > most:
        raise UserError(
            f"reward.information_tokens = {settings.information_tokens} is more than"
            f" prompt.prediction_budget = {most}; lower the one or raise the other"
        )
    weighed = [name for name, weight in settings.terms.items() if weight]
    exact = train.answer_gradient == "exact"
    if exact and not set(weighed) <= set(EXACT_TERMS):
        raise UserError(
            "train.answer_gradient = exact needs the rewards expected and log_expected alone, and"
            f" here are {', '.join(weighed)}; say --reward.terms expected=1, or"
            " --train.answer_gradient sampled (finetune, which grades answers, knows that alone)"
        )
    if set(weighed) <= set(_OF_THE_THOUGHT) and config.prompt.think_budget == 0 and not exact:
        names = ", ".join(weighed)
        raise UserError(
            f"reward.terms: {names} rewards the thought alone, and with prompt.think_budget = 0 a"
            " position's rollouts all have the same; raise prompt.think_budget, or add a term that"
            f" reads the prediction (--reward.terms prefix=1,{weighed[0]}=0.1)"
        )
    advantage = train.recipe().advantage
    below = [name for name in weighed if name in ("log_expected", "information_gain")]
    below += ["thought_cost"] if settings.thought_cost else []
    if below and advantage in ("maxrl", "pass_at_k"):
        raise UserError(
            f"train.advantage = {advantage} needs rewards of at least 0, and reward {below[0]} goes"
            " below; take another algorithm (--train.algorithm dr_grpo)"
        )
