"""Applications as the tree's health check sees them, with the verdict that the next wave begins or waits by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KEY = "resource.customizations.health.argoproj.io_Application"
MISSING = {"kind": "CustomResourceDefinition", "name": "nodes.longhorn.io", "status": "OutOfSync"}
LINGERING = {**MISSING, "requiresPruning": True}
IN_PLACE = {**MISSING, "status": "Synced"}


@dataclass(frozen=True)
class Case:
    """What an Application says of itself, and what follows."""

    name: str
    sync: str
    health: str
    phase: str
    verdict: str
    resources: tuple[dict[str, Any], ...] = ()

    def application(self) -> dict[str, Any]:
        parts = {"sync": self.sync, "health": self.health}
        status: dict[str, Any] = {part: {"status": value} for part, value in parts.items() if value}
        status |= {"operationState": {"phase": self.phase}} if self.phase else {}
        status |= {"resources": list(self.resources)} if self.resources else {}
        head = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "child"}}
        return {**head, "spec": {}, "status": status}


CASES = (
    Case("not looked at yet", "", "", "", "Progressing"),
    Case("nothing there yet", "OutOfSync", "Missing", "", "Progressing"),
    Case("synced, its objects on their way", "Synced", "Progressing", "Succeeded", "Progressing"),
    Case("a sync under way", "OutOfSync", "Healthy", "Running", "Progressing"),
    Case("a sync that failed", "OutOfSync", "Healthy", "Failed", "Progressing"),
    Case("a sync that ended in an error", "Synced", "Healthy", "Error", "Progressing"),
    Case("synced and healthy", "Synced", "Healthy", "Succeeded", "Healthy"),
    Case("there before it was to be synced", "Synced", "Healthy", "", "Healthy"),
    Case("never synced", "OutOfSync", "Healthy", "", "Progressing"),
    Case("degraded", "Synced", "Degraded", "Succeeded", "Degraded"),
    Case("degraded while a sync is under way", "OutOfSync", "Degraded", "Running", "Degraded"),
    Case("synced, but not all seen", "OutOfSync", "Healthy", "Succeeded", "Progressing", (IN_PLACE, MISSING)),
    Case("something to be pruned", "OutOfSync", "Healthy", "Succeeded", "Healthy", (IN_PLACE, LINGERING)),
    Case(
        "to be pruned, and something missing", "OutOfSync", "Healthy", "Succeeded", "Progressing", (LINGERING, MISSING)
    ),
)


def script() -> str:
    """The health check for Applications, as the tree has it."""
    path = ROOT / "cluster-gitops/infrastructure/argocd/application.yaml"
    return str(yaml.safe_load(path.read_text())["spec"]["source"]["helm"]["valuesObject"]["configs"]["cm"][KEY])
