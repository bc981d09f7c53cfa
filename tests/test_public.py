"""The module paths that people import from elsewhere keep working, and stay light."""

import subprocess
import sys

import pytest

import openrpt


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("tokens", ["token_bytes"]),
        ("rewards", ["prefix_match"]),
        ("completions", ["extract_prediction"]),
        ("advantages", ["group_advantages"]),
        ("losses", ["policy_loss", "LossInputs", "LossConfig", "StepTotals", "LossOutputs"]),
    ],
)
def test_public_modules(module: str, names: list[str]) -> None:
    found = __import__(f"openrpt.{module}", fromlist=names)
    assert set(names) <= set(found.__all__)
    assert all(hasattr(found, name) for name in found.__all__)


def test_what_needs_no_torch_imports_none() -> None:
    """The byte-exact reward, the box, data and configuration can be used beside any engine."""
    program = (
        "import sys, openrpt, openrpt.completions, openrpt.rewards, openrpt.tokens\n"
        "import openrpt.config.loading, openrpt.data.work, openrpt.data.prompts\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_face_is_loaded_when_it_is_asked_for() -> None:
    program = (
        "import sys, openrpt\n"
        "assert not [name for name in sys.modules if name.startswith('openrpt.')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert set(openrpt.__all__) == set(openrpt._HOMES)
    assert all(getattr(openrpt, name) for name in openrpt.__all__)


def test_a_name_that_is_not_public_is_said() -> None:
    with pytest.raises(AttributeError, match="'openrpt' has no attribute 'policy'"):
        openrpt.policy  # noqa: B018
