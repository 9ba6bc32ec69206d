"""Run folders are never overwritten, and files appear whole."""

from __future__ import annotations

import pytest

from fluobook.errors import FluobookError
from fluobook.journal.folder import named_folder, new_folder, newest, write_json, write_text


def test_two_runs_in_one_second_get_different_folders(tmp_path):
    folders = [new_folder(tmp_path, "phase1") for _ in range(3)]
    assert len(set(folders)) == 3
    assert newest(tmp_path) in folders


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "kept").touch()
    with pytest.raises(FluobookError, match="holds something already"):
        named_folder(tmp_path)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FluobookError, match="is not a folder"):
        named_folder(tmp_path / "file")


def test_an_empty_folder_and_a_new_one_are_taken(tmp_path):
    assert named_folder(tmp_path / "a" / "b").is_dir()
    assert named_folder(tmp_path / "a" / "b").is_dir()


def test_there_is_no_newest_where_there_is_none(tmp_path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "missing") is None


def test_a_secret_file_is_private_from_its_first_byte(tmp_path):
    path = tmp_path / "kubeconfig"
    write_text(path, "one", mode=0o600)
    write_text(path, "two", mode=0o600)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["kubeconfig"]


def test_json_keeps_letters_as_they_are(tmp_path):
    write_json(tmp_path / "a.json", {"ä": "✓"})
    assert (tmp_path / "a.json").read_text() == '{\n  "ä": "✓"\n}\n'
