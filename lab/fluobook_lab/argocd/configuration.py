"""Argo CD's configuration as the cluster has it: its ConfigMaps, its AppProjects, and what its first start creates.

The lab adds nothing of its own: a setting that the chart does not bring to the cluster has no effect.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from fluobook_lab.argocd.objects import API, IN_CLUSTER, NAMESPACE, sources_of
from fluobook_lab.kube.access import Write
from fluobook_lab.kube.objects import timestamp

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping

    from fluobook_lab.argocd.objects import Key
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

HEALTH = "resource.customizations.health."
IGNORED = "resource.customizations.ignoreDifferences."
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
SERVER = Write(manager="argocd-server")


@dataclass(frozen=True)
class Settings:
    """One reading of the settings.

    Args:
        build_options: options of kustomize.
        health: Lua health checks by "group_Kind" (or "Kind" in the core group).
        ignored: the `ignoreDifferences` of all Applications.
        tracking: "annotation", "label" or "annotation+label".
        persist_health: whether `status.resources` includes health; by default, Argo CD 3 leaves it out.
        wave_delay: lab seconds between waves.
        resync: lab seconds between checks of a source; None where it is not set.
        age_key: the text of keys.txt, if the repo-server mounts it.
        has_ksops: whether the repo-server has the ksops program.
    """

    build_options: tuple[str, ...] = ()
    health: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[Mapping[str, Any], ...] = ()
    tracking: str = "annotation"
    persist_health: bool = False
    wave_delay: float = 2.0
    resync: float | None = None
    age_key: str = field(default="", repr=False)
    has_ksops: bool = False


def read(store: Store) -> Settings:
    """The settings in the cluster now: of argocd-cm, argocd-cmd-params-cm and the pod templates."""
    data, params = _data(store, "argocd-cm"), _data(store, "argocd-cmd-params-cm")
    repo_server = _pod(store.find("apps/v1", "Deployment", "argocd-repo-server", NAMESPACE))
    controller = _pod(store.find("apps/v1", "StatefulSet", "argocd-application-controller", NAMESPACE))
    return Settings(
        build_options=tuple(data.get("kustomize.buildOptions", "").split()),
        health={key.removeprefix(HEALTH): script for key, script in data.items() if key.startswith(HEALTH)},
        ignored=_ignored(data),
        tracking=data.get("application.resourceTrackingMethod", "annotation"),
        persist_health=params.get("controller.resource.health.persist", "false") == "true",
        wave_delay=float(_env(controller).get("ARGOCD_SYNC_WAVE_DELAY") or 2),
        resync=duration(data["timeout.reconciliation"]) if "timeout.reconciliation" in data else None,
        age_key=_age_key(store, repo_server),
        has_ksops=any(mount.get("mountPath", "").endswith("/ksops") for mount in _mounts(repo_server)),
    )


def duration(text: str) -> float:
    """Seconds of a Go duration: "90s", "3m", "1h30m"; a number without a unit is seconds."""
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|[smh]?)", str(text)))


def _data(store: Store, name: str) -> dict[str, str]:
    return (store.find("v1", "ConfigMap", name, NAMESPACE) or {}).get("data") or {}


def _ignored(data: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
    rules = []
    for key, text in data.items():
        if key.startswith(IGNORED):
            group, _, kind = key.removeprefix(IGNORED).rpartition("_")
            objects = {"group": "*", "kind": "*"} if kind == "all" else {"group": group, "kind": kind}
            rules.append({**(yaml.safe_load(text) or {}), **objects})
    return tuple(rules)


def _pod(workload: Obj | None) -> dict[str, Any]:
    return ((workload or {}).get("spec") or {}).get("template", {}).get("spec") or {}


def _env(pod: dict[str, Any]) -> dict[str, str]:
    entries = [entry for container in pod.get("containers") or () for entry in container.get("env") or ()]
    return {entry["name"]: entry.get("value", "") for entry in entries}


def _mounts(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [mount for container in pod.get("containers") or () for mount in container.get("volumeMounts") or ()]


def _age_key(store: Store, pod: dict[str, Any]) -> str:
    """The key, if a volume mounts it where SOPS_AGE_KEY_FILE points; a Secret that is not mounted has no effect."""
    file = _env(pod).get("SOPS_AGE_KEY_FILE", "")
    for volume in pod.get("volumes") or ():
        name = (volume.get("secret") or {}).get("secretName", "")
        mounts = [mount for mount in _mounts(pod) if mount.get("name") == volume.get("name")]
        if name and any(file.startswith(mount.get("mountPath", "\0")) for mount in mounts):
            secret = store.find("v1", "Secret", name, NAMESPACE) or {}
            try:
                return base64.b64decode((secret.get("data") or {}).get(file.rpartition("/")[2], "")).decode()
            except (binascii.Error, UnicodeDecodeError):
                return ""
    return ""


# ---- AppProjects -----------------------------------------------------------------------------------------------------


def refusals(app: Obj, project: Obj | None) -> list[str]:
    """Why a project does not permit an Application, as the controller words it; empty if it does."""
    spec = app["spec"]
    name = spec.get("project") or "default"
    if project is None:
        return [f"Application referencing project {name} which does not exist"]
    rules, destination = project.get("spec") or {}, spec.get("destination") or {}
    reasons = [
        f"application repo {source.get('repoURL', '')} is not permitted in project '{name}'"
        for source in sources_of(spec)
        if not _permits_repository(rules.get("sourceRepos") or (), source.get("repoURL", ""))
    ]
    if not _permits_destination(rules, destination, destination.get("namespace", "")):
        server = destination.get("server") or destination.get("name", "")
        place = f"server '{server}' and namespace '{destination.get('namespace', '')}'"
        allowed = f"do not match any of the allowed destinations in project '{name}'"
        reasons.append(f"application destination {place} {allowed}")
    return reasons


def forbids(project: Obj, destination: dict[str, Any], key: Key, *, namespaced: bool) -> str:
    """Why a project does not permit an object, "" if it does."""
    rules, name = project.get("spec") or {}, project["metadata"]["name"]
    if namespaced:
        whitelist, blacklist = rules.get("namespaceResourceWhitelist"), rules.get("namespaceResourceBlacklist")
    else:
        whitelist, blacklist = rules.get("clusterResourceWhitelist") or [], rules.get("clusterResourceBlacklist")
    if (whitelist is not None and not _lists(whitelist, key)) or _lists(blacklist or (), key):
        return f"resource {key.group}:{key.kind} is not permitted in project {name}"
    if namespaced and not _permits_destination(rules, destination, key.namespace):
        return f"namespace {key.namespace} is not permitted in project '{name}'"
    return ""


def _permitted(matches: Iterable[tuple[bool, bool]]) -> bool:
    """Whether a rule matches and none denies; of each rule: whether it matches, whether it denies."""
    matching = [denies for matched, denies in matches if matched]
    return bool(matching) and not any(matching)


def _permits_destination(rules: dict[str, Any], destination: dict[str, Any], namespace: str) -> bool:
    server = destination.get("server") or (IN_CLUSTER if destination.get("name") == "in-cluster" else "")

    def matches(entry: Mapping[str, Any]) -> tuple[bool, bool]:
        space, cluster = str(entry.get("namespace", "")), str(entry.get("server") or entry.get("name") or "")
        here = fnmatch.fnmatchcase(server, cluster.removeprefix("!"))
        here = here or (cluster == "in-cluster" and server == IN_CLUSTER)
        denies = space.startswith("!") or cluster.startswith("!")
        return here and fnmatch.fnmatchcase(namespace, space.removeprefix("!")), denies

    return _permitted(map(matches, rules.get("destinations") or ()))


def _permits_repository(patterns: Iterable[str], url: str) -> bool:
    def normal(text: str) -> str:
        """A repository URL as Argo CD compares it."""
        return text.rstrip("/").removesuffix(".git").lower()

    return _permitted(
        (fnmatch.fnmatchcase(normal(url), normal(pattern.removeprefix("!"))), pattern.startswith("!"))
        for pattern in patterns
    )


def _lists(entries: Iterable[dict[str, str]], key: Key) -> bool:
    return any(
        fnmatch.fnmatchcase(key.group, entry.get("group", "")) and fnmatch.fnmatchcase(key.kind, entry.get("kind", ""))
        for entry in entries
    )


# ---- the first start of argocd-server --------------------------------------------------------------------------------


def first_start(store: Store, random: random.Random, *, starts: bool) -> None:
    """Create what argocd-server creates when it is missing: project `default`; as it `starts`, keys and a password."""
    if store.registry.find(API, "AppProject") and not store.find(API, "AppProject", "default", NAMESPACE):
        everything = {"server": "*", "namespace": "*"}
        spec = {"sourceRepos": ["*"], "destinations": [everything]}
        spec["clusterResourceWhitelist"] = [{"group": "*", "kind": "*"}]
        project = {"apiVersion": API, "kind": "AppProject", "metadata": {"name": "default", "namespace": NAMESPACE}}
        store.create(project | {"spec": spec}, SERVER)
    own = store.find("v1", "Secret", "argocd-secret", NAMESPACE)
    has = (own or {}).get("data") or {}
    if not starts:
        return
    letters = string.ascii_letters + string.digits
    password, key, digest = ("".join(random.choices(letters, k=length)) for length in (16, 44, 53))
    values = {} if has.get("server.secretkey") else {"server.secretkey": key}
    if not has.get("admin.password"):
        values |= {"admin.password": f"$2a$10${digest}", "admin.passwordMtime": timestamp()}
        _write_secret(store, "argocd-initial-admin-secret", {"password": password})
    if values:
        _write_secret(store, "argocd-secret", values)


def _write_secret(store: Store, name: str, values: dict[str, str]) -> None:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    if store.find("v1", "Secret", name, NAMESPACE):
        store.patch("v1", "Secret", name, NAMESPACE, body={"data": data}, write=SERVER)
    else:
        metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/part-of": "argocd"}}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
        store.create(secret, SERVER)
