"""Deleting an Application: hooks before and after it, what is deleted with it, and what stays."""

from datetime import UTC, datetime

import pytest
from fluobook_lab.argocd.objects import APPROVED, TRACKING

pytestmark = pytest.mark.lab
CASCADE = "resources-finalizer.argocd.argoproj.io"
BEFORE, AFTER = (f"{phase}-delete-finalizer.argocd.argoproj.io" for phase in ("pre", "post"))


def job(name, hook="", **annotations):
    annotations |= {"helm.sh/hook": hook} if hook else {}
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}
    metadata = {"name": name, "annotations": annotations}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": pod}}}


def finish(lab, name, condition="Complete"):
    live = lab.store.get("batch/v1", "Job", name, "base")
    lab.store.set_status(live, {"conditions": [{"type": condition, "status": "True", "message": "so it is"}]})


def find(lab, kind, name):
    return lab.store.find("batch/v1" if kind == "Job" else "v1", kind, name, "base")


def finalizers(lab, name="base"):
    return lab.app(name).get("metadata", {}).get("finalizers", [])


async def deployed(lab, *objects, finalizers=(), **options):
    lab.write({"base/all.yaml": [lab.config_map("settings", a="1"), *objects]})
    await lab.up()
    metadata = {"finalizers": list(finalizers)} if finalizers else {}
    lab.application("base", "base", namespace="base", metadata=metadata, **options)
    await lab.well("base")


@pytest.mark.parametrize("cascade", [CASCADE, f"{CASCADE}/background", ""])
def test_a_hook_before_the_deletion_that_fails_blocks_it_and_nothing_is_deleted(in_lab, cascade):
    async def test(lab):
        await deployed(lab, job("uninstall", "pre-delete"), finalizers=filter(None, [cascade]))
        assert finalizers(lab) == [*filter(None, [cascade]), BEFORE, f"{BEFORE}/cleanup"]
        lab.store.delete(lab.api, "Application", "base", "argocd")
        await lab.until(lambda: find(lab, "Job", "uninstall"))
        first = find(lab, "Job", "uninstall")["metadata"]["uid"]
        finish(lab, "uninstall", "Failed")
        problem = "error executing pre-delete hooks: PreDelete hook(s) failed: base/uninstall"
        conditions = lambda: lab.status("base").get("conditions", [])  # noqa: E731
        await lab.until(lambda: [(c["type"], c["message"]) for c in conditions()] == [("DeletionError", problem)])
        assert find(lab, "ConfigMap", "settings")
        again = await lab.until(lambda: find(lab, "Job", "uninstall"))
        assert again["metadata"]["uid"] != first
        finish(lab, "uninstall")
        await lab.until(lambda: not lab.app("base"))
        assert bool(find(lab, "ConfigMap", "settings")) == (not cascade)
        assert find(lab, "Job", "uninstall") is None

    in_lab(test)


def test_a_hook_after_the_deletion_runs_when_the_objects_are_gone(in_lab):
    async def test(lab):
        await deployed(lab, job("after", "post-delete"), finalizers=[CASCADE])
        lab.store.delete(lab.api, "Application", "base", "argocd")
        await lab.until(lambda: find(lab, "Job", "after"))
        assert find(lab, "ConfigMap", "settings") is None
        assert finalizers(lab) == [AFTER, f"{AFTER}/cleanup"]
        finish(lab, "after")
        await lab.until(lambda: not lab.app("base"))
        assert find(lab, "Job", "after") is None

    in_lab(test)


def test_the_finalizers_go_with_the_hooks_and_are_no_difference_of_a_root(in_lab):
    async def test(lab):
        lab.write({"base/all.yaml": [lab.config_map("settings", a="1"), job("uninstall", "pre-delete")]})
        await lab.up()
        child = lab.application("base", "base", create=False, namespace="base", metadata={"finalizers": [CASCADE]})
        lab.push({"apps/base.yaml": child})
        lab.application("root", "apps", namespace="argocd")
        await lab.well("base", "root")
        assert set(finalizers(lab)) == {CASCADE, BEFORE, f"{BEFORE}/cleanup"}
        lab.refresh("root", "hard")
        await lab.until(lambda: "refresh" not in str(lab.app("root")["metadata"].get("annotations")))
        await lab.well("root")
        lab.push({"base/all.yaml": lab.config_map("settings", a="2")})
        lab.refresh("base")
        await lab.until(lambda: finalizers(lab) == [CASCADE])
        await lab.well("root")

    in_lab(test)


@pytest.mark.parametrize(
    ("options", "annotation", "left"),
    [
        ((), "", False),
        (("Delete=false",), "", True),
        ((), "Delete=false", True),
        (("Delete=false",), "Delete=true", False),
    ],
)
def test_an_option_of_the_application_or_of_the_object_keeps_what_it_deployed(in_lab, options, annotation, left):
    async def test(lab):
        kept = lab.config_map("kept")
        kept["metadata"]["annotations"] = {"argocd.argoproj.io/sync-options": annotation} if annotation else {}
        every = ["ServerSideApply=true", "CreateNamespace=true", *options]
        await deployed(lab, kept, finalizers=[CASCADE], options=every)
        lab.store.delete(lab.api, "Application", "base", "argocd")
        await lab.until(lambda: not lab.app("base"))
        assert bool(find(lab, "ConfigMap", "kept")) is left

    in_lab(test)


def approve(lab):
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lab.store.patch(lab.api, "Application", "base", "argocd", body={"metadata": {"annotations": {APPROVED: now}}})


def test_nothing_is_deleted_before_a_person_approves_where_an_object_asks_for_it(in_lab):
    async def test(lab):
        asking = lab.config_map("asking")
        asking["metadata"]["annotations"] = {"argocd.argoproj.io/sync-options": "Delete=confirm"}
        await deployed(lab, asking, job("uninstall", "pre-delete"), finalizers=[CASCADE])
        lab.store.delete(lab.api, "Application", "base", "argocd")
        await lab.until(lambda: find(lab, "Job", "uninstall"))
        finish(lab, "uninstall")
        await lab.until(lambda: finalizers(lab) == [CASCADE, f"{BEFORE}/cleanup"])
        assert find(lab, "ConfigMap", "asking")
        assert find(lab, "ConfigMap", "settings")
        approve(lab)
        await lab.until(lambda: not lab.app("base"))
        assert find(lab, "ConfigMap", "asking") is None

    in_lab(test)


def test_a_sync_waits_until_a_person_approves_where_an_object_asks_for_it(in_lab):
    async def test(lab):
        asking = lab.config_map("asking")
        asking["metadata"]["annotations"] = {"argocd.argoproj.io/sync-options": "Prune=confirm"}
        await deployed(lab, asking)
        lab.push({"base/all.yaml": lab.config_map("settings", a="1")})
        lab.refresh("base")
        message = "waiting for pruning confirmation of ConfigMap/asking"
        await lab.until(lambda: lab.status("base")["operationState"].get("message") == message)
        assert find(lab, "ConfigMap", "asking")
        approve(lab)
        await lab.well("base")
        assert find(lab, "ConfigMap", "asking") is None

    in_lab(test)


def test_kinds_and_what_helm_keeps_outlive_the_application(in_lab):
    async def test(lab):
        kept = lab.config_map("kept")
        kept["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
        await deployed(lab, kept, lab.crd("example.org", "Widget", "widgets"), finalizers=[CASCADE])
        lab.store.delete(lab.api, "Application", "base", "argocd")
        await lab.until(lambda: not lab.app("base"))
        assert find(lab, "ConfigMap", "settings") is None
        assert find(lab, "ConfigMap", "kept")
        assert lab.store.find("apiextensions.k8s.io/v1", "CustomResourceDefinition", "widgets.example.org")

    in_lab(test)


@pytest.mark.parametrize(("compare", "sync"), [("IgnoreExtraneous", "Synced"), ("", "OutOfSync")])
def test_the_job_of_the_last_version_is_no_difference_where_its_chart_says_so(in_lab, compare, sync):
    async def test(lab):
        options = {"argocd.argoproj.io/compare-options": compare} if compare else {}
        await lab_with_job(lab, options)
        lab.push({"base/all.yaml": [lab.config_map("settings", a="2"), job("certs-2", **options)]})
        lab.refresh("base")
        await lab.until(lambda: find(lab, "Job", "certs-2"))
        finish(lab, "certs-2")
        await lab.until(lambda: lab.state("base") == (sync, "Healthy", "Succeeded"))
        assert find(lab, "Job", "certs-1")

    async def lab_with_job(lab, options):
        lab.write({"base/all.yaml": [lab.config_map("settings", a="1"), job("certs-1", **options)]})
        await lab.up()
        lab.application("base", "base", namespace="base", automated={"prune": False, "selfHeal": True})
        await lab.until(lambda: find(lab, "Job", "certs-1"))
        finish(lab, "certs-1")
        await lab.well("base")

    in_lab(test)


def test_a_failed_hook_that_is_left_is_no_difference_and_no_part_of_the_health(in_lab):
    async def test(lab):
        await deployed(lab, automated={"prune": False, "selfHeal": True})
        left = job("uninstall", "pre-delete", **{TRACKING: "base:batch/Job:base/uninstall"})
        left["metadata"]["namespace"] = "base"
        lab.store.create(left)
        finish(lab, "uninstall", "Failed")
        lab.push({"base/all.yaml": [lab.config_map("settings", a="2")]})
        before = lab.status("base")["sync"]["revision"]
        lab.refresh("base")
        well = ("Synced", "Healthy", "Succeeded")
        await lab.until(lambda: lab.status("base")["sync"]["revision"] != before and lab.state("base") == well)

    in_lab(test)
