"""Runs the Lua health checks of argocd-cm, shut in: no files, no modules, no Python, and an end to loops.

Argo CD runs them in gopher-lua with hardly any library: no `string`, no `math`, and of `os` only the time, for whoever
requires it. It is the same here, so a check that works here works there.
"""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

import lupa

from fluobook_lab.argocd.health.verdict import ORDER, Health

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook_lab.kube.objects import Obj

INSTRUCTIONS = 5_000_000
"""After so many, a check is taken to hang."""

MEMORY = 64 << 20

HOST = """
local sethook, load, pcall, setmetatable = debug.sethook, load, pcall, setmetatable
local safe = {
  pairs = pairs, ipairs = ipairs, type = type, tostring = tostring, tonumber = tonumber, error = error, next = next,
  select = select, unpack = table.unpack, assert = assert, table = table,
}
local clock = {time = os.time, date = os.date}
function safe.require(name)
  if name == "os" then return clock end
  error("module " .. tostring(name) .. " not found", 2)
end
debug.getmetatable("").__index = nil
function judge(script, obj, limit)
  local env = setmetatable({obj = obj}, {__index = safe})
  local check, problem = load(script, "health.lua", "t", env)
  if not check then error(problem, 0) end
  sethook(function() error("context deadline exceeded", 0) end, "", limit)
  local ok, told = pcall(check)
  sethook()
  if not ok then error(told, 0) end
  return told
end
local gone = {"python", "require", "package", "io", "dofile", "loadfile", "load", "debug", "os"}
for _, name in ipairs(gone) do _G[name] = nil end
return judge
"""


class LuaCheckError(Exception):
    """A check did not run, or did not answer as it should."""


class LuaHealth:
    """The checks of one reading of argocd-cm.

    Args:
        scripts: by "group_Kind", or "Kind" in the core group; the group may hold `*`.
    """

    def __init__(self, scripts: Mapping[str, str]) -> None:
        self._scripts = dict(scripts)
        self._lua = lupa.LuaRuntime(
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_nothing,
            max_memory=MEMORY,
        )
        self._judge = self._lua.execute(HOST)

    def health(self, group: str, kind: str, obj: Obj) -> Health | None:
        """What the check of this kind says of an object; None if there is no check.

        Raises:
            LuaCheckError: the check is broken.
        """
        script = self._script(f"{group}_{kind}" if group else kind)
        if not script:
            return None
        try:
            told = self._judge(script, self._table(obj), INSTRUCTIONS)
        except (lupa.LuaError, MemoryError) as error:
            raise LuaCheckError(str(error)) from error
        if lupa.lua_type(told) != "table" or told["status"] not in ORDER:
            raise LuaCheckError("expect table output from Lua script, not " + str(lupa.lua_type(told) or told))
        return Health(str(told["status"]), str(told["message"] or ""))

    def _script(self, name: str) -> str:
        if name in self._scripts:
            return self._scripts[name]
        wild = (
            script for pattern, script in self._scripts.items() if "*" in pattern and fnmatch.fnmatchcase(name, pattern)
        )
        return next(wild, "")

    def _table(self, value: Any) -> Any:
        """JSON as Lua tables; null is nil, lists count from one."""
        if isinstance(value, dict):
            return self._lua.table_from({key: self._table(item) for key, item in value.items() if item is not None})
        if isinstance(value, list):
            return self._lua.table_from([self._table(item) for item in value])
        return value


def _nothing(_obj: Any, _name: Any, _setting: bool) -> Any:
    """No attribute of a Python object can be reached from Lua."""
    raise AttributeError("not here")
