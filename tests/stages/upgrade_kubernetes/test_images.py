"""Only images change in a node's configuration, and never if the node would restart for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from fluobook.clients.talos.resources import Applied
from fluobook.errors import Refused
from fluobook.stages.upgrade_kubernetes.work import images_in, set_images

OLD, NEW = "registry.example/{}:v1.35.4", "registry.example/{}:v1.36.2"
MAIN: dict[str, Any] = {
    "version": "v1alpha1",
    "machine": {"type": "controlplane", "sysctls": {"a": "1"}},
    "cluster": {},
}
CONTRACTS = {
    "1.13": [{**MAIN, "cluster": {"apiServer": {"image": OLD.format("kube-apiserver"), "certSANs": ["a"]}}}],
    "1.14": [MAIN, {"apiVersion": "v1alpha1", "kind": "KubeAPIServerConfig", "image": OLD.format("kube-apiserver")}],
}


class Talos:
    """A node that keeps what was applied; `mode` is how it takes it."""

    def __init__(self, documents: list[Any], mode: str = "NO_REBOOT") -> None:
        self.text, self.mode, self.applied = yaml.safe_dump_all(documents), mode, list[str]()

    def get(self, _kind: Any) -> Any:
        return SimpleNamespace(spec=self.text)

    def apply_configuration(self, text: str, *, dry_run: bool = False) -> Applied:
        if not dry_run:
            self.applied.append(text)
        return Applied(self.mode, "", ())


def change(talos: Talos) -> str:
    context: Any = SimpleNamespace(talos=SimpleNamespace(client=lambda _node, _role: talos))
    node: Any = SimpleNamespace(name="talos-cp-1", address="10.10.0.10")
    return set_images(context, node, {"kube-apiserver": NEW.format("kube-apiserver")})


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_image_changes_and_nothing_else(contract: str) -> None:
    talos = Talos(CONTRACTS[contract])
    assert change(talos) == "NO_REBOOT"
    (text,) = talos.applied
    after = list(yaml.safe_load_all(text))
    assert images_in(after) == {"kube-apiserver": NEW.format("kube-apiserver")}
    assert yaml.safe_dump_all(after).replace("v1.36.2", "v1.35.4") == talos.text


def test_a_node_that_has_the_image_is_left_alone() -> None:
    text = yaml.safe_dump_all(CONTRACTS["1.14"]).replace("v1.35.4", "v1.36.2")
    talos = Talos(list(yaml.safe_load_all(text)))
    assert (change(talos), talos.applied) == ("", [])


def test_a_node_that_would_restart_is_not_changed() -> None:
    talos = Talos(CONTRACTS["1.14"], mode="REBOOT")
    with pytest.raises(Refused, match="would not take the images of talos-cp-1 without a restart"):
        change(talos)
    assert talos.applied == []
