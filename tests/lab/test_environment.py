"""What the parts of one lab know of each other."""

import pytest

from fluobook.waiting import Cancellation, wait_until
from tests.stages.conftest import labs, programs  # noqa: F401  the fixtures of labs

pytestmark = pytest.mark.lab


def test_talos_reports_what_kubernetes_says_and_kubernetes_the_boot_of_talos(labs):  # noqa: F811
    lab = labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    nodes = list(lab.environment.machines.nodes.values())
    ready = lambda: all(node.node_ready for node in nodes) or None  # noqa: E731
    wait_until(ready, what="readiness", timeout=30, cancellation=Cancellation(), interval=0.05)
    objects = lab.background.call(lab.environment.kubernetes.store.list, "v1", "Node")
    boots = {obj["metadata"]["name"]: obj["status"]["nodeInfo"]["bootID"] for obj in objects}
    assert boots == {node.hostname: node.boot_id for node in nodes}
    assert len(set(boots.values())) == len(nodes) > 1
