"""The lab's stand-ins against the real charts: what each Application renders, compared object by object.

`compared.yaml` says what of an object is compared; pure functions turn rendered objects into facts and those into
differences.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.errors import ToolFailed
from fluobook_lab import data
from fluobook_lab.argocd.configuration import Settings
from fluobook_lab.argocd.objects import sources_of
from fluobook_lab.argocd.repo_server import CommandError, Programs, RepoServer, Request
from fluobook_lab.charts import GIT_STANDINS, ChartServer, Pin
from fluobook_lab.clock import Clock
from fluobook_lab.faults import Faults
from fluobook_lab.git_server import GitServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fluobook_lab.charts.sources import Folder
    from fluobook_lab.kube.objects import Obj

NOISE = ("helm.sh/chart", "chart", "heritage", "app.kubernetes.io/version", "app.kubernetes.io/managed-by")
"""Labels that name a packaging."""
ABSENT = "absent"
"""What stands in a difference where one side has nothing."""
API_VERSIONS = (
    *("monitoring.coreos.com/v1", "monitoring.coreos.com/v1/ServiceMonitor", "monitoring.coreos.com/v1/PodMonitor"),
    *("cert-manager.io/v1", "cert-manager.io/v1/Certificate", "cert-manager.io/v1/Issuer"),
    *("gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1/GatewayClass"),
    *("operator.victoriametrics.com/v1beta1", "cilium.io/v2", "policy/v1", "policy/v1/PodDisruptionBudget"),
)
"""The APIs of a platform that is up, as far as charts ask for them."""

Facts = dict[str, dict[str, Any]]
"""Of each object ("Deployment cert-manager/cert-manager"), its compared values by path."""


@dataclass(frozen=True)
class Difference:
    """One value, or one whole object where `path` is "", that differs between stand-in and real chart."""

    application: str
    object: str
    path: str
    standin: Any
    real: Any


def differences(application: str, standin: Sequence[Obj], real: Sequence[Obj], namespace: str) -> list[Difference]:
    """How the objects that a stand-in renders differ from those of the real chart.

    Args:
        application: the Application's name.
        standin: the stand-in's objects.
        real: the real chart's objects.
        namespace: of objects that do not name theirs.
    """
    ours, theirs = facts(standin, namespace), facts(real, namespace)
    found = []
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs:
            sides = (name in ours and "present") or ABSENT, (name in theirs and "present") or ABSENT
            found.append(Difference(application, name, "", *sides))
            continue
        for path in sorted({*ours[name], *theirs[name]}):
            values = ours[name].get(path, ABSENT), theirs[name].get(path, ABSENT)
            if values[0] != values[1]:
                found.append(Difference(application, name, path, *values))
    return found


def facts(objects: Sequence[Obj], namespace: str) -> Facts:
    """The compared values of objects."""
    table = data.table("charts/compared.yaml")
    described = {}
    for obj in objects:
        kind, metadata = obj["kind"], obj["metadata"]
        values = dict(_flat(obj, table["all"])) | dict(_flat(obj, table.get(kind, table["other kinds"])))
        name = metadata.get("name") or f"{metadata.get('generateName')}*"
        place = "" if kind in _CLUSTER_WIDE else f"{metadata.get('namespace') or namespace}/"
        shown = {path: value for path, value in values.items() if path.rpartition("labels.")[2] not in NOISE}
        described[f"{kind} {place}{name}"] = shown
    return described


_CLUSTER_WIDE = frozenset(
    {"CustomResourceDefinition", "Namespace", "ClusterRole", "ClusterRoleBinding", "StorageClass", "IngressClass"}
    | {"GatewayClass", "PriorityClass", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService"}
    | {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ClusterIssuer", "CSIDriver"}
    | {"CiliumClusterwideNetworkPolicy", "PersistentVolume", "RuntimeClass"}
)


def _flat(value: Any, shape: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values at the paths of a shape; see compared.yaml."""
    if not isinstance(shape, dict):
        value = shape if value is None else value
        if value not in (None, {}, []):
            yield path, value
        return
    for name, inner in shape.items():
        if name.startswith("["):
            for element in value if isinstance(value, list) else ():
                yield from _element(element, name[1:-1].split(","), inner, path)
        elif name == "*":
            for key, item in (value if isinstance(value, dict) else {}).items():
                yield f"{path}.{key}", "present" if inner == "?" else item
        else:
            item = value.get(name) if isinstance(value, dict) else None
            is_reference = isinstance(inner, str) and inner.startswith("=")
            if item is None and is_reference:
                item = value.get(inner[1:]) if isinstance(value, dict) else None
            if item is not None or not isinstance(inner, dict):
                yield from _flat(item, None if is_reference else inner, f"{path}.{name}".lstrip("."))


def _element(element: Any, names: list[str], shape: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values of one element of a list, which is known by some of its fields."""

    def at(name: str) -> Any:
        value: Any = element
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        default = shape.get(name) if isinstance(shape, dict) else None
        return default if value is None else value

    key = "/".join(str(value) for name in names if (value := at(name)) is not None)
    yield f"{path}[{key}]", "present"
    yield from _flat(element, shape, f"{path}[{key}]")


async def compare(
    applications: Sequence[Mapping[str, Any]],
    real: Folder,
    programs: Mapping[str, str],
    kube_version: str,
) -> tuple[list[Difference], dict[str, str]]:
    """All differences, and why some Applications are not compared; see `fluobook_lab.life.diff_charts`."""
    found = Programs(**{name: Path(path) for name, path in programs.items()})
    causes = {
        application["metadata"]["name"]: real.why_not(pin)
        for application in applications
        for pin in map(_pin, sources_of(application["spec"]))
        if not (real.chart(pin) if pin.chart else real.repository(pin))
    }
    compared = [application for application in applications if application["metadata"]["name"] not in causes]
    ours = await Renderer(None, found, kube_version).render(compared)
    theirs = await Renderer(real, found, kube_version).render(compared)
    listed = []
    for application in compared:
        name, namespace = application["metadata"]["name"], application["spec"]["destination"].get("namespace", "")
        listed += differences(name, ours[name], theirs[name], namespace)
    return listed, causes


def _pin(source: Mapping[str, Any]) -> Pin:
    return Pin(source.get("repoURL", ""), source.get("chart", ""), str(source.get("targetRevision", "HEAD")))


class Renderer:
    """Renders Applications as Argo CD does, from a folder of real charts or from the stand-ins.

    Args:
        folder: the real charts; None for the stand-ins.
        programs: git, helm, kubectl and sops.
        kube_version: the Kubernetes version that charts see.
    """

    def __init__(self, folder: Folder | None, programs: Programs, kube_version: str) -> None:
        self._folder, self._programs, self._version = folder, programs, kube_version

    async def render(self, applications: Sequence[Mapping[str, Any]]) -> dict[str, list[Obj]]:
        """The objects of each Application, by its name.

        Raises:
            ToolFailed: a chart cannot be rendered with the tree's values.
        """
        rendered = {}
        with tempfile.TemporaryDirectory(prefix="fluobook-diff-") as scratch:
            charts = ChartServer(clock=Clock(), real=self._folder.package if self._folder else lambda _: None)
            git = GitServer(Path(scratch) / "git", Clock(), git=self._programs.git)
            await charts.start()
            await git.start()
            repository = RepoServer(Path(scratch) / "argocd", self._programs, Faults())
            try:
                for application in applications:
                    name, spec = application["metadata"]["name"], self._served(application["spec"], charts, git)
                    revisions = await repository.resolve(spec)
                    request = Request(name, spec, revisions, Settings(), self._version, API_VERSIONS)
                    rendered[name] = list((await repository.render(request)).documents)
            except CommandError as error:
                raise ToolFailed(f"{name} cannot be rendered", system="helm", detail=str(error)) from None
            finally:
                await charts.stop()
                await git.stop()
        return rendered

    def _served(self, spec: Mapping[str, Any], charts: ChartServer, git: GitServer) -> dict[str, Any]:
        """The spec with sources that the lab serves."""
        sources = [dict(source) for source in sources_of(dict(spec))]
        for source in sources:
            pin = _pin(source)
            if pin.chart:
                charts.pin(pin.repository, pin.chart, pin.version)
                source["repoURL"] = charts.url(pin.repository)
            else:
                found = self._folder.repository(pin) if self._folder else None
                if found:
                    git.copy(pin.path, found[0], pin.version, found[1])
                else:
                    git.seed(pin.path, GIT_STANDINS / pin.path, tags=[pin.version])
                source["repoURL"] = git.url(pin.path)
        return {**{key: value for key, value in spec.items() if key != "source"}, "sources": sources}
