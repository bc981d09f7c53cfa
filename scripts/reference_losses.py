"""Advantages and losses as TRL and verl compute them, on random inputs, for the tests.

    python scripts/reference_losses.py     # writes tests/fixtures/reference_losses.json

Each library runs in an environment of its own (scripts/environments.py builds it, once), by a
script of its own (reference_losses_NAME.py). TRL's values are those of a real `GRPOTrainer`, of
which nothing is replaced but what a model would have said: the completions and their
log-probabilities are the given ones. verl's are those of its `core_algos` and
`rollout_corr_helper`. tests/rl/test_reference_losses.py compares ours with them.
"""

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
TARGET = FOLDER.parent / "tests" / "fixtures" / "reference_losses.json"
PEERS = ("trl", "verl")
SEED = 0

ROLLOUTS, GROUP, TOKENS = 8, 4, 6
LENGTHS = (6, 4, 1, 5, 3, 6, 2, 6)
LONGEST = 9
"""Most tokens that a completion may have: Dr. GRPO's constant."""

LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"aggregation": "sequence_mean"},
    "dr_grpo": {"aggregation": "constant_length"},
    "dapo": {"aggregation": "token_mean", "clip_high": 0.28},
    "gspo": {
        "aggregation": "sequence_mean",
        "ratio_level": "sequence",
        "clip_low": 0.03,
        "clip_high": 0.04,
    },
    "cispo": {
        "aggregation": "token_mean",
        "surrogate": "cispo",
        "clip_low": 1.0,
        "clip_high": 0.3,
    },
    "kl": {"aggregation": "sequence_mean", "kl_weight": 0.3},
    "truncate": {"aggregation": "token_mean", "importance_correction": "truncate"},
    "token_mask": {"aggregation": "token_mean", "importance_correction": "token_mask"},
    "sequence_mask": {"aggregation": "sequence_mean", "importance_correction": "sequence_mask"},
}
"""Name → what differs from the defaults below: keys of openrpt's LossConfig."""
DEFAULTS: dict[str, Any] = {
    "ratio_level": "token",
    "surrogate": "clip",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "kl_weight": 0.0,
    "importance_correction": "off",
    "importance_min": 0.8,
    "importance_max": 1.25,
}


def make_inputs(seed: int) -> dict[str, Any]:
    """Log-probabilities that straddle the clips and the bands; rewards with flat groups."""
    rng = random.Random(seed)

    def table(around: list[list[float]], spread: float) -> list[list[float]]:
        return [[value + rng.gauss(0, spread) for value in row] for row in around]

    old = table([[-2.0] * TOKENS] * ROLLOUTS, 0.5)
    mask = [[int(token < length) for token in range(TOKENS)] for length in LENGTHS]
    mask[0][2] = 0  # a forced token in the middle
    binary = [[float(rng.random() < 0.4) for _ in range(5)] for _ in range(6)]
    return {
        "rewards": [1.0, 0.0, 0.25, 0.0, 0.5, 0.0, 1.0, 1.0],  # of the losses' two groups
        "group_rewards": [*binary, [1.0] * 5, [0.0] * 5],
        "dense_rewards": [[rng.random() for _ in range(5)] for _ in range(6)],
        "old": old,
        "trainer": table(old, 0.3),
        "sampler": table(old, 0.15),
        "reference": table(old, 0.3),
        "mask": mask,
        "longest": LONGEST,
        "losses": {name: DEFAULTS | case for name, case in LOSSES.items()},
    }


def main() -> None:
    from environments import environment_python  # the peers' own Python has no OpenRPT

    given = make_inputs(SEED)
    found: dict[str, Any] = {"made_by": "scripts/reference_losses.py", "inputs": given}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.json"
        inputs.write_text(json.dumps(given))
        for name in PEERS:
            script, output = FOLDER / f"reference_losses_{name}.py", Path(folder) / f"{name}.json"
            subprocess.run([environment_python(name), script, inputs, output], check=True)
            found[name] = json.loads(output.read_text())
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(TARGET, {name: found[name]["versions"] for name in PEERS})


def answer(name: str, values: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Reads the inputs and writes what a library makes of them: the command of its own script."""
    inputs, output = map(Path, sys.argv[1:])
    versions = {library: version(library) for library in (name, "torch", "transformers")}
    output.write_text(json.dumps({"versions": versions} | values(json.loads(inputs.read_text()))))


if __name__ == "__main__":
    main()
