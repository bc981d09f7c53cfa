"""What stands under its name is whole, whatever happened on the way."""

import json
import math

import pytest

from openrpt.errors import UserError
from openrpt.files import read_json, replacing_folder, write_json


def fill(path, text, **options):
    with replacing_folder(path, **options) as partial:
        (partial / "a.txt").write_text(text, encoding="utf-8")


def test_a_folder_takes_the_place_of_the_old_one_once_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "folder"
    fill(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as partial:
        (partial / "a.txt").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert (path / "a.txt").read_text(encoding="utf-8") == "old"
    fill(path, "new")
    assert (path / "a.txt").read_text(encoding="utf-8") == "new"
    assert list(path.parent.iterdir()) == [path]


def test_of_processes_that_fill_the_same_folder_the_first_stays(tmp_path):
    with replacing_folder(tmp_path / "model", shared=True) as partial:
        (partial / "a.txt").write_text("second", encoding="utf-8")
        (tmp_path / "model").mkdir()  # another process is done
        (tmp_path / "model" / "a.txt").write_text("first", encoding="utf-8")
    assert (tmp_path / "model" / "a.txt").read_text(encoding="utf-8") == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_cannot_be_written_is_named_on_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"folder: cannot be written \(.+\); use another disk"):
        fill(tmp_path / "file" / "folder", "new", advice="use another disk")


def test_json_is_json_for_every_reader(tmp_path):
    """NaN is an extension of Python's: others refuse the whole file."""
    estimate = {"value": math.nan, "standard_error": math.nan, "n": 0}
    write_json(tmp_path / "a.json", {"all": estimate, "none": None, "rows": (math.inf, 1.0)})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse)["rows"] == [None, 1.0]
    found = read_json(tmp_path / "a.json", advice="")
    assert math.isnan(found["all"]["value"]) and math.isnan(found["all"]["standard_error"])
    assert found["all"]["n"] == 0 and found["none"] is None


def test_a_damaged_file_is_named_with_its_line(tmp_path):
    (tmp_path / "a.json").write_text('{\n "a": 1,\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.json:3: damaged; run it again"):
        read_json(tmp_path / "a.json", advice="run it again")
