"""What a lab with the real engine loads of the embedded API: what the mirror and its controllers need, no more."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import sys
from fluobook_lab import __main__
from fluobook_lab.engines import argocd, kubernetes
print(*sorted(name.removeprefix("fluobook_lab.") for name in sys.modules if name.startswith("fluobook_lab.")))
"""
EMBEDDED_API = {
    *(
        "controllers",
        "controllers.backups",
        "controllers.certificates",
        "controllers.created",
        "controllers.gateways",
        "controllers.issuing",
        "controllers.loop",
    ),
    *("controllers.nodes", "controllers.operators"),
    *("controllers.services", "controllers.volumes", "access", "errors", "kubelet", "objects", "resources", "schemas"),
    *("discovery", "metrics", "selectors", "snapshots", "storage", "system"),
}
"""Objects, kinds, reading, metrics, the controllers of what no program plays; no HTTP, validation or admission."""


def test_the_real_engine_loads_of_the_embedded_api_what_its_mirror_needs() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=200, check=True)
    loaded = done.stdout.split()
    kube = {name.removeprefix("kube.") for name in loaded if name.startswith("kube.")}
    assert kube == EMBEDDED_API
    assert [name for name in loaded if name.startswith("argocd.")] == [
        "argocd.ksops",
        "argocd.objects",
        "argocd.repo_server",
    ]
    assert "kubernetes_side" not in loaded
