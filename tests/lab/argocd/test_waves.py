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


def children(lab, broken=False):
    """Three children in the waves -1, 0 and 1; the first waits for a Deployment, or cannot be synced."""
    for name, wave in (("first", -1), ("second", 0), ("third", 1)):
        child = lab.application(
            name, f"apps/{name}", namespace=name, create=False, metadata={"annotations": {WAVE: str(wave)}}
        )
        lab.write({f"root/{name}.yaml": child, f"apps/{name}/web.yaml": lab.workload("Deployment", name)})
    if broken:
        lab.write(
            {"apps/first/broken.yaml": {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "x"}}}
        )


async def start(lab, lua, broken=False):
    await lab.git.start()  # the children name the host's address
    children(lab, broken)
    await lab.up(lua=lua)
    lab.application("root", "root", namespace="argocd", options=["ServerSideApply=true"])


def test_with_the_strict_lua_a_wave_waits_for_the_one_before(in_lab):
    async def test(lab):
        lab.held.add("first")
        await start(lab, lab.lua)
        message = "waiting for healthy state of argoproj.io/Application/first"
        await lab.until(lambda: lab.status("root").get("operationState", {}).get("message") == message)
        await lab.until(lambda: lab.state("first") == ("Synced", "Progressing", "Succeeded"))
        await lab.clock.sleep(120)
        assert lab.app("second") == {}
        assert lab.state("root")[1:] == ("Progressing", "Running")
        lab.release("Deployment", "first", "first")
        await lab.well("first", "second", "third", "root")
        begun = {name: moment for moment, name, _ in reversed(lab.argocd.timeline)}
        assert begun["first"] < begun["second"] < begun["third"]

    in_lab(test)


def test_without_lua_waves_do_not_wait(in_lab):
    async def test(lab):
        lab.held.add("first")
        await start(lab, None)
        await lab.well("second", "third", "root")
        assert lab.state("first") == ("Synced", "Progressing", "Succeeded")

    in_lab(test)


def test_lua_that_comes_later_takes_effect_without_a_restart(in_lab):
    async def test(lab):
        lab.held.add("first")
        await start(lab, lab.lua)
        await lab.until(lambda: lab.state("first") == ("Synced", "Progressing", "Succeeded"))
        key = "resource.customizations.health.argoproj.io_Application"
        lab.store.patch("v1", "ConfigMap", "argocd-cm", "argocd", body={"data": {key: None}})
        await lab.well("second", "third", "root")

    in_lab(test)


def test_the_documented_lua_continues_after_a_failed_child(in_lab):
    async def test(lab):
        await start(lab, DOCUMENTED, broken=True)
        await lab.well("second", "third", "root")
        assert lab.state("first")[2] == "Failed"

    in_lab(test)


def test_the_strict_lua_waits_at_a_failed_child_until_it_is_fixed(in_lab):
    async def test(lab):
        await start(lab, lab.lua, broken=True)
        await lab.until(lambda: lab.state("first")[2] == "Failed")
        await lab.clock.sleep(120)
        assert lab.app("second") == {}
        assert lab.state("root")[2] == "Running"
        lab.push({"apps/first/broken.yaml": None})
        lab.refresh("first")
        await lab.well("first", "second", "third", "root")

    in_lab(test)


def test_terminating_the_operation_releases_a_waiting_root(in_lab):
    async def test(lab):
        await start(lab, lab.lua, broken=True)
        await lab.until(lambda: lab.state("first")[2] == "Failed")
        lab.store.delete(lab.api, "Application", "root", "argocd")
        lab.application("other", "apps/third", namespace="other")
        await lab.well("other")
        body = {"status": {"operationState": {"phase": "Terminating"}}}
        if lab.app("root"):
            lab.store.patch(lab.api, "Application", "root", "argocd", body=body)
        await lab.until(lambda: not lab.app("root"))

    in_lab(test)


def test_inside_an_application_a_wave_waits_for_health_too(in_lab):
    async def test(lab):
        late = lab.config_map("late")
        late["metadata"]["annotations"] = {WAVE: "1"}
        lab.write({"base/all.yaml": [late, lab.workload("Deployment", "slow")]})
        lab.held.add("slow")
        await lab.up()
        lab.application("base", "base", namespace="base")
        message = "waiting for healthy state of apps/Deployment/slow"
        await lab.until(lambda: lab.status("base").get("operationState", {}).get("message") == message)
        assert lab.store.find("v1", "ConfigMap", "late", "base") is None
        lab.release("Deployment", "slow", "base")
        await lab.well("base")

    in_lab(test)


def test_a_new_commit_waits_until_the_running_operation_has_ended(in_lab):
    async def test(lab):
        lab.held.add("first")
        await start(lab, lab.lua)
        await lab.until(lambda: lab.state("first") == ("Synced", "Progressing", "Succeeded"))
        old = lab.status("root")["operationState"]["syncResult"]["revision"]
        new = lab.push({"root/more.yaml": lab.config_map("more")})
        lab.refresh("root")
        await lab.until(lambda: lab.status("root")["sync"]["revision"] == new)
        assert lab.status("root")["operationState"]["syncResult"]["revision"] == old
        assert lab.store.find("v1", "ConfigMap", "more", "argocd") is None
        lab.release("Deployment", "first", "first")
        await lab.until(lambda: lab.status("root")["operationState"]["syncResult"]["revision"] == new)
        await lab.well("root")

    in_lab(test)
