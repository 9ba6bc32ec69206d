import json

import pytest
from fluobook_lab.charts.server import ChartServer
from fluobook_lab.clock import Clock

from fluobook.clients import helm
from fluobook.clients.helm import Release
from fluobook.errors import NotFound, Rejected, Unreachable

pytestmark = pytest.mark.lab
REPO = "https://charts.example.org"
TEMPLATE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}", namespace: "{{ .Release.Namespace }}"}
data:
  word: "{{ required "a word is needed" .Values.word }}"
  kube: "{{ .Capabilities.KubeVersion }}"
  monitors: '{{ .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}'
"""
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Only helm's home is new: the program itself is unpacked once for all tests."""
    monkeypatch.setattr("fluobook.clients.helm.payload.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def repo(background, tmp_path):
    chart = tmp_path / "standins" / "charts.example.org" / "demo"
    for folder, name, text in (("templates", "x.yaml", TEMPLATE), ("crds", "crd.yaml", CRD)):
        (chart / folder).mkdir(parents=True)
        (chart / folder / name).write_text(text)
    server = ChartServer(tmp_path / "tree", Clock(), standins=tmp_path / "standins")
    for version in ("1.2.3", "1.3.0"):
        server.pin(REPO, "demo", version)
    background.run(server.start())
    yield server.url(REPO)
    background.run(server.stop())


def render(repo, chart="demo", version="1.2.3", **changes):
    wanted = {"release": "r", "namespace": "n", "values": {"word": "mine"}, "kube_version": "1.35.4", **changes}
    return helm.template(chart, repo=repo, version=version, **wanted)


def test_a_chart_is_rendered_with_values_version_and_apis(repo):
    crd, config = render(repo, api_versions=["monitoring.coreos.com/v1"])
    assert crd["kind"] == "CustomResourceDefinition"
    assert config["data"] == {"word": "mine", "kube": "v1.35.4", "monitors": "true"}
    assert config["metadata"] == {"name": "r", "namespace": "n"}
    assert [document["kind"] for document in render(repo, include_crds=False)] == ["ConfigMap"]


def test_what_the_chart_the_version_or_the_repository_lack_is_told_apart(repo):
    with pytest.raises(NotFound, match=r"there is no demo 9\.9\.9"):
        render(repo, version="9.9.9")
    with pytest.raises(NotFound, match="there is no nothing"):
        render(repo, chart="nothing")
    with pytest.raises(Unreachable, match="does not answer"):
        render("http://127.0.0.1:1")
    with pytest.raises(Rejected, match="refuses its values") as caught:
        render(repo, values={})
    assert "a word is needed" in caught.value.detail


def test_the_versions_of_a_repository_are_listed(repo):
    assert [one.version for one in helm.versions(repo, "demo")] == ["1.3.0", "1.2.3"]
    with pytest.raises(NotFound, match="has no chart nothing") as caught:
        helm.versions(repo, "nothing")
    assert "demo" in caught.value.cause
    with pytest.raises(NotFound, match="has no chart demo") as caught:
        helm.versions(repo + "/elsewhere", "demo")
    assert "404" in caught.value.cause
    with pytest.raises(Unreachable):
        helm.versions("http://127.0.0.1:1", "demo")


@pytest.fixture
def cluster(kubernetes, tmp_path):
    rig = kubernetes(controllers=False)
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(rig.kubeconfig()))
    return rig, path


def install(repo, path, version="1.2.3", word="mine"):
    return helm.upgrade(
        "r", "demo", repo=repo, version=version, namespace="default", values={"word": word}, kubeconfig=path
    )


def test_a_release_is_installed_upgraded_and_known_to_be_current(repo, cluster):
    rig, path = cluster
    assert helm.status("r", namespace="default", kubeconfig=path) is None
    first = install(repo, path)
    assert (first.revision, first.status, first.chart, first.version) == (1, "deployed", "demo", "1.2.3")
    assert rig.store("get", "v1", "ConfigMap", "r", "default")["data"]["word"] == "mine"
    found = helm.status("r", namespace="default", kubeconfig=path)
    assert found == first
    assert found.is_at("demo", "1.2.3", {"word": "mine"})
    assert not found.is_at("demo", "1.3.0", {"word": "mine"})
    assert not found.is_at("demo", "1.2.3", {"word": "other"})
    second = install(repo, path, "1.3.0", "other")
    assert (second.revision, second.version, second.values) == (2, "1.3.0", {"word": "other"})
    assert rig.store("get", "v1", "ConfigMap", "r", "default")["data"]["word"] == "other"


def test_a_release_that_a_killed_helm_left_locked_can_be_freed(repo, cluster):
    rig, path = cluster
    install(repo, path)
    secret = rig.store("get", "v1", "Secret", "sh.helm.release.v1.r.v1", "default")
    assert secret["metadata"]["labels"]["status"] == "deployed"
    left = Release("r", "default", 1, "pending-upgrade", "demo", "1.2.3", {})
    assert left.interrupted
    helm.unlock(Release("r", "default", 1, "deployed", "demo", "1.2.3", {}), kubeconfig=path)
    assert helm.status("r", namespace="default", kubeconfig=path) is not None
    helm.unlock(left, kubeconfig=path)
    assert helm.status("r", namespace="default", kubeconfig=path) is None
    assert install(repo, path, "1.3.0").status == "deployed"


def test_a_cluster_that_does_not_answer_is_told(repo, cluster, tmp_path):
    rig, _ = cluster
    config = rig.kubeconfig()
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = tmp_path / "elsewhere"
    path.write_text(json.dumps(config))
    with pytest.raises(Unreachable, match="does not reach the cluster"):
        install(repo, path)


def test_values_are_not_part_of_a_release_as_it_is_shown():
    assert "hunter2" not in repr(Release("r", "n", 1, "deployed", "c", "1", {"password": "hunter2"}))
