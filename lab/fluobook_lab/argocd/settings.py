"""What the operator has set: argocd-cm, argocd-cmd-params-cm and the repo-server's pod template, as the cluster has it.

The lab invents nothing here: a setting that the chart does not bring to the cluster is not there, as in reality.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from fluobook_lab.argocd.names import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

HEALTH = "resource.customizations.health."
IGNORED = "resource.customizations.ignoreDifferences."
AGE_SECRET = "sops-age-key"  # noqa: S105  the name of a Secret
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Settings:
    """One reading of the settings.

    Args:
        build_options: of kustomize.
        health: Lua health checks by "group_Kind" (or "Kind" in the core group).
        ignored: `ignoreDifferences` that hold for all Applications.
        tracking: "annotation", "label" or "annotation+label".
        persist_health: whether `status.resources` carries health; Argo CD 3 leaves it out unless told.
        wave_delay: world seconds between waves.
        resync: world seconds between looks at the source; None where nobody said how many.
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
    """The settings as they stand in the cluster now."""
    data = _data(store, "argocd-cm")
    params = _data(store, "argocd-cmd-params-cm")
    repo_server = _pod(store.find("apps/v1", "Deployment", "argocd-repo-server", NAMESPACE))
    controller = _pod(store.find("apps/v1", "StatefulSet", "argocd-application-controller", NAMESPACE))
    return Settings(
        build_options=tuple(data.get("kustomize.buildOptions", "").split()),
        health=_health(data),
        ignored=_ignored(data),
        tracking=data.get("application.resourceTrackingMethod", "annotation"),
        persist_health=params.get("controller.resource.health.persist", "false") == "true",
        wave_delay=float(_env(controller).get("ARGOCD_SYNC_WAVE_DELAY") or 2),
        resync=duration(data["timeout.reconciliation"]) if "timeout.reconciliation" in data else None,
        age_key=_age_key(store, repo_server),
        has_ksops=any(mount.get("mountPath", "").endswith("/ksops") for mount in _mounts(repo_server)),
    )


def duration(text: str) -> float:
    """Seconds of a Go duration: "90s", "3m", "1h30m"; a bare number is seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smh]?)", str(text))
    return sum(float(number) * (0.001 if unit == "ms" else UNITS.get(unit, 1.0)) for number, unit in parts)


def _data(store: Store, name: str) -> dict[str, str]:
    found = store.find("v1", "ConfigMap", name, NAMESPACE)
    return (found or {}).get("data") or {}


def _health(data: Mapping[str, str]) -> dict[str, str]:
    """Both forms: one key a kind, and the older map of all."""
    scripts = {key.removeprefix(HEALTH): script for key, script in data.items() if key.startswith(HEALTH)}
    older = yaml.safe_load(data.get("resource.customizations", "")) or {}
    for kind, settings in older.items():
        if "health.lua" in (settings or {}):
            scripts.setdefault(kind.replace("/", "_"), settings["health.lua"])
    return scripts


def _ignored(data: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
    rules = []
    for key, text in data.items():
        if key.startswith(IGNORED):
            group, _, kind = key.removeprefix(IGNORED).rpartition("_")
            rule = yaml.safe_load(text) or {}
            where = {"group": "*", "kind": "*"} if kind == "all" else {"group": group, "kind": kind}
            rules.append({**rule, **where})
    return tuple(rules)


def _pod(workload: Obj | None) -> dict[str, Any]:
    return ((workload or {}).get("spec") or {}).get("template", {}).get("spec") or {}


def _env(pod: dict[str, Any]) -> dict[str, str]:
    return {
        entry["name"]: entry.get("value", "") for one in pod.get("containers") or () for entry in one.get("env") or ()
    }


def _mounts(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [mount for one in pod.get("containers") or () for mount in one.get("volumeMounts") or ()]


def _age_key(store: Store, pod: dict[str, Any]) -> str:
    """The key, if a volume brings it to where SOPS_AGE_KEY_FILE points; a Secret alone helps nobody."""
    wanted = _env(pod).get("SOPS_AGE_KEY_FILE", "")
    for volume in pod.get("volumes") or ():
        secret = (volume.get("secret") or {}).get("secretName", "")
        for mount in _mounts(pod):
            if secret and mount.get("name") == volume.get("name") and wanted.startswith(mount.get("mountPath", "\0")):
                found = store.find("v1", "Secret", secret, NAMESPACE) or {}
                return _decoded((found.get("data") or {}).get(wanted.rpartition("/")[2], ""))
    return ""


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
