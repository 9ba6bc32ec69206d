"""What an operator sees of one Application: it is rendered, applied, compared, healed, pruned and deleted."""

import base64

import pytest

pytestmark = pytest.mark.lab
PATH = "base"


def kustomization(*resources):
    return {"resources": list(resources)}


def base(w, **data):
    w.write(
        {
            "base/kustomization.yaml": kustomization("web.yaml", "settings.yaml"),
            "base/web.yaml": w.workload("Deployment", "web"),
            "base/settings.yaml": w.config_map("settings", **(data or {"a": "1"})),
        }
    )


def test_an_application_becomes_synced_and_healthy(world):
    async def test(w):
        base(w)
        w.held.add("web")
        await w.up()
        w.application("base", PATH, namespace="base")
        await w.until(lambda: w.state("base") == ("Synced", "Progressing", "Succeeded"))
        w.release("Deployment", "web", "base")
        await w.well("base")
        status = w.status("base")
        assert status["sync"]["revision"] == w.git.head("infra")
        assert status["operationState"]["message"] == "successfully synced (all tasks run)"
        assert status["operationState"]["syncResult"]["revision"] == w.git.head("infra")
        assert status["history"][0]["initiatedBy"] == {"automated": True}
        assert status["sourceType"] == "Kustomize"
        assert [(one["kind"], one["name"], one["status"]) for one in status["resources"]] == [
            ("ConfigMap", "settings", "Synced"),
            ("Deployment", "web", "Synced"),
        ]
        assert "health" not in status["resources"][1]
        live = w.store.get("apps/v1", "Deployment", "web", "base")
        assert live["metadata"]["annotations"]["argocd.argoproj.io/tracking-id"] == "base:apps/Deployment:base/web"

    world(test)


def test_nothing_happens_until_argo_cds_own_workloads_are_ready(world):
    async def test(w):
        base(w)
        await w.up(ready=False)
        w.application("base", PATH, namespace="base")
        w.release("Deployment", "argocd-server", "argocd")
        w.release("StatefulSet", "argocd-application-controller", "argocd")
        await w.clock.sleep(60)
        assert w.status("base") == {}
        w.release("Deployment", "argocd-repo-server", "argocd")
        await w.well("base")

    world(test)


def test_a_push_is_taken_at_a_refresh_and_the_annotation_goes(world):
    async def test(w):
        base(w)
        await w.up(**{"timeout.reconciliation": "9h"})
        w.application("base", PATH, namespace="base")
        await w.well("base")
        sha = w.push({"base/settings.yaml": w.config_map("settings", a="2")})
        w.refresh("base")
        await w.until(lambda: w.status("base")["sync"].get("revision") == sha and w.state("base")[2] == "Succeeded")
        await w.well("base")
        assert w.store.get("v1", "ConfigMap", "settings", "base")["data"] == {"a": "2"}
        assert "argocd.argoproj.io/refresh" not in (w.app("base")["metadata"].get("annotations") or {})
        assert [entry["id"] for entry in w.status("base")["history"]] == [0, 1]

    world(test)


def test_a_push_is_found_by_polling_too(world):
    async def test(w):
        base(w)
        await w.up(**{"timeout.reconciliation": "60s"})
        w.application("base", PATH, namespace="base")
        await w.well("base")
        sha = w.push({"base/settings.yaml": w.config_map("settings", a="2")})
        await w.until(lambda: w.status("base")["operationState"]["syncResult"]["revision"] == sha)

    world(test)


def test_what_leaves_the_repository_is_pruned_unless_it_says_no(world):
    async def test(w):
        base(w)
        kept = w.config_map("kept")
        kept["metadata"]["annotations"] = {"argocd.argoproj.io/sync-options": "Prune=false"}
        w.write(
            {"base/kept.yaml": kept, "base/kustomization.yaml": kustomization("web.yaml", "settings.yaml", "kept.yaml")}
        )
        await w.up()
        w.application("base", PATH, namespace="base")
        await w.well("base")
        w.push({"base/kustomization.yaml": kustomization("web.yaml")})
        w.refresh("base")
        await w.until(lambda: w.store.find("v1", "ConfigMap", "settings", "base") is None)
        left = lambda: [one for one in w.status("base")["resources"] if one["status"] == "OutOfSync"]  # noqa: E731
        await w.until(lambda: [one["name"] for one in left()] == ["kept"])
        assert left()[0]["requiresPruning"] is True
        assert w.store.find("v1", "ConfigMap", "kept", "base")

    world(test)


def test_without_prune_an_extra_object_only_shows(world):
    async def test(w):
        base(w)
        await w.up()
        w.application("base", PATH, namespace="base", automated={"prune": False, "selfHeal": True})
        await w.well("base")
        w.push({"base/kustomization.yaml": kustomization("web.yaml")})
        w.refresh("base")
        await w.until(lambda: w.state("base")[0] == "OutOfSync")
        assert w.store.find("v1", "ConfigMap", "settings", "base")

    world(test)


def test_a_change_by_hand_is_healed_only_with_self_heal(world):
    async def test(w):
        base(w)
        await w.up()
        w.application("healing", PATH, namespace="healing")
        w.application("watching", PATH, namespace="watching", automated={"prune": True})
        await w.well("healing", "watching")
        for space in ("healing", "watching"):
            w.store.patch("v1", "ConfigMap", "settings", space, body={"data": {"a": "by hand"}})
        await w.until(lambda: w.store.get("v1", "ConfigMap", "settings", "healing")["data"] == {"a": "1"})
        await w.until(lambda: w.state("watching")[0] == "OutOfSync")
        assert w.store.get("v1", "ConfigMap", "settings", "watching")["data"] == {"a": "by hand"}

    world(test)


def test_differences_to_be_ignored_are_ignored_and_respected(world):
    async def test(w):
        base(w)
        await w.up()
        rule = [{"group": "", "kind": "ConfigMap", "name": "settings", "jsonPointers": ["/data/a"]}]
        options = ["ServerSideApply=true", "CreateNamespace=true", "RespectIgnoreDifferences=true"]
        w.application("base", PATH, namespace="base", ignoreDifferences=rule, options=options)
        await w.well("base")
        w.store.patch("v1", "ConfigMap", "settings", "base", body={"data": {"a": "by hand"}})
        sha = w.push({"base/settings.yaml": w.config_map("settings", a="2", b="new")})
        w.refresh("base")
        await w.until(lambda: w.status("base")["operationState"]["syncResult"]["revision"] == sha)
        await w.well("base")
        assert w.store.get("v1", "ConfigMap", "settings", "base")["data"] == {"a": "by hand", "b": "new"}

    world(test)


def test_hooks_run_in_their_phases_and_tests_of_helm_do_not(world):
    async def test(w):
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "before", "annotations": {"argocd.argoproj.io/hook": "PreSync"}},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}}},
        }
        trial = {**job, "metadata": {"name": "trial", "annotations": {"helm.sh/hook": "test"}}}
        base(w)
        w.write(
            {"base/jobs.yaml": [job, trial], "base/kustomization.yaml": kustomization("settings.yaml", "jobs.yaml")}
        )
        await w.up(**{"timeout.reconciliation": "9h"})
        w.application("base", PATH, namespace="base")
        waiting = "waiting for completion of hook batch/Job/before"
        await w.until(lambda: w.status("base").get("operationState", {}).get("message") == waiting)
        assert w.store.find("v1", "ConfigMap", "settings", "base") is None
        await w.clock.sleep(30)  # past the pause between waves, which would make it look again anyway
        live = w.store.get("batch/v1", "Job", "before", "base")
        w.store.set_status(live, {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1})
        await w.well("base")
        assert w.store.find("batch/v1", "Job", "trial", "base") is None
        assert [one["kind"] for one in w.status("base")["resources"]] == ["ConfigMap"]

    world(test)


def test_a_kind_without_its_crd_is_refused_before_anything_is_applied(world):
    async def test(w):
        base(w)
        widget = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "one"}}
        w.write({"base/widget.yaml": widget, "base/kustomization.yaml": kustomization("settings.yaml", "widget.yaml")})
        await w.up()
        w.application("base", PATH, namespace="base")
        await w.until(lambda: w.state("base")[2] == "Failed")
        message = w.status("base")["operationState"]["message"]
        assert message.startswith("one or more synchronization tasks are not valid")
        assert 'Make sure the "Widget" CRD is installed on the destination cluster.' in message
        assert w.store.find("v1", "ConfigMap", "settings", "base") is None
        kinds = {one["type"] for one in w.status("base").get("conditions", ())}
        await w.until(
            lambda: "SyncError" in {one["type"] for one in w.status("base").get("conditions", ())}, str(kinds)
        )

    world(test)


def test_a_crd_and_its_objects_come_in_one_sync(world):
    async def test(w):
        widget = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "one"}}
        w.write({"base/all.yaml": [widget, w.crd("example.org", "Widget", "widgets")]})
        await w.up()
        w.application("base", PATH, namespace="base")
        await w.well("base")
        assert w.status("base")["sourceType"] == "Directory"
        assert w.store.get("example.org/v1", "Widget", "one", "base")

    world(test)


def test_a_refused_object_is_tried_again_as_the_retry_says(world):
    async def test(w):
        base(w)
        await w.up()
        w.faults.add("argocd.webhook-refuses-once", 2)
        retry = {"limit": 3, "backoff": {"duration": "5s", "factor": 2, "maxDuration": "1m"}}
        w.application("base", PATH, namespace="base", retry=retry)
        await w.until(lambda: "Retrying attempt #1" in w.status("base").get("operationState", {}).get("message", ""))
        await w.well("base")
        assert w.status("base")["operationState"]["retryCount"] == 1
        assert w.status("base")["operationState"]["message"].endswith("(retried 1 times).")

    world(test)


def test_a_failed_sync_is_not_repeated_on_the_same_commit(world):
    async def test(w):
        base(w)
        await w.up()
        w.faults.add("argocd.webhook-refuses-once", 2)
        w.application("base", PATH, namespace="base")
        await w.until(lambda: w.state("base")[2] == "Failed")
        started = w.status("base")["operationState"]["startedAt"]
        await w.clock.sleep(300)
        assert w.state("base")[2] == "Failed"
        assert w.status("base")["operationState"]["startedAt"] == started
        w.push({"base/settings.yaml": w.config_map("settings", a="2")})
        w.refresh("base")
        await w.well("base")

    world(test)


def test_an_operation_by_hand_is_done_once_and_taken_away(world):
    async def test(w):
        base(w)
        await w.up()
        w.application("base", PATH, namespace="base", automated=None)
        await w.until(lambda: w.state("base")[0] == "OutOfSync")
        body = {"operation": {"initiatedBy": {"username": "ops"}, "sync": {"syncOptions": ["CreateNamespace=true"]}}}
        w.store.patch(w.api, "Application", "base", "argocd", body=body)
        await w.well("base")
        assert "operation" not in w.app("base")
        assert w.status("base")["history"][0]["initiatedBy"] == {"username": "ops"}
        live = w.store.get("v1", "ConfigMap", "settings", "base")
        assert "kubectl.kubernetes.io/last-applied-configuration" in live["metadata"]["annotations"]

    world(test)


def test_a_large_object_needs_server_side_apply(world):
    async def test(w):
        w.write({"base/large.yaml": w.config_map("large", a="x" * 300_000)})
        await w.up()
        w.application("client", PATH, namespace="client", options=["CreateNamespace=true"])
        w.application("server", PATH, namespace="server")
        await w.until(lambda: w.state("client")[2] == "Failed")
        assert "metadata.annotations: Too long" in w.status("client")["operationState"]["message"]
        await w.well("server")

    world(test)


def test_namespaces_are_made_with_their_labels_only_when_asked(world):
    async def test(w):
        base(w)
        await w.up()
        labels = {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}
        policy = {"automated": {}, "syncOptions": ["CreateNamespace=true"], "managedNamespaceMetadata": labels}
        w.application("made", PATH, namespace="made", syncPolicy=policy)
        w.application("missing", PATH, namespace="missing", options=["ServerSideApply=true"])
        await w.well("made")
        assert w.store.get("v1", "Namespace", "made")["metadata"]["labels"].items() >= labels["labels"].items()
        await w.until(lambda: w.state("missing")[2] == "Failed")
        assert 'namespaces "missing" not found' in w.status("missing")["operationState"]["message"]

    world(test)


def test_deleting_an_application_takes_its_objects_only_with_the_finalizer(world):
    async def test(w):
        base(w)
        await w.up()
        w.application(
            "gone", PATH, namespace="gone", metadata={"finalizers": ["resources-finalizer.argocd.argoproj.io"]}
        )
        w.application("left", PATH, namespace="left")
        await w.well("gone", "left")
        for name in ("gone", "left"):
            w.store.delete(w.api, "Application", name, "argocd")
        await w.until(lambda: not w.app("gone") and not w.app("left"))
        assert w.store.find("v1", "ConfigMap", "settings", "gone") is None
        assert w.store.find("v1", "ConfigMap", "settings", "left")

    world(test)


def test_a_secret_with_plaintext_data_is_in_sync(world):
    async def test(w):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"word": "hunter2"}}
        w.write({"base/s.yaml": secret})
        await w.up()
        w.application("base", PATH, namespace="base")
        await w.well("base")
        assert w.store.get("v1", "Secret", "s", "base")["data"] == {"word": base64.b64encode(b"hunter2").decode()}

    world(test)


def test_argocd_server_makes_its_project_and_first_password(world):
    async def test(w):
        base(w)
        await w.up()
        assert await w.until(lambda: w.store.find(w.api, "AppProject", "default", "argocd"))
        assert await w.until(lambda: w.store.find("v1", "Secret", "argocd-initial-admin-secret", "argocd"))

    world(test)
