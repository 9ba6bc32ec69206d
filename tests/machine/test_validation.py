"""What Talos 1.13 refuses, in its words: each line was compared with `machinery` 1.13.9 of siderolabs/talos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fluobook.errors import ParamsError
from fluobook.machine import generate, merge
from fluobook.machine.document_checks import unwritable_files
from fluobook.machine.documents import dump, load
from fluobook.machine.validation import decoding_problem, fields, refusals

if TYPE_CHECKING:
    from fluobook.machine.secrets import SecretsBundle

DEDICATED = """
apiVersion: v1alpha1
kind: ResolverConfig
nameservers: [{address: 192.0.2.1}]
---
apiVersion: v1alpha1
kind: TimeSyncConfig
ntp: {servers: [ntp.example.net]}
"""


def problems(secrets: SecretsBundle, patch: str, role: str = "worker") -> list[str]:
    """Everything that Talos has against a generated configuration with a patch."""
    generated = generate("harbour", "https://192.0.2.9:6443", "1.35.2", secrets, "/dev/sda").of(role)
    documents = load(dump(merge(merge(generated, DEDICATED), patch)))
    undecodable = [problem for problem in map(decoding_problem, documents) if problem]
    return undecodable or [str(refusal) for refusal in refusals(documents)]


def volume(match: str, more: str = "minSize: 1GiB") -> str:
    selector = "'" + match.replace("'", "''") + "'"
    return f"""
        apiVersion: v1alpha1
        kind: UserVolumeConfig
        name: scratch
        provisioning: {{diskSelector: {{match: {selector}}}, {more}}}
    """


def document(kind: str, fields: str) -> str:
    return f"apiVersion: v1alpha1\nkind: {kind}\n{fields}\n"


REFUSED = {
    "machine: {time: {servers: [a.example.net]}}": "time servers cannot be specified in both v1alpha1 and new-style",
    "machine: {network: {nameservers: [192.0.2.53]}}": ".machine.network.nameservers is already set in v1alpha1 config",
    "machine: {network: {searchDomains: [a]}}": ".machine.network.searchDomains is already set in v1alpha1 config",
    "machine: {network: {hostname: a}}": "static hostname is already set in v1alpha1 config",
    "machine: {nodeLabels: {rack: 'row 4, left'}}": 'invalid machine node labels: label value "row 4, left" is invalid',
    "machine: {nodeLabels: {'/d': y}}": 'prefix cannot be empty: "/d"',
    "machine: {nodeLabels: {'a/b/c': y}}": 'invalid format: too many slashes: "a/b/c"',
    "machine: {nodeAnnotations: {'a b': y}}": 'invalid machine node annotations: name "a b" is invalid',
    "machine: {nodeTaints: {a: 'x:Never'}}": 'invalid machine node taints: invalid taint effect: "Never"',
    "machine: {features: {kubernetesTalosAPIAccess: {enabled: true}}}": "can only be enabled on control plane machines",
    "machine: {kubelet: {imagee: x}}": "unknown keys found during decoding:\nmachine:\n    kubelet:\n        imagee: x",
    document("RegistryMirrorConfig", "name: a\nendpoints: [{url: mirror.example.net}]"): (
        'RegistryMirrorConfig/a: endpoints[0].url has unsupported scheme: ""'
    ),
    document("UserVolumeConfig", "name: a\nvolumeType: directory\nprovisioning: {minSize: 1GiB}"): (
        "UserVolumeConfig/a: provisioning spec is invalid for volumeType directory"
    ),
    document("UserVolumeConfig", "name: a\nvolumeType: folder"): "folder does not belong to the values directory, disk",
    document(
        "RawVolumeConfig", "name: a\nprovisioning: {minSize: 1GiB}"
    ): "RawVolumeConfig/a: disk selector is required",
    document("VolumeConfig", "name: DATA"): 'only ["STATE" "EPHEMERAL" "IMAGECACHE"] volumes are supported',
    document("VLANConfig", "name: a\nparent: b"): "vlanID must be specified and between 1 and 4094",
    document("KmsgLogConfig", "name: a\nurl: http://a"): "url scheme must be tcp:// or udp://",
    document("NetworkRuleConfig", "name: a\nportSelektor: {}"): "unknown keys found during decoding:\nportSelektor: {}",
    document("Layer2VIPConfig", "name: 10.0.0.5/24\nlink: a"): "name must be a valid IP address",
    document("Nonsense", "name: a"): '"Nonsense" "v1alpha1": not registered',
    volume("disk.transport = 'nvme'"): "disk selector is invalid: ERROR: <input>:1:16: Syntax error: token recognition",
    volume("disk.size > 10"): "ERROR: <input>:1:11: found no matching overload for '_>_' applied to '(uint, int)'",
    volume("disk.siz > 1u"): "ERROR: <input>:1:5: undefined field 'siz'",
    volume("dsk.size > 1u"): "ERROR: <input>:1:1: undeclared reference to 'dsk' (in container '')",
    volume("disk.size"): "disk selector is invalid: expression output type is uint, expected bool",
    volume("(system_disk"): "Syntax error: missing ')' at '<EOF>'",
    volume("disk.size > 1u and system_disk"): "input 'and' expecting <EOF>",
    volume("system_disk", "grow: true"): "min size or max size is required",
    volume("system_disk", "minSize: 2GiB, maxSize: 1GiB"): "min size is greater than max size",
    volume("system_disk", "minSize: 1Gx"): "unhandled size name: gx",
}


@pytest.mark.parametrize("patch", REFUSED)
def test_what_talos_refuses_is_refused_in_its_words(secrets: SecretsBundle, patch: str) -> None:
    refused = problems(secrets, patch)
    assert len(refused) == 1, refused
    assert REFUSED[patch] in refused[0]


@pytest.mark.parametrize(
    "patch",
    [
        "machine: {nodeTaints: {a: NoSchedule, b/c: 'x:NoExecute'}, nodeLabels: {example.org/rack: row-4}}",
        "machine: {install: {extraKernelArgs: [net.ifnames=0]}}",
        volume("disk.transport == 'nvme' && disk.size > 10u * GB"),
        volume("!system_disk && (disk.rotational || disk.dev_path.startsWith('/dev/sd'))"),
        volume("'/dev/disk/by-id/a' in disk.symlinks || disk.symlinks.exists(s, s.contains('b'))"),
        volume("glob('/dev/nvme*', disk.dev_path) ? disk.size >= 1u * TiB : false"),
        volume("true", "minSize: 2GiB, maxSize: 50%"),
        document("UserVolumeConfig", "name: a\nvolumeType: directory"),
        document("ExistingVolumeConfig", "name: a\ndiscovery: {volumeSelector: {match: 'volume.label == \"x\"'}}"),
        document("LinkAliasConfig", "name: a\nselector: {match: 'mac(link.permanent_addr) == \"00:11\"'}"),
        document("RegistryMirrorConfig", "name: a\nendpoints: [{url: https://mirror.example.net}]"),
        document("BondConfig", "name: a\nlinks: [b]\nbondMode: 802.3AD\nlacpRate: FAST"),
        document(
            "NetworkRuleConfig", "name: a\nportSelector: {ports: [80], protocol: TCP}\ningress: [{subnet: '::/0'}]"
        ),
        document("UserVolumeConfig", "name: a\nvolumeType: DISK\nprovisioning: {diskSelector: {match: 'true'}}"),
        document("VolumeConfig", "name: STATE\nencryption: {provider: LUKS2, keys: [{slot: 0, nodeID: {}}]}"),
        document("LinkConfig", "name: eth9") + "---\n" + document("EthernetConfig", "name: eth9"),
    ],
)
def test_what_talos_accepts_is_accepted(secrets: SecretsBundle, patch: str) -> None:
    assert problems(secrets, patch) == []


def test_a_control_plane_may_give_pods_access_to_talos(secrets: SecretsBundle) -> None:
    access = "machine: {features: {kubernetesTalosAPIAccess: {enabled: true, allowedRoles: [%s]}}}"
    assert problems(secrets, access % "os:reader", "controlplane") == []
    assert "invalid role" in problems(secrets, access % "os:nobody", "controlplane")[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("LinkConfig", "name: a"), ("DummyLinkConfig", "name: a")),
        (("VLANConfig", "name: a\nvlanID: 9\nparent: eth0"), ("BridgeConfig", "name: a")),
        (
            ("Layer2VIPConfig", "name: 10.0.0.9\nlink: eth0"),
            ("HCloudVIPConfig", "name: 10.0.0.9\nlink: eth0\napiToken: x"),
        ),
    ],
)
def test_one_name_has_one_kind(secrets: SecretsBundle, one: tuple[str, str], other: tuple[str, str]) -> None:
    (refused,) = problems(secrets, document(*one) + "---\n" + document(*other))
    assert refused.startswith(f"conflicting documents: {one[0]}/")
    assert f" and {other[0]}/" in refused


def test_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"patch\.yaml:2 has `machine` twice"):
        load("machine: {sysctls: {a: b}}\nmachine: {kubelet: {}}\n", "patch.yaml")


MAPS = [
    (owner, key, kind["map"])
    for owner, own in fields(newer=True).items()
    for key, kind in own.items()
    if isinstance(kind, dict) and "map" in kind
]
"""Every field that is a mapping with free names: its type, its name, and the type of its values."""
NESTED: dict[str, Any] = {
    "v1alpha1.APIServerConfig": "cluster.apiServer",
    "v1alpha1.ClusterConfig": "cluster",
    "v1alpha1.ControllerManagerConfig": "cluster.controllerManager",
    "v1alpha1.EtcdConfig": "cluster.etcd",
    "v1alpha1.KubeletConfig": "machine.kubelet",
    "v1alpha1.LoggingDestination": "machine.logging.destinations",
    "v1alpha1.MachineConfig": "machine",
    "v1alpha1.ProxyConfig": "cluster.proxy",
    "v1alpha1.RegistriesConfig": "machine.registries",
    "v1alpha1.SchedulerConfig": "cluster.scheduler",
}
"""Where the parts of the v1alpha1 document are."""


def decoded(owner: str, key: str, value: Any, talos: str = "1.14") -> str:
    """Why a version of Talos cannot read a value of one name in a mapping."""
    content: Any = {key: {"a": value}}
    if owner not in NESTED:
        (kind,) = fields(newer=True)[owner]["kind"]["enum"]
        return decoding_problem({"apiVersion": "v1alpha1", "kind": kind, **content}, talos)
    for part in reversed(NESTED[owner].split(".")):
        content = {part: [content] if part == "destinations" else content}
    return decoding_problem(content, talos)


@pytest.mark.parametrize(("owner", "key", "kind"), MAPS)
def test_the_values_of_every_mapping_have_its_type(owner: str, key: str, kind: str) -> None:
    right = {"string": ["1", 1, 1.5, True, None], "argument": ["1", 1, ["1", 2], [], None], "boolean": [True, "off"]}
    wrong = {
        "string": [{}, {"b": "c"}, [], ["c"]],
        "argument": [{"b": "c"}, [{"b": "c"}], [["c"]]],
        "boolean": ["maybe", 1, {}, []],
    }
    for value in right.get(kind, [{}]):
        assert decoded(owner, key, value) == "", value
    for value in wrong.get(kind, ["text", ["c"]]):
        assert f"{key}.a: cannot unmarshal a" in decoded(owner, key, value), value


@pytest.mark.parametrize("part", ["apiServer", "controllerManager", "scheduler"])
def test_the_resources_of_a_component_are_requests_and_limits(part: str) -> None:
    def problem(value: Any) -> str:
        return decoding_problem({"cluster": {part: {"resources": value}}})

    assert problem({"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "2Gi"}}) == ""
    assert "requests: cannot unmarshal a list" in problem({"requests": ["cpu"]})
    assert "unknown keys found during decoding" in problem({"request": {"cpu": 1}})


def test_talos_1_12_has_no_lists_of_arguments() -> None:
    assert decoded("v1alpha1.KubeletConfig", "extraArgs", ["a", "b"], "1.12.4").endswith("a list into string")
    assert decoded("v1alpha1.KubeletConfig", "extraArgs", "a", "1.12.4") == ""


def test_a_certificate_of_a_document_has_two_texts_and_nothing_else() -> None:
    def problem(value: Any) -> str:
        return decoding_problem({"apiVersion": "v1alpha1", "kind": "KubeAPIServerCAConfig", "issuingCA": value}, "1.14")

    assert problem({"cert": "-", "key": "-"}) == ""
    assert "unknown keys found during decoding:\nissuingCA:\n    crt: '-'" in problem({"crt": "-", "key": "-"})
    assert "issuingCA.cert: cannot unmarshal a dict into string" in problem({"cert": {}, "key": "-"})


@pytest.mark.parametrize(
    ("path", "operation", "problem"),
    [
        ("/var/etc/a", "create", ""),
        ("var/etc/a", "create", ""),
        ("/etc/motd", "create", 'create operation not allowed outside of /var: "/etc/motd"'),
        ("/variable/a", "create", 'create operation not allowed outside of /var: "/variable/a"'),
        ("", "create", "create operation not allowed outside of /var"),
        ("/etc/containerd/config.toml", "append", ""),
        ("/etc/hosts", "overwrite", ""),
        ("/var/a", "replace", 'unknown operation for file "/var/a": "replace"'),
        ("/var/a", None, 'unknown operation for file "/var/a": ""'),
        ("/etc/kubernetes/manifests/a.yaml", "create", ""),
        ("/etc/kubernetes/manifests/more/a.yaml", "create", "create operation not allowed outside of /var"),
        ("/etc/cri/conf.d/20-customization.part", "create", ""),
        ("/etc/cri/conf.d/30-own.part", "create", "create operation not allowed outside of /var"),
    ],
)
def test_files_that_talos_cannot_write_are_known(path: str, operation: str | None, problem: str) -> None:
    found = list(unwritable_files({"files": [{"path": path, "op": operation, "content": "a"}]}))
    assert len(found) == bool(problem)
    assert not found or problem in found[0]
