"""A user's own reward or judge: what its function gives for a rollout, as a number."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from openrpt.errors import UserError
from openrpt.user_code import UserFunction, shown, users_code


def number_of(
    function: UserFunction, values: Mapping[str, Any], *, where: str, on_error: str
) -> float:
    """Returns what the function gives for `values`, as a float.

    Where it raises, or returns no number: NaN under `on_error = "zero"`, else UserError that says
    `where`.
    """
    found: Any = None
    with users_code() as failure:
        found = function(values)
        if isinstance(found, Real):
            return float(found)
    if on_error == "zero":
        return math.nan
    problem = f"returned {shown(found)}, which is no number,"
    if failure.error is not None:
        problem = failure.reason
    raise UserError(
        f"'{function.path}' {problem} for {where}; mend it, or count such rollouts as 0 with"
        " --reward.on_error zero"
    ) from failure.error
