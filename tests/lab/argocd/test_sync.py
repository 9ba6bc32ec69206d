"""What an operator sees of one Application: it is rendered, applied, compared, healed, pruned and deleted."""

import base64

import pytest

pytestmark = pytest.mark.lab
PATH = "base"


def kustomization(*resources):
    return {"resources": list(resources)}


def base(lab, **data):
    lab.write(
        {
            "base/kustomization.yaml": kustomization("web.yaml", "settings.yaml"),
            "base/web.yaml": lab.workload("Deployment", "web"),
            "base/settings.yaml": lab.config_map("settings", **(data or {"a": "1"})),
        }
    )


def test_an_application_becomes_synced_and_healthy(in_lab):
    async def test(lab):
        base(lab)
        lab.held.add("web")
        await lab.up()
        lab.application("base", PATH, namespace="base")
        await lab.until(lambda: lab.state("base") == ("Synced", "Progressing", "Succeeded"))
        lab.release("Deployment", "web", "base")
        await lab.well("base")
        status = lab.status("base")
        assert status["sync"]["revision"] == lab.git.head("infra")
        assert status["operationState"]["message"] == "successfully synced (all tasks run)"
        assert status["operationState"]["syncResult"]["revision"] == lab.git.head("infra")
        assert status["history"][0]["initiatedBy"] == {"automated": True}
        assert status["sourceType"] == "Kustomize"
        assert [(entry["kind"], entry["name"], entry["status"]) for entry in status["resources"]] == [
            ("ConfigMap", "settings", "Synced"),
            ("Deployment", "web", "Synced"),
        ]
        assert "health" not in status["resources"][1]
        live = lab.store.get("apps/v1", "Deployment", "web", "base")
        assert live["metadata"]["annotations"]["argocd.argoproj.io/tracking-id"] == "base:apps/Deployment:base/web"

    in_lab(test)


def test_nothing_happens_until_argo_cds_own_workloads_are_ready(in_lab):
    async def test(lab):
        base(lab)
        await lab.up(ready=False)
        lab.application("base", PATH, namespace="base")
        lab.release("Deployment", "argocd-server", "argocd")
        lab.release("StatefulSet", "argocd-application-controller", "argocd")
        await lab.clock.sleep(60)
        assert lab.status("base") == {}
        lab.release("Deployment", "argocd-repo-server", "argocd")
        await lab.well("base")

    in_lab(test)


def test_a_refresh_reads_a_push_and_removes_the_annotation(in_lab):
    async def test(lab):
        base(lab)
        await lab.up(**{"timeout.reconciliation": "9h"})
        lab.application("base", PATH, namespace="base")
        await lab.well("base")
        sha = lab.push({"base/settings.yaml": lab.config_map("settings", a="2")})
        lab.refresh("base")
        await lab.until(
            lambda: lab.status("base")["sync"].get("revision") == sha and lab.state("base")[2] == "Succeeded"
        )
        await lab.well("base")
        assert lab.store.get("v1", "ConfigMap", "settings", "base")["data"] == {"a": "2"}
        assert "argocd.argoproj.io/refresh" not in (lab.app("base")["metadata"].get("annotations") or {})
        assert [entry["id"] for entry in lab.status("base")["history"]] == [0, 1]

    in_lab(test)


def test_polling_finds_a_push_too(in_lab):
    async def test(lab):
        base(lab)
        await lab.up(**{"timeout.reconciliation": "60s"})
        lab.application("base", PATH, namespace="base")
        await lab.well("base")
        sha = lab.push({"base/settings.yaml": lab.config_map("settings", a="2")})
        await lab.until(lambda: lab.status("base")["operationState"]["syncResult"]["revision"] == sha)

    in_lab(test)


def test_what_leaves_the_repository_is_pruned_unless_its_annotation_forbids_it(in_lab):
    async def test(lab):
        base(lab)
        kept = lab.config_map("kept")
        kept["metadata"]["annotations"] = {"argocd.argoproj.io/sync-options": "Prune=false"}
        lab.write(
            {"base/kept.yaml": kept, "base/kustomization.yaml": kustomization("web.yaml", "settings.yaml", "kept.yaml")}
        )
        await lab.up()
        lab.application("base", PATH, namespace="base")
        await lab.well("base")
        lab.push({"base/kustomization.yaml": kustomization("web.yaml")})
        lab.refresh("base")
        await lab.until(lambda: lab.store.find("v1", "ConfigMap", "settings", "base") is None)
        left = lambda: [entry for entry in lab.status("base")["resources"] if entry["status"] == "OutOfSync"]  # noqa: E731
        await lab.until(lambda: [entry["name"] for entry in left()] == ["kept"])
        assert left()[0]["requiresPruning"] is True
        assert lab.store.find("v1", "ConfigMap", "kept", "base")

    in_lab(test)


def test_without_prune_an_extra_object_is_only_reported(in_lab):
    async def test(lab):
        base(lab)
        await lab.up()
        lab.application("base", PATH, namespace="base", automated={"prune": False, "selfHeal": True})
        await lab.well("base")
        lab.push({"base/kustomization.yaml": kustomization("web.yaml")})
        lab.refresh("base")
        await lab.until(lambda: lab.state("base")[0] == "OutOfSync")
        assert lab.store.find("v1", "ConfigMap", "settings", "base")

    in_lab(test)


def test_a_manual_change_is_reverted_only_with_self_heal(in_lab):
    async def test(lab):
        base(lab)
        await lab.up()
        lab.application("healing", PATH, namespace="healing")
        lab.application("watching", PATH, namespace="watching", automated={"prune": True})
        await lab.well("healing", "watching")
        for space in ("healing", "watching"):
            lab.store.patch("v1", "ConfigMap", "settings", space, body={"data": {"a": "by hand"}})
        await lab.until(lambda: lab.store.get("v1", "ConfigMap", "settings", "healing")["data"] == {"a": "1"})
        await lab.until(lambda: lab.state("watching")[0] == "OutOfSync")
        assert lab.store.get("v1", "ConfigMap", "settings", "watching")["data"] == {"a": "by hand"}

    in_lab(test)


def test_differences_to_be_ignored_are_ignored_and_respected(in_lab):
    async def test(lab):
        base(lab)
        await lab.up()
        rule = [{"group": "", "kind": "ConfigMap", "name": "settings", "jsonPointers": ["/data/a"]}]
        options = ["ServerSideApply=true", "CreateNamespace=true", "RespectIgnoreDifferences=true"]
        lab.application("base", PATH, namespace="base", ignoreDifferences=rule, options=options)
        await lab.well("base")
        lab.store.patch("v1", "ConfigMap", "settings", "base", body={"data": {"a": "by hand"}})
        sha = lab.push({"base/settings.yaml": lab.config_map("settings", a="2", b="new")})
        lab.refresh("base")
        await lab.until(lambda: lab.status("base")["operationState"]["syncResult"]["revision"] == sha)
        await lab.well("base")
        assert lab.store.get("v1", "ConfigMap", "settings", "base")["data"] == {"a": "by hand", "b": "new"}

    in_lab(test)


def test_hooks_run_in_their_phases_and_tests_of_helm_do_not(in_lab):
    async def test(lab):
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "before", "annotations": {"argocd.argoproj.io/hook": "PreSync"}},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}}},
        }
        trial = {**job, "metadata": {"name": "trial", "annotations": {"helm.sh/hook": "test"}}}
        base(lab)
        lab.write(
            {"base/jobs.yaml": [job, trial], "base/kustomization.yaml": kustomization("settings.yaml", "jobs.yaml")}
        )
        await lab.up(**{"timeout.reconciliation": "9h"})
        lab.application("base", PATH, namespace="base")
        waiting = "waiting for completion of hook batch/Job/before"
        await lab.until(lambda: lab.status("base").get("operationState", {}).get("message") == waiting)
        assert lab.store.find("v1", "ConfigMap", "settings", "base") is None
        await lab.clock.sleep(30)  # past the pause between waves, after which it would check again anyway
        live = lab.store.get("batch/v1", "Job", "before", "base")
        lab.store.set_status(live, {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1})
        await lab.well("base")
        assert lab.store.find("batch/v1", "Job", "trial", "base") is None
        assert [entry["kind"] for entry in lab.status("base")["resources"]] == ["ConfigMap"]

    in_lab(test)


def test_a_kind_without_its_crd_is_refused_before_anything_is_applied(in_lab):
    async def test(lab):
        base(lab)
        widget = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "one"}}
        lab.write(
            {"base/widget.yaml": widget, "base/kustomization.yaml": kustomization("settings.yaml", "widget.yaml")}
        )
        await lab.up()
        lab.application("base", PATH, namespace="base")
        await lab.until(lambda: lab.state("base")[2] == "Failed")
        message = lab.status("base")["operationState"]["message"]
        assert message.startswith("one or more synchronization tasks are not valid")
        assert 'Make sure the "Widget" CRD is installed on the destination cluster.' in message
        assert lab.store.find("v1", "ConfigMap", "settings", "base") is None
        kinds = {entry["type"] for entry in lab.status("base").get("conditions", ())}
        await lab.until(
            lambda: "SyncError" in {entry["type"] for entry in lab.status("base").get("conditions", ())}, str(kinds)
        )

    in_lab(test)


def test_a_crd_and_its_objects_are_applied_in_one_sync(in_lab):
    async def test(lab):
        widget = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "one"}}
        lab.write({"base/all.yaml": [widget, lab.crd("example.org", "Widget", "widgets")]})
        await lab.up()
        lab.application("base", PATH, namespace="base")
        await lab.well("base")
        assert lab.status("base")["sourceType"] == "Directory"
        assert lab.store.get("example.org/v1", "Widget", "one", "base")

    in_lab(test)


def test_a_refused_object_is_retried_according_to_the_retry_strategy(in_lab):
    async def test(lab):
        base(lab)
        await lab.up()
        lab.faults.add("argocd.webhook-refuses-once", 2)
        retry = {"limit": 3, "backoff": {"duration": "5s", "factor": 2, "maxDuration": "1m"}}
        lab.application("base", PATH, namespace="base", retry=retry)
        await lab.until(lambda: any("Retrying attempt #1" in message for message in lab.messages["base"]))
        await lab.well("base")
        assert lab.status("base")["operationState"]["retryCount"] == 1
        assert lab.status("base")["operationState"]["message"].endswith("(retried 1 times).")

    in_lab(test)


def test_a_failed_sync_is_not_repeated_on_the_same_commit(in_lab):
    async def test(lab):
        base(lab)
        await lab.up()
        lab.faults.add("argocd.webhook-refuses-once", 2)
        lab.application("base", PATH, namespace="base")
        await lab.until(lambda: lab.state("base")[2] == "Failed")
        started = lab.status("base")["operationState"]["startedAt"]
        await lab.clock.sleep(300)
        assert lab.state("base")[2] == "Failed"
        assert lab.status("base")["operationState"]["startedAt"] == started
        lab.push({"base/settings.yaml": lab.config_map("settings", a="2")})
        lab.refresh("base")
        await lab.well("base")

    in_lab(test)


def test_a_manual_operation_runs_once_and_is_removed(in_lab):
    async def test(lab):
        base(lab)
        await lab.up()
        lab.application("base", PATH, namespace="base", automated=None)
        await lab.until(lambda: lab.state("base")[0] == "OutOfSync")
        body = {"operation": {"initiatedBy": {"username": "ops"}, "sync": {"syncOptions": ["CreateNamespace=true"]}}}
        lab.store.patch(lab.api, "Application", "base", "argocd", body=body)
        await lab.well("base")
        assert "operation" not in lab.app("base")
        assert lab.status("base")["history"][0]["initiatedBy"] == {"username": "ops"}
        live = lab.store.get("v1", "ConfigMap", "settings", "base")
        assert "kubectl.kubernetes.io/last-applied-configuration" in live["metadata"]["annotations"]

    in_lab(test)


def test_a_large_object_needs_server_side_apply(in_lab):
    async def test(lab):
        lab.write({"base/large.yaml": lab.config_map("large", a="x" * 300_000)})
        await lab.up()
        lab.application("client", PATH, namespace="client", options=["CreateNamespace=true"])
        lab.application("server", PATH, namespace="server")
        await lab.until(lambda: lab.state("client")[2] == "Failed")
        assert "metadata.annotations: Too long" in lab.status("client")["operationState"]["message"]
        await lab.well("server")

    in_lab(test)


def test_namespaces_are_created_with_their_labels_only_on_request(in_lab):
    async def test(lab):
        base(lab)
        await lab.up()
        labels = {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}
        policy = {"automated": {}, "syncOptions": ["CreateNamespace=true"], "managedNamespaceMetadata": labels}
        lab.application("made", PATH, namespace="made", syncPolicy=policy)
        lab.application("missing", PATH, namespace="missing", options=["ServerSideApply=true"])
        await lab.well("made")
        assert lab.store.get("v1", "Namespace", "made")["metadata"]["labels"].items() >= labels["labels"].items()
        await lab.until(lambda: lab.state("missing")[2] == "Failed")
        assert 'namespaces "missing" not found' in lab.status("missing")["operationState"]["message"]

    in_lab(test)


def test_deleting_an_application_deletes_its_objects_only_with_the_finalizer(in_lab):
    async def test(lab):
        base(lab)
        await lab.up()
        lab.application(
            "gone", PATH, namespace="gone", metadata={"finalizers": ["resources-finalizer.argocd.argoproj.io"]}
        )
        lab.application("left", PATH, namespace="left")
        await lab.well("gone", "left")
        for name in ("gone", "left"):
            lab.store.delete(lab.api, "Application", name, "argocd")
        await lab.until(lambda: not lab.app("gone") and not lab.app("left"))
        assert lab.store.find("v1", "ConfigMap", "settings", "gone") is None
        assert lab.store.find("v1", "ConfigMap", "settings", "left")

    in_lab(test)


def test_a_secret_with_plaintext_data_is_in_sync(in_lab):
    async def test(lab):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"word": "hunter2"}}
        lab.write({"base/s.yaml": secret})
        await lab.up()
        lab.application("base", PATH, namespace="base")
        await lab.well("base")
        assert lab.store.get("v1", "Secret", "s", "base")["data"] == {"word": base64.b64encode(b"hunter2").decode()}

    in_lab(test)


def test_argocd_server_creates_its_project_and_first_password(in_lab):
    async def test(lab):
        base(lab)
        await lab.up()
        assert await lab.until(lambda: lab.store.find(lab.api, "AppProject", "default", "argocd"))
        assert await lab.until(lambda: lab.store.find("v1", "Secret", "argocd-initial-admin-secret", "argocd"))

    in_lab(test)
