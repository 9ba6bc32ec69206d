-- Evaluates a health script with the little that Argo CD's Lua offers.
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
local function evaluate(script, obj, limit)
  local env = setmetatable({obj = obj}, {__index = safe})
  local check, problem = load(script, "script", "t", env)
  if not check then error(problem, 0) end
  sethook(function() error("context deadline exceeded", 0) end, "", limit)
  local ok, result = pcall(check)
  sethook()
  if not ok then error(result, 0) end
  return result
end
local removed = {"python", "require", "package", "io", "dofile", "loadfile", "load", "debug", "os"}
for _, name in ipairs(removed) do _G[name] = nil end
return evaluate
