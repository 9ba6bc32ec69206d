"""The health checks that Argo CD runs: a script that fails, or that is content too soon, lets every wave go by."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.application import Application
    from fluobook.gitops.look import Finding, Look

_CM = ("spec", "source", "helm", "valuesObject", "configs", "cm")
_HEALTH = "resource.customizations.health."
_WHERE = re.compile(r'\[string "script"\]:(\d+): ([^\n]*)')
_ANSWERS = {"Progressing", "Degraded", "Suspended", "Missing", "Unknown"}
_STEPS = 1_000_000
_MEMORY = 16 << 20

# The script is the tree's, which may be a stranger's: it reaches nothing, and it ends. Argo CD gives it hardly any
# library: one that uses `string` or `math` does not run there.
_HOST = """
local sethook, load, pcall, tostring, type = debug.sethook, load, pcall, tostring, type
local safe = {pairs = pairs, ipairs = ipairs, type = type, tostring = tostring, tonumber = tonumber, next = next,
  select = select, error = error, assert = assert, table = table}
local clock = {time = os.time, date = os.date}
function safe.require(name)
  if name == "os" then return clock end
  error("module " .. tostring(name) .. " not found", 2)
end
debug.getmetatable("").__index = nil
return function(script, steps)
  local env = setmetatable({obj = {metadata = {name = "new"}, spec = {}}}, {__index = safe})
  local check, problem = load(script, "script", "t", env)
  if not check then error(problem, 0) end
  sethook(function() error("it does not end", 0) end, "", steps)
  local ok, told = pcall(check)
  sethook()
  if not ok then error(told, 0) end
  return type(told) == "table" and tostring(told.status) or "no table"
end
"""


def scripts_run_and_wait(look: Look) -> Iterator[Finding]:
    """Each health script of Argo CD runs, and calls no object healthy that has no status yet."""
    for one in look.tree.applications:
        configuration = (one.values.get("configs") or {}).get("cm") if one.chart == "argo-cd" else None
        for key, script in (configuration or {}).items():
            if key.startswith(_HEALTH) and isinstance(script, str):
                yield from _judged(look, one, key, script)


def _judged(look: Look, one: Application, key: str, script: str) -> Iterator[Finding]:
    answer, problem, line = _answer(script)
    message = f"the health script of {key.removeprefix(_HEALTH)}"
    place = look.in_file(one.file, one.document.line(*_CM, key) + line)
    if problem:
        yield place.finding("health", f"{message} does not run: {problem}", "correct it")
    elif answer not in _ANSWERS:
        told = f"{message} answers {answer} for an object without a status"
        yield place.finding("health", told, "let it begin with Progressing")


def _answer(script: str) -> tuple[str, str, int]:
    """What a script answers of an object without a status; or what keeps it from answering, and on which line."""
    import lupa  # noqa: PLC0415 (one rule needs it)

    lua = lupa.LuaRuntime(register_eval=False, register_builtins=False, max_memory=_MEMORY)
    try:
        return str(lua.execute(_HOST)(script, _STEPS)), "", 0
    except (lupa.LuaError, MemoryError) as error:
        found = _WHERE.search(str(error))
        return "", found[2] if found else str(error), int(found[1]) if found else 0
