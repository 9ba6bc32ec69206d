"""The lab's stand-ins against the real charts: what each Application renders, compared object by object.

Both sides get the defaults of the API server first. Then every field is compared, except what names the packaging.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.errors import ToolFailed
from fluobook_lab.argocd.configuration import Settings
from fluobook_lab.argocd.objects import sources_of
from fluobook_lab.argocd.repo_server import CommandError, Programs, RepoServer, Request
from fluobook_lab.charts import GIT_STANDINS, ChartServer, Pin
from fluobook_lab.clock import Clock
from fluobook_lab.faults import Faults
from fluobook_lab.git_server import GitServer
from fluobook_lab.kube import schemas
from fluobook_lab.kube.decoding import fill
from fluobook_lab.kube.lifecycle import established
from fluobook_lab.kube.objects import clone, data_file
from fluobook_lab.kube.resources import Registry, custom_resources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fluobook_lab.charts.sources import Folder
    from fluobook_lab.kube.objects import Obj

PACKAGING = re.compile(
    r"helm\.sh/chart|chart|heritage|app\.kubernetes\.io/(version|managed-by)|checksum/.*|controller-gen\.kubebuilder\.io/.*"
)
"""Labels and annotations that name a packaging."""
_IDENTITY = ("name", "generateName", "namespace", "creationTimestamp")
ABSENT, PRESENT = "absent", "present"
"""What stands in a difference where one side has nothing, or a whole object."""
API_VERSIONS = (
    *("monitoring.coreos.com/v1", "monitoring.coreos.com/v1/ServiceMonitor", "monitoring.coreos.com/v1/PodMonitor"),
    *("cert-manager.io/v1", "cert-manager.io/v1/Certificate", "cert-manager.io/v1/Issuer"),
    *("gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1/GatewayClass"),
    *("operator.victoriametrics.com/v1beta1", "cilium.io/v2", "policy/v1", "policy/v1/PodDisruptionBudget"),
)
"""The APIs of a platform that is up, as far as charts ask for them."""
_POINTERS = frozenset(data_file("kinds.yaml")["pointers"])


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
    ours, theirs = trees(standin, namespace), trees(real, namespace)
    differing = []
    for name in sorted({*ours, *theirs}):
        if name in ours and name in theirs:
            differing += [Difference(application, name, *values) for values in _differing(ours[name], theirs[name])]
        else:
            sides = (_present(side[name]) if name in side else ABSENT for side in (ours, theirs))
            differing.append(Difference(application, name, "", *sides))
    return differing


def _present(tree: Obj) -> str:
    """That an object is there, with a digest of its content: a list for another chart version shows what changed."""
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
    return f"{PRESENT}, {digest[:8]}"


def _differing(standin: Any, real: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The paths at which two trees differ, with both values, and the lists whose common elements have another order."""
    if isinstance(standin, dict) and isinstance(real, dict):
        for key in sorted({*standin, *real}):
            below = path + key if key.startswith("[") else f"{path}.{key}".lstrip(".")
            yield from _differing(standin.get(key, ABSENT), real.get(key, ABSENT), below)
        orders = [
            [key for key in side if key.startswith("[") and key in standin and key in real] for side in (standin, real)
        ]
        if orders[0] != orders[1]:
            yield f"{path} (order)", orders[0], orders[1]
    elif standin != real:
        yield path, standin, real


def trees(objects: Sequence[Obj], namespace: str) -> dict[str, Obj]:
    """Objects by name ("Deployment cert-manager/webhook"), with the API server's defaults; see `_tree`."""
    registry = Registry()
    for definition in (obj["spec"] for obj in objects if obj["kind"] == "CustomResourceDefinition"):
        custom = custom_resources({"spec": definition})
        registry.replace_custom(definition["group"], definition["names"]["plural"], custom)
    resources = {(resource.group, resource.kind): resource for resource in registry}
    described = {}
    for obj in map(clone, objects):
        kind, metadata = obj["kind"], obj["metadata"]
        resource = resources.get((obj.get("apiVersion", "").rpartition("/")[0], kind))
        schema = resource.schema if resource and not resource.custom else {}
        if resource and schema:
            fill(resource, obj)
        if kind == "CustomResourceDefinition":
            established(obj)
        if kind == "Secret":
            obj["data"] = dict.fromkeys(obj.get("data") or (), PRESENT)
        name = metadata.get("name") or f"{metadata.get('generateName')}*"
        place = f"{metadata.get('namespace') or namespace}/" if resource is None or resource.namespaced else ""
        obj["metadata"] = {key: value for key, value in metadata.items() if key not in _IDENTITY}
        obj.pop("status", None)
        described[f"{kind} {place}{name}"] = _tree(obj, schema)
    return described


def _tree(value: Any, schema: Obj) -> Any:
    """The value without members that say nothing or name the packaging; lists of objects are maps from "[name]"."""
    if isinstance(value, dict):
        members = {key: _tree(item, schemas.child(schema, key)) for key, item in value.items()}
        if isinstance(metadata := members.get("metadata"), dict):
            members["metadata"] = {"labels": {}, "annotations": {}, **metadata}
        for field in ("labels", "matchLabels", "annotations"):
            if isinstance(names := members.get(field), dict):
                members[field] = {name: text for name, text in names.items() if not PACKAGING.fullmatch(name)}
        optional = schema.get("properties", {}).keys() - {*_POINTERS, *schema.get("required", ())}
        return {
            key: item
            for key, item in members.items()
            if item is not None and not (isinstance(item, str | list | bool) and not item and key in optional)
        }
    if isinstance(value, list) and value and all(isinstance(element, dict) for element in value):
        names, below = _names(value, schemas.map_keys(schema)), schemas.items(schema)
        return {f"[{name}]": _tree(element, below) for name, element in zip(names, value, strict=True)}
    return value


def _names(elements: Sequence[Obj], keys: Sequence[str]) -> list[str]:
    """What tells the elements of a list apart: the keys of its schema, a name or a port, or else all of each."""
    for fields in (keys, ("name",), ("port",), ("targetPort",)):
        values = [[{**(item.get("metadata") or {}), **item}.get(field) for field in fields] for item in elements]
        names = ["/".join(map(str, parts)) for parts in values]
        if fields and all(None not in parts for parts in values) and len({*names}) == len(names):
            return names
    texts = [json.dumps(element, sort_keys=True) for element in elements]
    return [text if text not in texts[:number] else f"{text} {number + 1}" for number, text in enumerate(texts)]


async def compare(
    applications: Sequence[Mapping[str, Any]],
    real: Folder,
    programs: Mapping[str, str],
    kube_version: str,
) -> tuple[list[Difference], dict[str, str]]:
    """All differences, and why some Applications are not compared; see `fluobook_lab.life.diff_charts`."""
    tools = Programs(**{name: Path(path) for name, path in programs.items()})
    causes = {
        application["metadata"]["name"]: real.why_not(pin)
        for application in applications
        for pin in map(_pin, sources_of(application["spec"]))
        if not (real.chart(pin) if pin.chart else real.repository(pin))
    }
    compared = [application for application in applications if application["metadata"]["name"] not in causes]
    ours = await Renderer(None, tools, kube_version).render(compared)
    theirs = await Renderer(real, tools, kube_version).render(compared)
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
                pinned = self._folder.repository(pin) if self._folder else None
                if pinned:
                    git.copy(pin.path, pinned[0], pin.version, pinned[1])
                else:
                    git.seed(pin.path, GIT_STANDINS / pin.path, tags=[pin.version])
                source["repoURL"] = git.url(pin.path)
        return {**{key: value for key, value in spec.items() if key != "source"}, "sources": sources}
