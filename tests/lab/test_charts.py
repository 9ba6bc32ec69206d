import asyncio
from pathlib import Path

import pytest
import yaml
from fluobook_lab.charts import GENERIC, ChartServer, package, repository_path
from fluobook_lab.clock import Clock

from fluobook.clients import helm
from fluobook.errors import NotFound

pytestmark = pytest.mark.lab
REPO = "https://charts.example.org/stable/"


def application(folder: Path, chart: str, version: str) -> None:
    source = {"repoURL": REPO, "chart": chart, "targetRevision": version}
    folder.mkdir(parents=True, exist_ok=True)
    document = {"kind": "Application", "metadata": {"name": chart}, "spec": {"source": source}}
    (folder / f"{chart}.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture
def tree(tmp_path) -> Path:
    application(tmp_path / "tree", "demo", "v1.2.3")
    chart = tmp_path / "standins" / "charts.example.org" / "demo"
    (chart / "templates").mkdir(parents=True)
    (chart / "values.yaml").write_text("word: chart\n")
    template = (
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\ndata: {w: '{{ .Values.word }} {{ .Chart.Version }}'}\n"
    )
    (chart / "templates" / "x.yaml").write_text(template)
    return tmp_path / "tree"


async def _renders(tree: Path) -> None:
    server = ChartServer(tree, clock=Clock(), standins=tree.parent / "standins")
    await server.start()
    try:
        repo = server.mirrors()[REPO]
        wanted = {"repo": repo, "release": "r", "namespace": "n", "kube_version": "1.35.0"}
        render = lambda chart, version, values: asyncio.to_thread(  # noqa: E731
            helm.template, chart, version=version, values=values, **wanted
        )
        assert (await render("demo", "v1.2.3", {"word": "mine"}))[0]["data"] == {"w": "mine v1.2.3"}
        with pytest.raises(NotFound):
            await render("demo", "9.9.9", {})
        application(tree, "other", "2.0.0")
        documents = await render("other", "2.0.0", {"replicas": 3})
        assert [document["kind"] for document in documents] == ["ServiceAccount", "Service", "Deployment"]
        assert documents[2]["spec"]["replicas"] == 3
        assert {document["metadata"]["name"] for document in documents} == {"r"}
        listed = await asyncio.to_thread(helm.versions, repo, "other")
        assert [entry.version for entry in listed] == ["2.0.0"]
    finally:
        await server.stop()


def test_a_real_helm_renders_the_versions_that_the_tree_pins(tree):
    asyncio.run(_renders(tree))


def test_a_package_has_the_same_bytes_each_time():
    assert package(GENERIC, "x", "1.0.0").digest == package(GENERIC, "x", "1.0.0").digest


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://helm.cilium.io", "helm.cilium.io"),
        ("https://victoriametrics.github.io/helm-charts/", "victoriametrics.github.io/helm-charts"),
        ("https://github.com/rabbitmq/cluster-operator.git", "github.com/rabbitmq/cluster-operator"),
        ("quay.io/jetstack/charts", "quay.io/jetstack/charts"),
    ],
)
def test_a_repository_has_a_path(url, path):
    assert repository_path(url) == path
