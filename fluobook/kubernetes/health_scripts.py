"""Runs Argo CD's Lua health scripts in a sandbox: no files, no modules, no Python, limited instructions and memory.

Argo CD runs them in gopher-lua with hardly any library: no `string`, no `math`, and of `os` only the time, for a script
that requires it. The sandbox offers the same, so a script that works here works there.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, NamedTuple

import lupa

STATUSES = ("Healthy", "Suspended", "Progressing", "Missing", "Degraded", "Unknown")
"""The statuses that Argo CD knows, from best to worst."""
INSTRUCTIONS = 5_000_000
"""A script that runs longer is stopped."""
MEMORY = 64 << 20
"""Bytes that one sandbox may use."""

_SANDBOX = resources.files(__package__).joinpath("sandbox.lua").read_text()
_PLACE = re.compile(r'\[string "script"\]:(\d+): ([^\n]*)')


class ScriptError(Exception):
    """A script failed, or did not return a table with a known status; `line` is 0 where it is unknown."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class ScriptHealth(NamedTuple):
    """The result of a script: one of `STATUSES`, and its message."""

    status: str
    message: str


class HealthScripts:
    """A sandbox for health scripts; one run leaves nothing behind for the next."""

    def __init__(self) -> None:
        self._lua = lupa.LuaRuntime(
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_refuse_attributes,
            max_memory=MEMORY,
        )
        self._evaluate = self._lua.execute(_SANDBOX)

    def run(self, script: str, obj: Any) -> ScriptHealth:
        """The health of a Kubernetes object according to a script.

        Raises:
            ScriptError: the script is broken, does not end, or returns something else.
        """
        try:
            result = self._evaluate(script, self._table(obj), INSTRUCTIONS)
        except (lupa.LuaError, MemoryError) as error:
            place = _PLACE.search(str(error))
            raise ScriptError(place[2] if place else str(error), int(place[1]) if place else 0) from error
        if lupa.lua_type(result) != "table" or result["status"] not in STATUSES:
            raise ScriptError("expect table output from Lua script, not " + str(lupa.lua_type(result) or result))
        return ScriptHealth(str(result["status"]), str(result["message"] or ""))

    def _table(self, value: Any) -> Any:
        """JSON as Lua tables; null is nil, lists count from one."""
        if isinstance(value, dict):
            return self._lua.table_from({key: self._table(item) for key, item in value.items() if item is not None})
        if isinstance(value, list):
            return self._lua.table_from([self._table(item) for item in value])
        return value


def _refuse_attributes(_obj: Any, _name: Any, _setting: bool) -> Any:
    """No attribute of a Python object is accessible from Lua."""
    raise AttributeError("not accessible")
