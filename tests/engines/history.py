"""What Argo CD did on a lab, by its Applications' own words and by the timeline that the lab keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab import life

from fluobook import gitops

if TYPE_CHECKING:
    from tests.engines.conftest import RealLab

WELL = ("Synced Healthy Succeeded", "Synced Healthy")
"""How the state of an Application reads that lets the next wave begin; the second is of one that needed no sync."""


def applications(lab: RealLab) -> list[dict[str, Any]]:
    return list(lab.context.kube().list("argoproj.io/v1alpha1", "Application", "argocd"))


def states(lab: RealLab) -> dict[str, tuple[str, str]]:
    """Sync and health of each Application; empty while nobody has looked at it."""
    return {app["metadata"]["name"]: (_status_of(app, "sync"), _status_of(app, "health")) for app in applications(lab)}


def _status_of(app: dict[str, Any], part: str) -> str:
    return str(((app.get("status") or {}).get(part) or {}).get("status", ""))


def resources(lab: RealLab) -> dict[str, dict[str, str]]:
    """Of each Application its objects with their sync status; their health is persisted by the real one alone."""
    return {
        app["metadata"]["name"]: {
            _title(resource): resource["status"]
            for resource in app["status"].get("resources") or []
            if resource.get("status")  # hooks have none, and are listed by one of the two alone
        }
        for app in applications(lab)
    }


def _title(resource: dict[str, Any]) -> str:
    return f"{resource.get('group', '')}/{resource['kind']} {resource.get('namespace', '')}/{resource['name']}"


def waves_of(lab: RealLab) -> list[list[gitops.Application]]:
    tree = gitops.for_phase(lab.context.platform, gitops.read(lab.context.root, lab.context.platform.gitops.path))
    return [list(wave) for wave in gitops.waves(tree).values()]


def too_early(lab: RealLab) -> list[str]:
    """Applications that were there before every one of an earlier wave had once been well."""
    created: dict[str, float] = {}
    well: dict[str, float] = {}
    for line in life.activity(lab.lab)["applications"]:
        created.setdefault(line["application"], line["at"])
        if line["state"].strip() in WELL:
            well.setdefault(line["application"], line["at"])
    early, bound = [], 0.0
    for wave in waves_of(lab):
        early += [application.name for application in wave if created.get(application.name, bound) < bound]
        bound = max([bound, *(well.get(application.name, float("inf")) for application in wave)])
    return early
