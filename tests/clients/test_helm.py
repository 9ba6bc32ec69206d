import pytest
from fluobook_lab.charts import ChartServer
from fluobook_lab.clock import Clock

from fluobook.clients import helm
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
    monkeypatch.setattr("fluobook.clients.helm.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def repo(background, tmp_path):
    chart = tmp_path / "standins" / "charts.example.org" / "demo"
    for folder, name, text in (("templates", "x.yaml", TEMPLATE), ("crds", "crd.yaml", CRD)):
        (chart / folder).mkdir(parents=True)
        (chart / folder / name).write_text(text)
    server = ChartServer(tmp_path / "tree", clock=Clock(), standins=tmp_path / "standins")
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


def test_a_missing_chart_version_and_repository_and_wrong_values_have_different_errors(repo):
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
    assert [entry.version for entry in helm.versions(repo, "demo")] == ["1.3.0", "1.2.3"]
    with pytest.raises(NotFound, match="has no chart nothing") as caught:
        helm.versions(repo, "nothing")
    assert "demo" in caught.value.cause
    with pytest.raises(NotFound, match="has no chart demo") as caught:
        helm.versions(repo + "/elsewhere", "demo")
    assert "404" in caught.value.cause
    with pytest.raises(Unreachable):
        helm.versions("http://127.0.0.1:1", "demo")
