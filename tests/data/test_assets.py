import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrpt.data import assets
from openrpt.data.assets import Asset
from openrpt.errors import UserError

CONTENT = bytes(range(256)) * 9000  # several chunks


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def asset_of(content: bytes) -> Asset:
    return Asset(
        name="a small file",
        file_name="small.bin",
        package="openrpt-no-such-package==1.0",
        member="folder/small.bin",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def wheel_with(folder: Path, content: bytes, member: str = "folder/small.bin") -> Path:
    wheel = folder / "openrpt_no_such_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return wheel


def test_unpack_places_the_file(tmp_path: Path, cache: Path) -> None:
    asset = asset_of(CONTENT)
    assets.unpack_wheel(wheel_with(tmp_path, CONTENT), asset, asset.path)
    assert asset.path.read_bytes() == CONTENT
    assert os.listdir(cache) == ["small.bin"]
    assert assets.fetch(asset) == cache / "small.bin"  # already there: pip is not asked


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[:-1] + b"?", b""])
def test_unpack_refuses_another_content_and_leaves_nothing(
    tmp_path: Path, cache: Path, content: bytes
) -> None:
    asset = asset_of(CONTENT)
    with pytest.raises(UserError, match="SHA-256"):
        assets.unpack_wheel(wheel_with(tmp_path, content), asset, asset.path)
    assert os.listdir(cache) == []


def test_unpack_refuses_broken_wheels(tmp_path: Path, cache: Path) -> None:
    asset = asset_of(CONTENT)
    wheel = wheel_with(tmp_path, CONTENT)
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"broken or has no folder/small\.bin"):
        assets.unpack_wheel(wheel, asset, asset.path)
    with pytest.raises(UserError, match=r"broken or has no folder/small\.bin"):
        assets.unpack_wheel(wheel_with(tmp_path, CONTENT, "elsewhere.bin"), asset, asset.path)
    assert os.listdir(cache) == []


def test_a_good_file_survives_a_bad_download(tmp_path: Path) -> None:
    asset = asset_of(CONTENT)
    assets.unpack_wheel(wheel_with(tmp_path, CONTENT), asset, asset.path)
    with pytest.raises(UserError):
        assets.unpack_wheel(wheel_with(tmp_path, b"other"), asset, asset.path)
    assert asset.path.read_bytes() == CONTENT


def test_is_intact(tmp_path: Path) -> None:
    asset, path = asset_of(CONTENT), tmp_path / "file"
    assert not assets.is_intact(path, asset.size, asset.sha256)
    path.write_bytes(CONTENT)
    assert assets.is_intact(path, asset.size, asset.sha256)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert not assets.is_intact(path, asset.size, asset.sha256)
    path.write_bytes(CONTENT[:-1])
    assert not assets.is_intact(path, asset.size, asset.sha256)


def test_write_atomically_leaves_nothing_where_the_content_fails(cache: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assets.write_atomically(cache / "file", chunks())
    assert os.listdir(cache) == []


def test_an_unwritable_cache_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="OPENRPT_CACHE"):
        assets.write_atomically(tmp_path / "file" / "target", [b"x"])


def test_download_takes_the_wheel_from_where_pip_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asset = asset_of(CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match="by hand") as failure:
        assets.fetch(asset)
    assert str(asset.path) in str(failure.value) and "\n" not in str(failure.value)

    info = "openrpt_no_such_package-1.0.dist-info"
    wheel = wheel_with(tmp_path, CONTENT)
    with zipfile.ZipFile(wheel, "a") as archive:
        name = "Metadata-Version: 2.1\nName: openrpt-no-such-package\nVersion: 1.0\n"
        archive.writestr(f"{info}/METADATA", f"{name}Requires-Dist: openrpt-nor-this\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    capsys.readouterr()
    assert assets.fetch(asset).read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert said == f"download a small file, once, into {asset.path.parent} …\n"
    assert assets.fetch(asset) and not capsys.readouterr().err, "said where it waits alone"

    asset.path.write_bytes(b"damaged")
    assert assets.fetch(asset).read_bytes() == CONTENT


def test_champ_rows() -> None:
    steps = [{"_text": "Let x = 2.", "_raw_text": "Let @@x = 2@@."}, {"_text": "So x ≤ 3. "}]
    problem = {"identifier": "P_1", "_text": "Find x.", "solution": {"steps": steps}}
    assert list(assets.champ_rows({"problems": {"P_1": problem}, "hints": {}})) == [
        {"id": "P_1", "problem": "Find x.", "solution": "Let x = 2.\nSo x ≤ 3."}
    ]


def test_corpus_already_made_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps({"id": "1"}).encode()
    monkeypatch.setattr(assets, "_CHAMP_JSONL_SIZE", len(content))
    monkeypatch.setattr(assets, "_CHAMP_JSONL_SHA256", hashlib.sha256(content).hexdigest())
    assets.write_atomically(cache / "champ.jsonl", [content])
    assert assets.demo_corpus_jsonl().read_bytes() == content


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert assets.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("OPENRPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert assets.cache_dir() == tmp_path / "openrpt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert assets.cache_dir() == Path.home() / ".cache" / "openrpt"
