"""Second opinions: our Proxmox VE client on somebody else's Proxmox VE, our Talos client and nodes on foreign bindings.

Each lives in an environment of its own, see `environments`: their dependencies do not fit ours.
"""

from __future__ import annotations

import base64
import json
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook.clients.proxmox import ProxmoxClient, ProxmoxEndpoint
from fluobook.clients.talos import Address, connect
from fluobook.errors import AccessDenied, Conflict
from fluobook.machine import pki
from tests.engines.environments import alone, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.engines.conftest import RealLab

FOREIGN = Path(__file__).with_name("foreign")
TOKEN, SECRET = "root@pam!fluobook", "0f1e2d3c-aaaa-bbbb-cccc-0123456789ab"
BOUND = 120


@contextmanager
def served(*command: str) -> Iterator[int]:
    """A foreign server; its port."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=alone()) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def proxmox(programs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxmoxClient]:
    del programs  # left out together with what needs the engines
    python, folder = environment("fakepve-0.5.0", "fakepve[crypto]==0.5.0"), tmp_path_factory.mktemp("proxmox")
    authority = pki.new_authority(organization="lab", common_name="lab CA")
    issued = pki.issue(authority, common_name="pve1", ips=("192.0.2.5",), server=True)
    for name, text in {"ca.pem": authority.crt, "crt.pem": issued.crt, "key.pem": pki.openssl_key(issued.key)}.items():
        (folder / name).write_text(text)
    files = (str(folder / "crt.pem"), str(folder / "key.pem"))
    with served(python, str(FOREIGN / "proxmox_server.py"), *files, TOKEN, SECRET) as port:
        client = ProxmoxClient(endpoint(port, folder, SECRET))
        yield client
        client.close()


def endpoint(port: int, folder: Path, secret: str) -> ProxmoxEndpoint:
    return ProxmoxEndpoint(
        name="foreign",
        url="https://192.0.2.5:8006",
        token_id=TOKEN,
        token_secret=secret,
        address=("127.0.0.1", port),
        ca_file=str(folder / "ca.pem"),
    )


def test_our_client_makes_starts_stops_and_removes_a_vm_on_another_s_proxmox(proxmox: ProxmoxClient) -> None:
    (node, *_) = [entry["node"] for entry in proxmox.nodes()]
    assert proxmox.version()["version"].startswith("9")
    vmid = 8001
    assert vmid not in {vm["vmid"] for vm in proxmox.resources("vm")}
    given = {"name": "cp-1", "cores": 2, "memory": 2048, "bios": "ovmf", "scsi0": "local-lvm:20", "agent": "1"}
    given |= {"net0": "virtio=BC:24:11:AA:00:01,bridge=vmbr0", "tags": "fluobook", "smbios1": "uuid=" + SECRET}
    for task in (lambda: proxmox.create_vm(node, vmid=vmid, **given), lambda: proxmox.start(node, vmid)):
        assert proxmox.wait(task(), deadline=BOUND).ok
    config = proxmox.config(node, vmid)
    assert (config["name"], config["cores"], config["tags"]) == ("cp-1", 2, "fluobook")
    assert proxmox.vm_status(node, vmid)["status"] == "running"
    proxmox.configure(node, vmid, {"description": "ours"}, digest=config["digest"])
    with pytest.raises(Conflict):
        proxmox.configure(node, vmid, {"description": "again"}, digest="0" * 40)
    assert vmid in {vm["vmid"] for vm in proxmox.resources("vm")}
    for task in (lambda: proxmox.stop(node, vmid), lambda: proxmox.delete(node, vmid)):
        assert proxmox.wait(task(), deadline=BOUND).ok
    assert vmid not in {vm["vmid"] for vm in proxmox.resources("vm")}


def test_a_wrong_token_is_denied_by_another_s_proxmox(proxmox: ProxmoxClient) -> None:
    wrong = ProxmoxClient(replace(proxmox.endpoint, token_secret="wrong"))
    with pytest.raises(AccessDenied):
        wrong.nodes()
    wrong.close()


@pytest.fixture(scope="module")
def bindings(programs: dict[str, str]) -> str:
    del programs
    return environment("talos-linux-api-1.6.0", "talos-linux-api-v1-6-0==0.1.0")


def test_foreign_bindings_understand_our_talos_nodes(
    bindings: str, real_labs: Callable[..., RealLab], tmp_path: Path
) -> None:
    lab = real_labs(engine="embedded")
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    config = yaml.safe_load((lab.lab.cluster_folder / "talosconfig").read_text())
    context = config["contexts"][config["context"]]
    pair = {name: decoded(context[name]) for name in ("ca", "crt", "key")}
    (tmp_path / "ca.pem").write_text(pair["ca"])
    (tmp_path / "client.pem").write_text(pair["crt"] + pki.openssl_key(pair["key"]))
    node = lab.context.platform.control_planes[0]
    _, port = lab.context.platform.route(node.address, 50000)
    files = (str(tmp_path / "ca.pem"), str(tmp_path / "client.pem"))
    command = [bindings, str(FOREIGN / "talos_client.py"), str(port), node.address, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, env=alone(), check=False)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    assert facts["version"] == f"v{lab.context.platform.versions.talos}"
    assert (facts["platform"], facts["hostname"], facts["bootstrap"]) == ("nocloud", node.name, "ALREADY_EXISTS")
    assert facts["services"]["etcd"] == "Running"


def test_our_talos_client_understands_a_server_of_foreign_bindings(bindings: str, tmp_path: Path) -> None:
    authority = pki.new_authority(organization="talos", algorithm="ed25519")
    issued = pki.issue(authority, common_name="node", ips=("10.10.0.10",), server=True)
    ours = pki.issue(authority, organizations=["os:admin"], client=True)
    (tmp_path / "ca.pem").write_text(authority.crt)
    (tmp_path / "node.pem").write_text(issued.crt + pki.openssl_key(issued.key))
    with served(
        bindings, str(FOREIGN / "talos_server.py"), str(tmp_path / "node.pem"), str(tmp_path / "ca.pem")
    ) as port:
        node = connect(
            Address("127.0.0.1", port, server_name="10.10.0.10"), ca=authority.crt, crt=ours.crt, key=ours.key
        )
        with node:
            assert node.version().tag == "v1.6.0"
            assert [(s.id, s.state, s.healthy) for s in node.services()] == [("etcd", "Running", True)]
            assert [(m.id, m.hostname) for m in node.etcd_members()] == [("00000000000000ff", "cp-1")]
            with pytest.raises(Conflict):
                node.bootstrap()


def decoded(text: str) -> str:
    return base64.b64decode(text).decode()
