"""The experiments by name, in the order in which the front page has them."""

from openrpt.errors import UserError, nearest
from openrpt.experiments.answers.ablations import ABLATIONS
from openrpt.experiments.answers.cost import COST
from openrpt.experiments.answers.downstream import DOWNSTREAM
from openrpt.experiments.answers.experiment import Experiment
from openrpt.experiments.answers.failure import FAILURE
from openrpt.experiments.answers.general import GENERAL
from openrpt.experiments.answers.init import INIT
from openrpt.experiments.answers.rewards import REWARDS
from openrpt.experiments.answers.scaling import SCALING

EXPERIMENTS = {
    one.name: one for one in (INIT, SCALING, REWARDS, GENERAL, ABLATIONS, DOWNSTREAM, COST, FAILURE)
}


def experiment_named(name: str) -> Experiment:
    """Returns an experiment. Raises UserError for an unknown name, which names the nearest."""
    if name not in EXPERIMENTS:
        hint = nearest(name, EXPERIMENTS, otherwise=f"there are: {', '.join(EXPERIMENTS)}")
        raise UserError(f"no experiment '{name}'{hint}")
    return EXPERIMENTS[name]
