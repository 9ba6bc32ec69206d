"""Sync waves across Applications: whether the next one waits depends on a Lua script in argocd-cm."""

import pytest

pytestmark = pytest.mark.lab

DOCUMENTED = """
hs = {}
hs.status = "Progressing"
hs.message = ""
if obj.status ~= nil and obj.status.health ~= nil then
  hs.status = obj.status.health.status
  if obj.status.health.message ~= nil then hs.message = obj.status.health.message end
end
return hs
"""
WAVE = "argocd.argoproj.io/sync-wave"


def children(w, broken=False):
    """Three children in the waves -1, 0 and 1; the first waits for a Deployment, or cannot be synced."""
    for name, wave in (("first", -1), ("second", 0), ("third", 1)):
        child = w.application(
            name, f"apps/{name}", namespace=name, create=False, metadata={"annotations": {WAVE: str(wave)}}
        )
        w.write({f"root/{name}.yaml": child, f"apps/{name}/web.yaml": w.workload("Deployment", name)})
    if broken:
        w.write(
            {"apps/first/broken.yaml": {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "x"}}}
        )


async def start(w, lua, broken=False):
    await w.git.start()  # the children name the host's address
    children(w, broken)
    await w.up(lua=lua)
    w.application("root", "root", namespace="argocd", options=["ServerSideApply=true"])


def test_with_the_strict_lua_a_wave_waits_for_the_one_before(world):
    async def test(w):
        w.held.add("first")
        await start(w, w.lua)
        message = "waiting for healthy state of argoproj.io/Application/first"
        await w.until(lambda: w.status("root").get("operationState", {}).get("message") == message)
        await w.until(lambda: w.state("first") == ("Synced", "Progressing", "Succeeded"))
        await w.clock.sleep(120)
        assert w.app("second") == {}
        assert w.state("root")[1:] == ("Progressing", "Running")
        w.release("Deployment", "first", "first")
        await w.well("first", "second", "third", "root")
        begun = {name: moment for moment, name, _ in reversed(w.argocd.timeline)}
        assert begun["first"] < begun["second"] < begun["third"]

    world(test)


def test_without_lua_waves_do_not_wait(world):
    async def test(w):
        w.held.add("first")
        await start(w, None)
        await w.well("second", "third", "root")
        assert w.state("first") == ("Synced", "Progressing", "Succeeded")

    world(test)


def test_lua_that_comes_later_takes_effect_without_a_restart(world):
    async def test(w):
        w.held.add("first")
        await start(w, w.lua)
        await w.until(lambda: w.state("first") == ("Synced", "Progressing", "Succeeded"))
        key = "resource.customizations.health.argoproj.io_Application"
        w.store.patch("v1", "ConfigMap", "argocd-cm", "argocd", body={"data": {key: None}})
        await w.well("second", "third", "root")

    world(test)


def test_the_documented_lua_lets_a_failed_child_through(world):
    async def test(w):
        await start(w, DOCUMENTED, broken=True)
        await w.well("second", "third", "root")
        assert w.state("first")[2] == "Failed"

    world(test)


def test_the_strict_lua_holds_at_a_failed_child_until_it_is_fixed(world):
    async def test(w):
        await start(w, w.lua, broken=True)
        await w.until(lambda: w.state("first")[2] == "Failed")
        await w.clock.sleep(120)
        assert w.app("second") == {}
        assert w.state("root")[2] == "Running"
        w.push({"apps/first/broken.yaml": None})
        w.refresh("first")
        await w.well("first", "second", "third", "root")

    world(test)


def test_terminating_the_operation_releases_a_waiting_root(world):
    async def test(w):
        await start(w, w.lua, broken=True)
        await w.until(lambda: w.state("first")[2] == "Failed")
        w.store.delete(w.api, "Application", "root", "argocd")
        w.application("other", "apps/third", namespace="other")
        await w.well("other")
        body = {"status": {"operationState": {"phase": "Terminating"}}}
        if w.app("root"):
            w.store.patch(w.api, "Application", "root", "argocd", body=body)
        await w.until(lambda: not w.app("root"))

    world(test)


def test_inside_an_application_a_wave_waits_for_health_too(world):
    async def test(w):
        late = w.config_map("late")
        late["metadata"]["annotations"] = {WAVE: "1"}
        w.write({"base/all.yaml": [late, w.workload("Deployment", "slow")]})
        w.held.add("slow")
        await w.up()
        w.application("base", "base", namespace="base")
        message = "waiting for healthy state of apps/Deployment/slow"
        await w.until(lambda: w.status("base").get("operationState", {}).get("message") == message)
        assert w.store.find("v1", "ConfigMap", "late", "base") is None
        w.release("Deployment", "slow", "base")
        await w.well("base")

    world(test)


def test_a_new_commit_waits_until_the_operation_under_way_has_ended(world):
    async def test(w):
        w.held.add("first")
        await start(w, w.lua)
        await w.until(lambda: w.state("first") == ("Synced", "Progressing", "Succeeded"))
        old = w.status("root")["operationState"]["syncResult"]["revision"]
        new = w.push({"root/more.yaml": w.config_map("more")})
        w.refresh("root")
        await w.until(lambda: w.status("root")["sync"]["revision"] == new)
        assert w.status("root")["operationState"]["syncResult"]["revision"] == old
        assert w.store.find("v1", "ConfigMap", "more", "argocd") is None
        w.release("Deployment", "first", "first")
        await w.until(lambda: w.status("root")["operationState"]["syncResult"]["revision"] == new)
        await w.well("root")

    world(test)
