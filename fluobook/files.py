"""Files of the repository, of a run and of this machine: read within limits, written atomically.

Whatever a file contains, reading it returns its content or raises `BadFile`, within a bounded time. Every file that a
person may edit is read here.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml

from fluobook.errors import BadFile

MIB = 1024 * 1024
LARGEST = 4 * MIB
"""Bytes of a file that a person writes."""
LARGEST_SEARCHED = 16 * MIB
"""Bytes of another file of the repository, which is searched for keys."""
LARGEST_RECORD = 64 * MIB
"""Bytes of a file that a run writes: a journal, a notebook with its outputs."""
DEEPEST = 100
"""Levels of nested lists and mappings."""
MOST_VALUES = 100_000
"""Values in one YAML file, each counted as often as aliases repeat it."""
MOST_KEYS = 10_000
"""Keys of one mapping: kustomize's time grows with their square."""

LONGEST, MOST_WAYS = 200, 40_000_000
"""Characters that a regular expression is matched with, and the ways in which it may try to match them."""

_CONFLICT = re.compile(r"^(?:<{7} |={7}\r?$|>{7} )", re.MULTILINE)
"""A line of a merge conflict. One alone may be text; two in the order < = > are a conflict, perhaps half resolved."""
INVALID = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What YAML and JSON readers raise: ValueError for the date 2026-13-45, AttributeError for `!!timestamp x`…"""


def not_regular(path: Path) -> BadFile:
    """The error for a FIFO, a device, a folder or a link to nothing."""
    return BadFile(path, "is not a regular file", remedy="remove it, or replace it by a file")


def read_text(path: Path, *, largest: int = LARGEST, errors: str = "strict", follow: bool = True) -> str:
    """The text of a regular file, in UTF-8.

    Args:
        path: the file.
        largest: bytes that it may have.
        errors: "replace" reads what is not text too.
        follow: whether it may be a link.

    Raises:
        BadFile: it cannot be read, is no regular file (a FIFO would block), too large, or not text.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise not_regular(path)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(largest + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not follow and error.errno == errno.ELOOP:
            raise BadFile(path, "is a symbolic link", remedy="replace it by the file that it leads to") from None
        raise BadFile(path, f"cannot be read: {error.strerror}", remedy="check the path and its permissions") from error
    if len(content) > largest:
        remedy = "is it the right file? split it if it is"
        raise BadFile(path, f"is larger than {largest // 1024} KiB", remedy=remedy)
    try:
        text = content.decode(errors=errors)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadFile(path, "is not text", line=line, remedy="write it in UTF-8") from None
    if "\0" in text and errors == "strict":
        raise BadFile(path, "is not text", line=_line(text, text.index("\0")), remedy="write it in UTF-8")
    return text


def pattern(text: str, path: Path | str, line: int = 0, *, longest: int = LONGEST) -> re.Pattern[str]:
    """A regular expression of a file, compiled.

    Its program matches in linear time, as Go does. Python backtracks: it tries each length of a repetition with each
    alternative of a group, and a repeated group could take for ever.

    Args:
        text: the expression.
        path: its file, or another name for it; for the message.
        line: its line there.
        longest: characters of the text that it is matched with; the caller matches it with no longer one.

    Raises:
        BadFile: it is no regular expression, or could take too long.
    """
    try:
        compiled = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadFile(path, f"has an invalid regular expression: {error}", line=line, remedy="correct it") from None
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", text).replace("(?", "(")
    repeats, options = re.findall(r"[*+]|\{\d*,\d*\}", plain), re.findall(r"(?<![*+}])\?", plain)
    alternatives, groups = [], plain
    while inner := re.findall(r"\(([^()]*)\)", groups):
        alternatives += [group.count("|") + 1 for group in inner]
        groups = re.sub(r"\([^()]*\)", "x", groups)
    choices = 2 ** len(options) * math.prod([*alternatives, groups.count("|") + 1])
    ways = longest ** len(repeats) * choices**1.5  # a choice costs more than a step of a repetition
    if re.search(r"\)[*+{]", plain) or ways > MOST_WAYS:
        problem = "has a regular expression that could take too long"
        remedy = "write it without repeated groups, and with few repetitions and alternatives"
        raise BadFile(path, problem, line=line, remedy=remedy)
    return compiled


def require_yaml(text: str, path: Path | str) -> None:
    """Refuse YAML that its readers take for something else, or do not survive.

    Args:
        text: a stream of YAML documents.
        path: its file, or another name for it; for the message.

    Raises:
        BadFile: it is not YAML, has unresolved merge conflicts, a key twice (readers keep the last, silently), is
            nested too deeply, or its aliases expand to too many values. The text is not quoted: it may be a secret.
    """
    refuse_conflicts(text, path)
    try:
        _examine(yaml.parse(text, Loader=yaml.CSafeLoader), path)
    except INVALID as error:
        raise invalid(path, "YAML", error, text) from None


def read_yaml(path: Path, *, largest: int = LARGEST, loader: Any = yaml.CSafeLoader) -> list[Any]:
    """The YAML documents of a file as plain data; see `read_text` and `parse_yaml`."""
    return parse_yaml(read_text(path, largest=largest), path, loader=loader)


def parse_yaml(text: str, path: Path | str, *, loader: Any = yaml.CSafeLoader) -> list[Any]:
    """The YAML documents of a text as plain data.

    Raises:
        BadFile: as in `require_yaml`, or a value is none (the date 2026-13-45).
    """
    require_yaml(text, path)
    try:
        return list(yaml.load_all(text, Loader=loader))
    except INVALID as error:
        raise invalid(path, "YAML", error, text) from None


def parse_json(text: str, path: Path | str, *, strict: bool = True) -> Any:
    """A JSON document as plain data.

    Args:
        text: the document.
        path: its file, or another name for it.
        strict: whether a number that is none (NaN, Infinity) is refused; outputs of notebooks have such.

    Raises:
        BadFile: it is not JSON, has half of a surrogate pair, or is nested too deeply.
    """
    refuse_conflicts(text, path)

    def refuse(name: str) -> NoReturn:
        form = rf'(?<!")\b{re.escape(name.removeprefix("-"))}\b'
        line = next((n for n, line in enumerate(text.splitlines(), 1) if re.search(form, line)), 0)
        raise BadFile(path, f"is not JSON: {name} is no number", line=line, remedy="write a number, or null")

    try:
        data = json.loads(text, parse_constant=refuse if strict else None)
        if "\\ud" in text.lower():
            json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair could be neither shown nor written
    except INVALID as error:
        raise invalid(path, "JSON", error) from None
    if _is_deeper(data, DEEPEST):
        raise BadFile(path, f"is nested more than {DEEPEST} levels deep", remedy="restore the file")
    return data


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def require_json(text: str, path: Path | str) -> None:
    """Refuse JSON that its readers take for different things.

    Raises:
        BadFile: as in `parse_json`; a key is there twice.
    """
    parse_json(text, path)
    with suppress(*INVALID):  # nearly every JSON text is YAML too, whose events have lines
        _examine(yaml.parse(text, Loader=yaml.CSafeLoader), path)


def refuse_conflicts(text: str, path: Path | str) -> None:
    """Refuse a text with an unresolved merge conflict."""
    marks = pairwise(_CONFLICT.finditer(text))
    if conflict := next((mark for mark, following in marks if mark[0][0] < following[0][0]), None):
        line = _line(text, conflict.start())
        raise BadFile(path, "has an unresolved merge conflict", line=line, remedy="resolve it, then `git add` the file")


def invalid(path: Path | str, language: str, error: Exception, text: str = "") -> BadFile:
    """The error for what a reader of YAML or JSON raised."""
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else getattr(error, "lineno", 0)
    line = min(line, len(text.splitlines()) or line)  # the end of a text is reported as a line behind it
    problem = next(filter(None, (getattr(error, name, "") for name in ("problem", "reason", "msg"))), "")
    if not problem:  # of a constructor: text without a colon does not quote the file, which may contain a secret
        reason = str(error).partition(":")[0] if isinstance(error, ValueError) else ""
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else "a value in it is invalid"
        problem += f" ({reason})" if reason else ""
    if not line and language == "YAML":
        line = _line_of_value(text)
    problem = {"second occurrence": "an anchor is defined twice"}.get(problem, problem.partition("\n")[0][:200])
    remedy = "check this line and the one above: their indentation, quotes and colons" if mark else "correct the file"
    return BadFile(path, f"is not {language}: {problem}", line=line, remedy=remedy)


def _line_of_value(text: str) -> int:
    """The line of the first scalar that is no value of its type; 0 if there is none."""
    loader: Any = yaml.SafeLoader("")
    node: Any = yaml.ScalarNode
    line = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.ScalarEvent):
                own = event.tag not in {None, "!"}
                tag = event.tag if own else loader.resolve(node, event.value, event.implicit)
                loader.construct_object(node(tag, event.value, event.start_mark))
    except INVALID:
        return line
    return 0


def _is_deeper(data: Any, levels: int) -> bool:
    values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return bool(values) and (not levels or any(_is_deeper(value, levels - 1) for value in values))


@dataclass
class _Collection:
    """A list or mapping whose end has not come yet; `keys` is None for a list."""

    anchor: str | None = None
    keys: set[str] | None = None
    at_key: bool = True
    values: int = 1

    def add(self, values: int) -> None:
        """Count the values of a part that is complete."""
        self.values += values
        if self.values > MOST_VALUES:
            raise _Refused(f"has more than {MOST_VALUES} values, aliases written out", "write it without aliases")


def _examine(events: Iterable[Any], path: Path | str) -> None:
    """Go through the events of a YAML stream; see `require_yaml`."""
    anchored: dict[str | None, int] = {}
    stack = [_Collection()]
    for event in events:
        try:
            if isinstance(event, yaml.DocumentStartEvent):
                anchored.clear()
            elif isinstance(event, yaml.CollectionStartEvent):
                _begin(stack, event)
            else:
                anchor, values = _end(stack, event, anchored)
                anchored[anchor] = values
                stack[-1].add(values)
        except _Refused as refused:
            problem, remedy = refused.args
            raise BadFile(path, problem, line=event.start_mark.line + 1, remedy=remedy) from None


class _Refused(Exception):
    """A problem and its remedy."""


def _begin(stack: list[_Collection], event: Any) -> None:
    stack[-1].at_key = not stack[-1].at_key
    stack.append(_Collection(event.anchor, set() if isinstance(event, yaml.MappingStartEvent) else None))
    if len(stack) > DEEPEST:
        raise _Refused(f"is nested more than {DEEPEST} levels deep", "write it flatter")


def _end(stack: list[_Collection], event: Any, anchored: dict[str | None, int]) -> tuple[str | None, int]:
    """The anchor of a value that is complete, and how many values it contains; 0 for other events."""
    if isinstance(event, yaml.CollectionEndEvent):
        ended = stack.pop()
        return ended.anchor, ended.values
    if not isinstance(event, yaml.NodeEvent):
        return None, 0
    parent = stack[-1]
    is_key, parent.at_key = parent.at_key, not parent.at_key
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchored:
            problem = f"has the alias *{event.anchor}, which is not defined above it"
            raise _Refused(problem, "define it, or write the value out")
        return None, anchored[event.anchor]
    if is_key and parent.keys is not None and isinstance(event, yaml.ScalarEvent):
        if event.value in parent.keys and event.value != "<<":
            raise _Refused(f"has `{event.value}` twice", "keep one of the two")
        parent.keys.add(event.value)
        if len(parent.keys) > MOST_KEYS:
            raise _Refused(f"has a mapping with more than {MOST_KEYS} keys", "split it")
    return event.anchor, 1


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically; see `write_bytes`."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str, *, mode: int = 0o644, exclusive: bool = False) -> None:
    """Write a text file; see `write_bytes`."""
    write_bytes(path, text.encode(), mode=mode, exclusive=exclusive)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644, exclusive: bool = False) -> None:
    """Write a file atomically and durably: a reader sees the old content or the new one, never a part.

    The file has its permissions before it has content. What killed runs left half written beside it is removed.

    Args:
        path: the file; missing folders are made.
        data: its content.
        mode: its permissions.
        exclusive: never replace a file.

    Raises:
        BadFile: it cannot be written; a full disk, for example.
        FileExistsError: `exclusive`, and it exists.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial_files(path.parent, path.name)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if exclusive:
                os.link(partial, path)  # unlike a rename this fails when the file exists
            else:
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> BadFile:
    """The error for a file that cannot be written."""
    remedy = "free space, or make it writable, or use another path (--out, FLUOBOOK_HOME, FLUOBOOK_CACHE, TMPDIR)"
    remedy = "move it away" if path.is_dir() else f"{remedy}; `fluobook doctor` checks them"
    return BadFile(path, f"cannot be written: {error.strerror}", remedy=remedy)


def remove_partial_files(folder: Path, name: str = "*") -> None:
    """Remove what `write_bytes` left of files in a folder when its process was killed."""
    for partial in folder.glob(f".{name}.*"):
        process = partial.suffix[1:]
        if process.isdecimal() and not is_alive(int(process)) and partial.is_file() and not partial.is_symlink():
            partial.unlink(missing_ok=True)


@cache
def packaged(package: str, name: str) -> Any:
    """The content of a YAML file that is a part of a package; not to be changed."""
    return yaml.load(resources.files(package).joinpath(name).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """A folder for this process, removed at the end; those of killed processes are removed first.

    Args:
        name: what it is for; part of the folder's name.

    Raises:
        BadFile: the disk is full, or the folder for temporary files is missing or read-only.
    """
    remove_temporary_folders()
    try:
        with tempfile.TemporaryDirectory(prefix=temporary_prefix(name)) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise unwritable(Path(tempfile.gettempdir()) / f"fluobook-{name}", error) from error


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""A file system that takes no more: no space, no quota, read-only, a file too large."""


def temporary_prefix(name: str) -> str:
    """How the name of a temporary folder of this process begins."""
    return f"fluobook-{name}-{os.getpid()}-"


def remove_temporary_folders() -> None:
    """Remove the temporary folders that this user's killed processes left behind."""
    for folder in Path(tempfile.gettempdir()).glob("fluobook-*-*-*"):
        process = folder.name.rsplit("-", 2)[1]
        try:
            is_ours = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
        except OSError:
            continue  # somebody else has removed it
        if is_ours and process.isdecimal() and not is_alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process exists on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True
