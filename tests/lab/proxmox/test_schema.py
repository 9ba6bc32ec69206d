"""Requests that Proxmox VE refuses, and the values of options that it accepts."""

import json
import re
import runpy
from pathlib import Path

import pytest
import requests
import yaml
from fluobook_lab.proxmox import schema
from fluobook_lab.proxmox.options import PveError

from tests.conftest import SECRET

pytestmark = pytest.mark.lab

CREATE = "POST /nodes/{node}/qemu"
WRONG = yaml.safe_load(Path(__file__).with_name("wrong_requests.yaml").read_text())


class Http:
    """Sends requests as a script without a client library does; tasks are waited for."""

    def __init__(self, rig, ca_file):
        self._lab, self._session, self._authority = rig.lab, requests.Session(), str(ca_file)
        self._session.headers["Authorization"] = f"PVEAPIToken=fluobook@pve!fluobook={SECRET}"

    def send(self, method, path, params=None):
        url = f"https://pve1.lab:{self._lab.port}/api2/json{path if path[0] == '/' else f'/nodes/pve1/{path}'}"
        place = "params" if method in {"get", "delete"} else "data"
        return self._session.request(method, url, **{place: params or {}}, verify=self._authority, timeout=10)

    def exit_status(self, upid):
        while True:
            status = self.send("get", f"tasks/{upid}/status").json()["data"]
            if status["status"] == "stopped":
                return status["exitstatus"]

    def run(self, method, path, params=None):
        return self.exit_status(self.send(method, path, params).json()["data"])


@pytest.fixture
def http(plain, ca_file):
    rig, _ = plain(speed=200)
    client = Http(rig, ca_file)
    assert client.run("post", "qemu", {"vmid": 100, "memory": 1024, "start": 1}) == "OK"
    assert client.run("post", "qemu", {"vmid": 101, "scsi0": "local-lvm:8", "net0": "virtio,bridge=vmbr0"}) == "OK"
    rig.background.call(rig.lab.add_vm, 102, "locked", "pve1", config={"lock": "backup"})
    rig.background.call(rig.lab.add_vm, 103, "protected", "pve1", config={"protection": "1"})
    return client


def answer(http, method, path, params, expected):
    """The answer to a request in the form of the table: the status, and the parameters or the text at fault."""
    response = http.send(method, path.format(upid=http.send("get", "/cluster/tasks").json()["data"][0]["upid"]), params)
    body = response.json()
    if response.status_code == 200 and str(body["data"]).startswith("UPID:"):
        return "task", http.exit_status(body["data"])
    return response.status_code, sorted(body["errors"]) if isinstance(expected, list) else body.get("message", "")


def test_wrong_requests_are_answered_as_proxmox_ve_answers_them(http):
    different = []
    for method, path, params, status, at_fault in WRONG:
        actual = answer(http, method, path, params, at_fault)
        same = actual[1] == at_fault if isinstance(at_fault, list) else at_fault in actual[1]
        if actual[0] != status or not same:
            different.append((method, path, params, actual))
    assert different == []
    assert len(WRONG) > 97


def test_refused_requests_change_nothing(http):
    before = [http.send("get", f"qemu/{vmid}/config").json() for vmid in (100, 101, 102, 103)]
    for method, path, params, status, at_fault in WRONG:
        if method != "get" and status != "task":
            answer(http, method, path, params, at_fault)
    assert [http.send("get", f"qemu/{vmid}/config").json() for vmid in (100, 101, 102, 103)] == before
    assert sorted(vm["vmid"] for vm in http.send("get", "qemu").json()["data"]) == [100, 101, 102, 103]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agent", "1"),
        ("agent", "enabled=yes,type=virtio,fstrim_cloned_disks=1"),
        ("boot", "order=scsi0;ide2;net0"),
        ("boot", "cdn"),
        ("cpu", "host"),
        ("cpu", "custom-talos"),
        ("cpu", "cputype=x86-64-v3,flags=+aes;-pcid"),
        ("description", "made by a runbook\n\nof ours"),
        ("efidisk0", "local-lvm:1,efitype=4m,pre-enrolled-keys=0,format=raw"),
        ("ide2", "local:iso/talos.iso,media=cdrom"),
        ("ide2", "none,media=cdrom"),
        ("ide0", "local-lvm:cloudinit"),
        ("ipconfig0", "ip=10.10.0.10/24,gw=10.10.0.1"),
        ("ipconfig0", "ip=dhcp,ip6=auto"),
        ("ipconfig1", "ip6=fd00::10/64,gw6=fd00::1"),
        ("machine", "q35,viommu=virtio"),
        ("machine", "pc-q35-9.0+pve1"),
        ("memory", "current=4096"),
        ("name", "talos-cp-1.example.org"),
        ("nameserver", "10.0.0.1 dns.example.org fd00::53"),
        ("net0", "virtio,bridge=vmbr0,tag=42,firewall=0,mtu=1450"),
        ("net0", "model=virtio,macaddr=BC:24:11:00:01:20,bridge=vmbr0"),
        ("net31", "e1000=BC:24:11:00:01:20,trunks=1;5-7"),
        ("scsi0", "local-lvm:20,discard=on,iothread=1,ssd=1,serial=talos-system,size=20G"),
        ("scsi30", "volume=local-lvm:vm-100-disk-0"),
        ("serial0", "socket"),
        ("smbios1", "uuid=6e1b0f3c-2a55-5b9c-8f55-0a7a0f2a1b3c,base64=1,serial=dGFsb3M="),
        ("startup", "order=2,up=30,down=60"),
        ("startup", "5"),
        ("tags", "fluobook;talos worker,a+b"),
        ("tpmstate0", "local-lvm:1,version=v2.0"),
        ("vga", "serial0"),
        ("vga", "type=virtio,memory=64"),
        ("watchdog", "i6300esb,action=reset"),
    ],
)
def test_values_that_proxmox_ve_accepts_are_accepted(name, value):
    schema.check(CREATE, {"node": "pve1", "vmid": "100", name: value})


@pytest.mark.parametrize(
    "options", [{"scsi0": "volume=local-lvm:4,ssd=1"}, {"numa": 1, "numa0": "cpus=0-1,memory=1024"}]
)
def test_a_token_of_an_administrator_creates_a_vm_with_any_valid_option(http, options):
    assert http.run("post", "qemu", {"vmid": 200, **options}) == "OK"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("virtio,bridge=vmbr0,tag=0", "format error\nnet0.tag: value must have a minimum value of 1"),
        ("virtio,", ""),
        ("virtio,=x", "missing key in comma-separated list property"),
        ("virtio,vlan=1", "invalid key in comma-separated list property: vlan"),
        ("virtio=BC:24:11:00:01:20,model=e1000", "duplicate key in comma-separated list property: model"),
        ("model=e1000,virtio=BC:24:11:00:01:20", "key alias 'model' is already defined"),
        ("", "format error\nnet0.model: property is missing and it is not optional"),
    ],
)
def test_a_property_string_is_refused_with_the_property_at_fault(value, problem):
    values = {"node": "pve1", "vmid": "100", "net0": value}
    if not problem:
        return schema.check(CREATE, values)
    with pytest.raises(PveError) as refused:
        schema.check(CREATE, values)
    assert refused.value.errors == {"net0": f"invalid format - {problem}"}
    return None


def test_every_pattern_and_format_of_the_description_is_known():
    names = set(
        re.findall(r'"format": "([^"]+)"', json.dumps([schema.vm_options(), schema.table("proxmox/formats.yaml")]))
    )
    accepting = {name for name in names if schema._format(name, " not ; valid = ?") == ""}
    properties = schema.table("proxmox/formats.yaml")["properties"].keys() | {"pve-qm-ide"}
    assert accepting - properties == {"pve-qemu-tdx-fmt"}


def test_the_description_is_extracted_from_proxmox_ves_own():
    tool = runpy.run_path(str(Path(__file__).parents[3] / "tools" / "pve_api.py"))
    facts = {"type": "integer", "minimum": 1, "optional": 1, "description": "text", "typetext": "<integer>"}
    assert tool["_facts"](facts) == {"type": "integer", "minimum": 1, "optional": 1}
    nested = {"type": "string", "format": {"file": {"default_key": 1, "type": "string", "pattern": "(?^:a{,2})"}}}
    assert tool["_facts"](nested) == {
        "type": "string",
        "properties": {"file": {"type": "string", "default": True, "pattern": "(?:a{0,2})"}},
    }


def test_a_hosts_tasks_are_listed_by_their_filters(http):
    failing = http.send("put", "qemu/101/resize", {"disk": "scsi9", "size": "+1G"}).json()["data"]
    assert http.exit_status(failing) == "disk 'scsi9' does not exist"

    def listed(**filters):
        return [
            (task["type"], task["id"], task["status"]) for task in http.send("get", "tasks", filters).json()["data"]
        ]

    created = [("qmcreate", "101", "OK"), ("qmcreate", "100", "OK")]
    assert listed() == [("resize", "101", "disk 'scsi9' does not exist"), *created]
    assert listed(typefilter="qmcreate") == created
    assert listed(vmid=100) == created[1:]
    assert listed(errors=1) == listed(statusfilter="error,unknown") == listed()[:1]
    assert listed(statusfilter="OK", limit=1) == created[:1]
    assert listed(start=1, limit=1) == created[:1]
    assert listed(source="active") == listed(typefilter="qm") == listed(userfilter="root") == listed(limit=0) == []
    assert listed(source="all", userfilter="FluoBook") == listed()
    task = http.send("get", "tasks", {"limit": 1}).json()["data"][0]
    assert (task["user"], task["tokenid"], task["upid"]) == ("fluobook@pve", "fluobook", failing)
    assert listed(since=task["starttime"] + 1) == []


def test_a_change_of_options_can_be_a_task(http):
    assert http.run("post", "qemu/101/config", {"cores": 3, "delete": "net0"}) == "OK"
    config = http.send("get", "qemu/101/config").json()["data"]
    assert (config["cores"], "net0" in config) == (3, False)


def test_a_model_of_an_administrator_can_be_used_by_those_who_may_audit_hosts(plain, ca_file):
    rig, _ = plain(speed=200, cpu_models=["custom-db"])
    client = Http(rig, ca_file)
    assert client.run("post", "qemu", {"vmid": 100, "cpu": "custom-db"}) == "OK"
    errors = client.send("post", "qemu", {"vmid": 101, "cpu": "cputype=custom-web"}).json()["errors"]
    assert errors == {"cpu": "invalid format - Custom cputype 'web' not found\n"}


@pytest.mark.parametrize(
    "rule",
    [
        {"proto": "udp", "dport": "51820", "source": "10.0.0.1"},
        {"proto": "tcp", "dport": "22,80:85,https", "source": "10.0.0.0/24,10.1.0.1-10.1.0.9,+dc/hosts,fd00::/8"},
        {"proto": "17", "sport": "1024:65535", "iface": "vmbr0"},
    ],
)
def test_rules_that_proxmox_ve_accepts_are_accepted(http, rule):
    assert http.send("post", "firewall/rules", {"type": "in", "action": "ACCEPT", **rule}).status_code == 200
