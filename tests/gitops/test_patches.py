from __future__ import annotations

import json

import pytest

from fluobook import gitops, params
from fluobook.errors import ParamsError
from fluobook.params import mirrored

LAB = {
    "https://helm.cilium.io": "http://127.0.0.1:4000/charts/helm.cilium.io",
    "https://github.com/rabbitmq/cluster-operator": "http://127.0.0.1:4001/rabbitmq.git",
    "https://github.com/fluodata/fluobook.git": "http://127.0.0.1:4001/fluobook.git",
}


def operations(platform, tree):
    return {(patch.kind, patch.name): patch.operations for patch in gitops.patches_for(platform, tree)}


def test_the_longest_mirror_wins_and_a_name_is_never_cut():
    mirrors = {"https://a.example": "http://m/1/", "https://a.example/deep": "http://m/2"}
    assert mirrored("https://a.example/x", mirrors) == "http://m/1/x"
    assert mirrored("https://a.example/deep", mirrors) == "http://m/2"
    assert mirrored("https://a.example/deep/er", mirrors) == "http://m/2/er"
    assert mirrored("https://a.example/deeper", mirrors) == "http://m/1/deeper"
    assert mirrored("https://a.example.org/x", mirrors) == "https://a.example.org/x"


def test_phase_3_gets_copies_and_instances_for_its_failure_domains(phase3, tree):
    patched = gitops.for_phase(phase3, tree)
    assert gitops.chart_source(patched, "longhorn").values["persistence"]["defaultClassReplicaCount"] == 3
    assert gitops.chart_source(patched, "cilium").values["operator"]["replicas"] == 2
    inner = operations(phase3, tree)["Application", "postgresql"][0]["value"]["patches"]
    assert inner[0]["target"] == {"kind": "Cluster", "name": "fluodata-pg"}
    assert json.loads(inner[0]["patch"]) == [
        {"op": "replace", "path": "/spec/instances", "value": 3},
        {"op": "replace", "path": "/spec/enablePDB", "value": True},
        {"op": "remove", "path": "/spec/plugins"},
    ]


def test_cilium_receives_the_mtu_of_the_nodes_in_every_phase(platform, tree):
    values = gitops.chart_source(gitops.for_phase(platform, tree), "cilium").values
    assert values["MTU"] == (1370 if platform.wireguard else 1500)


def test_the_real_kustomize_makes_the_same_of_the_root_patches(platform, tree, real):
    there = params.overlay(platform, {"gitops": {"mirrors": LAB, "revision": "abc123"}})
    built = real.build(tree.root / tree.path, [patch.for_kustomize() for patch in gitops.patches_for(there, tree)])
    ours = {(document.kind, document.name): document.data for document in gitops.for_phase(there, tree).documents}
    assert {app.name for app in tree.left_out if ours.pop(("Application", app.name))}
    assert {(obj["kind"], obj["metadata"]["name"]): obj for obj in built} == ours


def test_the_real_kustomize_takes_the_patches_of_every_child(phase3, tree, real):
    there = params.overlay(phase3, {"network": {"load_balancer": {"announce": False}}})
    patched = gitops.for_phase(there, tree)
    built = [
        obj
        for application in patched.applications
        if tree.is_ours(application) and application.kustomize
        for obj in real.build(tree.root / application.path, application.kustomize["patches"])
    ]
    specs = {(obj["kind"], obj["metadata"]["name"]): obj.get("spec") for obj in built}
    assert specs["Cluster", "fluodata-pg"]["instances"] == 3
    assert specs["RabbitmqCluster", "rabbitmq"]["replicas"] == 3
    assert specs["ScyllaCluster", "fluodata"]["datacenter"]["racks"][0]["members"] == 3
    assert specs["CiliumL2AnnouncementPolicy", "lan"]["loadBalancerIPs"] is False


def test_mirrors_reach_charts_git_and_projects(phase3, tree):
    there = params.overlay(phase3, {"gitops": {"mirrors": LAB}})
    patched = gitops.for_phase(there, tree)
    assert gitops.chart_source(patched, "cilium").repo == LAB["https://helm.cilium.io"]
    assert patched.application("rabbitmq-operator").repo == LAB["https://github.com/rabbitmq/cluster-operator"]
    assert patched.application("namespaces").repo == LAB["https://github.com/fluodata/fluobook.git"]
    allowed = {project.name: project.data["spec"]["sourceRepos"] for project in patched.projects}
    for application in patched.applications:
        assert application.repo in allowed[application.project]


def test_a_fork_is_followed_with_its_revision(phase3, tree):
    there = params.overlay(
        phase3, {"gitops": {"repository": "https://git.example.org/me/fork.git", "revision": "next"}}
    )
    patched = gitops.for_phase(there, tree)
    assert patched.application("network-policies").repo == "https://git.example.org/me/fork.git"
    assert patched.application("network-policies").version == "next"
    assert patched.application("cilium").version == tree.application("cilium").version
    root = gitops.root_application(there, tree)
    assert root["spec"]["source"]["targetRevision"] == "next"


def test_the_root_has_no_finalizer_and_no_patch_that_changes_nothing(phase3, tree):
    root = gitops.root_application(phase3, tree)
    assert "finalizers" not in root["metadata"]
    concerned = {patch["target"]["name"] for patch in root["spec"]["source"]["kustomize"]["patches"]}
    assert "namespaces" not in concerned
    assert "cilium-config" not in concerned


def test_a_domain_reaches_every_host(phase3, tree, real):
    there = params.overlay(phase3, {"gitops": {"domain": "iot.example.net", "acme_email": "a@example.net"}})
    patched = gitops.for_phase(there, tree)
    assert gitops.chart_source(patched, "argocd").values["global"]["domain"] == "argocd.iot.example.net"
    routes = patched.application("routes")
    hosts = {
        obj["spec"]["tls"][0]["hosts"][0] for obj in real.build(tree.root / routes.path, routes.kustomize["patches"])
    }
    assert hosts == {"argocd.iot.example.net", "grafana.iot.example.net"}


def test_a_pool_that_the_phase_lacks_is_named(phase3, tree):
    balancer = phase3.network.load_balancer.model_copy(update={"pools": tuple(phase3.network.load_balancer.pools[:1])})
    there = phase3.model_copy(update={"network": phase3.network.model_copy(update={"load_balancer": balancer})})
    with pytest.raises(ParamsError, match=r"pool\.mqtt\.start"):
        gitops.patches_for(there, tree)


def test_a_pool_that_the_tree_lacks_is_named(phase3, tree):
    extra = {"name": "extra", "start": "10.10.0.130", "stop": "10.10.0.131"}
    there = params.overlay(phase3, {"network": {"load_balancer": {"pools": [extra]}}})
    with pytest.raises(ParamsError, match="no CiliumLoadBalancerIPPool for extra"):
        gitops.patches_for(there, tree)


def test_a_phase_value_for_an_object_that_is_not_deployed_is_named(repository, phase3):
    file = repository / "cluster-gitops/apps/postgresql/cluster/application.yaml"
    file.write_text(file.read_text().replace("name: fluodata-pg", "name: fluodata-mysql"))
    with pytest.raises(ParamsError, match="Cluster fluodata-mysql"):
        gitops.patches_for(phase3, gitops.read(repository))
