"""The reader of files: whatever a file contains, its content or one clear error; and atomic writing."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile

import pytest

from fluobook import files
from fluobook.errors import BadFile
from fluobook.failures import present
from fluobook.files import parse_json, parse_yaml, read_text, read_yaml, remove_partial_files, write_json, write_text

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{above}'] * 9)}]\n" for above, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CONFLICT = "x: 1\n<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> theirs\n"
YAML = [
    pytest.param(BOMB, "f.yaml:6 has more than 100000 values, aliases written out", id="an alias bomb"),
    pytest.param("a: &a [*a]", "has the alias *a, which is not defined above it", id="a value that contains itself"),
    pytest.param(
        "".join(f"k{i}: 1\n" for i in range(10_001)), "f.yaml:10001 has a mapping with more", id="10,001 keys"
    ),
    pytest.param("a: *b", "has the alias *b", id="an unknown alias"),
    pytest.param("x: &a 1\n---\ny: *a", "f.yaml:3 has the alias *a", id="an alias of another document"),
    pytest.param("[" * 100_000, "is nested more than 100 levels deep", id="nested lists"),
    pytest.param("{a: " * 100_000, "is nested more than 100 levels deep", id="nested mappings"),
    pytest.param("- " * 100_000, "is nested more than 100 levels deep", id="nested items"),
    pytest.param("? " * 100_000, "is nested more than 100 levels deep", id="nested keys"),
    pytest.param("a: 1\nb:\n  c: 1\n  'c': 2\n", "f.yaml:4 has `c` twice", id="a key twice"),
    pytest.param("- {a: 1, a: 2}", "f.yaml:1 has `a` twice", id="a key twice in a list"),
    pytest.param("x: {? [a, b] : 1, c: 1, c: 2}", "f.yaml:1 has `c` twice", id="a key twice beside a complex key"),
    pytest.param(CONFLICT, "f.yaml:2 has an unresolved merge conflict", id="a merge conflict"),
    pytest.param("a: 1\n=======\nb: 2\n>>>>>>> x\n", "f.yaml:2 has an unresolved merge conflict", id="half resolved"),
    pytest.param("<<<<<<< x\na: 1\n=======\nb: 2\n", "f.yaml:1 has an unresolved merge conflict", id="without end"),
    pytest.param("a: 1\nd: 2026-13-45", "f.yaml:2 is not YAML", id="the line of a date"),
    pytest.param("d: 2026-13-45", "a value in it is invalid (month must be in 1..12)", id="an impossible date"),
    pytest.param("n: " + "9" * 5000, "is invalid (Exceeds the limit (4300 digits)", id="a number too long"),
    pytest.param("d: !!timestamp x", "is not YAML", id="a date that is none"),
    pytest.param("b: !!bool x", "is not YAML: a value in it is invalid", id="a boolean that is none"),
    pytest.param("i: !!int ''", "is not YAML: a value in it is invalid", id="a number that is none"),
    pytest.param("x: !!python/object:os.system y", "f.yaml:1 is not YAML: could not determine", id="a Python object"),
    pytest.param("a: b: c", "f.yaml:1 is not YAML: mapping values are not allowed", id="a colon too many"),
    pytest.param("a: \x07", "is not YAML: control characters are not allowed", id="a control character"),
    pytest.param("&x a: 1\n&x b: 2", "is not YAML", id="an anchor twice"),
    pytest.param("!" * 100_000, "is not YAML", id="an endless tag"),
    pytest.param("{[a]: 1}", "is not YAML: found unhashable key", id="a list as a key"),
]


@pytest.mark.parametrize(("text", "message"), YAML)
def test_yaml_that_readers_do_not_survive_or_misread_is_refused_with_its_line(text, message):
    with pytest.raises(BadFile) as refused:
        parse_yaml(text, "f.yaml")
    assert message in refused.value.message
    assert len(refused.value.message) < 400
    assert refused.value.remedy


@pytest.mark.parametrize("tag", ["int", "float", "bool", "timestamp"])
def test_a_value_that_does_not_fit_its_tag_is_not_quoted(tag):
    with pytest.raises(BadFile) as refused:
        parse_yaml(f"a: !!{tag} hunter2", "f.yaml")
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("", []),
        ("a: 1\n---\na: 2\n", [{"a": 1}, {"a": 2}]),
        ("x: &a {b: 1}\ny: {<<: *a, c: 2}\n", [{"x": {"b": 1}, "y": {"b": 1, "c": 2}}]),
        ("x: {a: 1}\ny: {a: 1}\na: a\n", [{"x": {"a": 1}, "y": {"a": 1}, "a": "a"}]),
        ("d: 2024-02-29\nt: |\n  <<<<<<< HEAD\n", None),
    ],
)
def test_other_yaml_is_read(text, documents):
    read = parse_yaml(text, "f.yaml")
    assert documents is None or read == documents


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "f.json:1 is not JSON"),
        ("[" * 100_000, "is n"),
        ("[" * 200 + "]" * 200, "is nested more than 100 levels deep"),
        ("9" * 5000, "is not JSON"),
        (CONFLICT, "f.json:2 has an unresolved merge conflict"),
    ],
)
def test_json_that_is_none_is_refused(text, message):
    with pytest.raises(BadFile) as refused:
        parse_json(text, "f.json")
    assert message in refused.value.message


def test_a_secret_is_not_quoted():
    for text in ("password: hunter2hunter2: x", "[hunter2hunter2", "hunter2hunter2\x07"):
        with pytest.raises(BadFile) as refused:
            parse_yaml(text, "f.yaml")
        assert "hunter2" not in present(refused.value).text()


def fifo(path):
    os.mkfifo(path)


def loop(path):
    path.symlink_to(path)


FILES = {
    "a missing file": (lambda _: None, "cannot be read: No such file"),
    "a FIFO": (fifo, "is not a regular file"),
    "a folder": (lambda path: path.mkdir(), "is not a regular file"),
    "a link to itself": (loop, "cannot be read: Too many levels of symbolic links"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
    "10 MB": (lambda path: path.write_text("a: 1\n" * 2_000_000), "is larger than 4096 KiB"),
    "a binary file": (lambda path: path.write_bytes(b"a: 1\nb: \xff\xfe"), "f.yaml:2 is not text"),
    "a file with a zero byte": (lambda path: path.write_text("a: 1\n\0"), "f.yaml:2 is not text"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_text_is_refused_and_never_blocks(name, tmp_path):
    make, message = FILES[name]
    make(tmp_path / "f.yaml")
    with pytest.raises(BadFile) as refused:
        read_yaml(tmp_path / "f.yaml")
    assert message in refused.value.message
    assert refused.value.remedy


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / "file").write_text("ä")
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link") == "ä"


def test_a_secret_file_is_private_from_its_first_byte(tmp_path):
    path = tmp_path / "kubeconfig"
    write_text(path, "one", mode=0o600)
    write_text(path, "two", mode=0o600)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["kubeconfig"]


def test_json_is_not_reduced_to_ascii(tmp_path):
    write_json(tmp_path / "a.json", {"ä": "✓"})
    assert (tmp_path / "a.json").read_text() == '{\n  "ä": "✓"\n}\n'


def test_a_file_is_synced_before_it_replaces_the_old_one(tmp_path, monkeypatch):
    path, states = tmp_path / "summary.json", []
    write_text(path, "old")

    def fsync(descriptor):
        states.append((path.read_text(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(path, "new")
    assert states == [("old", len("new"))]
    assert path.read_text() == "new"


def test_a_file_that_must_be_new_never_replaces_another(tmp_path):
    write_text(tmp_path / "bundle", "old", exclusive=True)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "bundle", "new", exclusive=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"bundle": "old"}


@pytest.mark.parametrize("step", ["open", "fsync", "link"])
def test_a_full_disk_names_the_file_and_leaves_nothing_half_written(step, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "summary.json").write_text("old")
    monkeypatch.setattr(os, step, full)
    with pytest.raises(BadFile, match=r"summary\.json cannot be written: No space left on device"):
        write_text(tmp_path / "summary.json", "new", exclusive=step == "link")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"summary.json": "old"}


def test_what_killed_processes_left_half_written_is_removed_and_nothing_else(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = [f".summary.json.{ended.pid}", f".events.jsonl.{ended.pid}"]
    kept = [f".summary.json.{os.getpid()}", ".gitignore", f"summary.json.{ended.pid}", ".summary.json.1x", ".1"]
    for name in left + kept:
        (tmp_path / name).touch()
    (tmp_path / f".folder.{ended.pid}").mkdir()
    write_text(tmp_path / "summary.json", "new")
    assert not (tmp_path / left[0]).exists()
    assert (tmp_path / left[1]).exists()
    remove_partial_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept[1:], "summary.json", f".folder.{ended.pid}"}


def test_this_process_is_alive_and_an_ended_one_is_not():
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert [files.is_alive(process) for process in (os.getpid(), 1, ended.pid, 2**80)] == [True, True, False, False]


def test_a_full_disk_for_temporary_files_is_named():
    with pytest.raises(BadFile, match="cannot be written: No space left on device"), files.temporary_folder("test"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ConnectionResetError), files.temporary_folder("test"):
        raise ConnectionResetError


def test_temporary_folders_of_killed_processes_are_removed_and_no_others(tmp_path, monkeypatch):
    ended = subprocess.Popen(["true"])
    ended.wait()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = [f"fluobook-sops-{ended.pid}-abc", f"fluobook-kernel-{ended.pid}-x_y"]
    kept = [f"fluobook-sops-{os.getpid()}-abc", "fluobook-notes", f"other-sops-{ended.pid}-abc", "fluobook-a-b-c"]
    for name in left + kept:
        (tmp_path / name / "below").mkdir(parents=True)
    (tmp_path / f"fluobook-link-{ended.pid}-abc").symlink_to(tmp_path / "fluobook-notes")
    with files.temporary_folder("test") as folder:
        assert folder.name.startswith(f"fluobook-test-{os.getpid()}-")
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {*kept, folder.name, f"fluobook-link-{ended.pid}-abc"}
    assert (tmp_path / "fluobook-notes" / "below").is_dir()
