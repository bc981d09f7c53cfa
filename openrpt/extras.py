"""Optional packages: what is missing is named, with the extra of openrpt that brings it."""

import importlib.util

from openrpt.errors import UserError


def require(package: str, *, extra: str, what: str, otherwise: str = "") -> None:
    """Checks that a package is installed. `what` needs it; `otherwise`: what can be done without
    it. Raises UserError that names the extra where it is missing.

    >>> require("no_such", extra="lora", what="model.lora_rank")
    Traceback (most recent call last):
    ...
    openrpt.errors.UserError: model.lora_rank needs no_such; install it: pip install "openrpt[lora]"
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f'{what} needs {package}; install it: pip install "openrpt[{extra}]"{otherwise}'
        )
