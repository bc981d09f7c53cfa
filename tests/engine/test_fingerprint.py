"""A model's fingerprint changes with any byte that it is read from, and with nothing else."""

import os
import shutil
from pathlib import Path

import pytest

from openrpt import hashes
from openrpt.engine import fingerprint
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.errors import UserError
from tests.helpers.tiny_model import tiny_model_folder


def test_other_weights_settings_and_tokenizers_are_told_apart(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    first = model_fingerprint(str(folder))
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert len(first) == 16 and model_fingerprint(str(copy)) == first
    (copy / "README.md").write_text("a card")
    assert model_fingerprint(str(copy)) == first
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        file = copy / name
        data = bytearray(file.read_bytes())
        stat = file.stat()
        data[-3] ^= 1
        file.write_bytes(data)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert model_fingerprint(str(copy)) != first, name
        data[-3] ^= 1
        file.write_bytes(data)
    assert model_fingerprint(str(copy)) == first
    assert model_fingerprint(str(tiny_model_folder(tmp_path / "model", seed=1))) != first


def test_a_gguf_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.GGUF"
    file.write_bytes(b"GGUF" + bytes(1000))
    first = model_fingerprint(str(file))
    file.write_bytes(b"GGUF" + bytes(999) + b"x")
    assert model_fingerprint(str(file)) != first


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such GGUF file"):
        model_fingerprint(str(tmp_path / "a.gguf"))
    with pytest.raises(UserError, match="no such model folder"):
        model_fingerprint(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="model 'no-such/model': no such folder"):
        model_fingerprint("no-such/model")


def test_the_hash_of_a_large_file_is_kept_until_it_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "REMEMBERED_BYTES", 0)
    monkeypatch.setattr(hashes, "_SETTLED_SECONDS", 0)
    read: list[Path] = []
    monkeypatch.setattr(
        fingerprint, "file_hash", lambda path: (read.append(path), hashes.file_hash(path))[1]
    )
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF" + bytes(1000))
    first = model_fingerprint(str(file))
    assert model_fingerprint(str(file)) == first and read == [file]
    (kept,) = (tmp_path / "cache" / "hashes").iterdir()
    for damaged in (b"", b"0123", b"\xff\xfe"):
        kept.write_bytes(damaged)
        read.clear()
        assert model_fingerprint(str(file)) == first and read == [file]
    stat = file.stat()
    file.write_bytes(b"GGUF" + bytes(999) + b"x")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert model_fingerprint(str(file)) != first
