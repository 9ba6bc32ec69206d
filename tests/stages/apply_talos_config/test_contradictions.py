"""Machine configurations that contradict the params or the secrets bundle are refused before a node has one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fluobook import params
from fluobook.errors import ParamsError
from fluobook.failures import present
from fluobook.machine import contracts, pki
from fluobook.machine.secrets import new_secrets
from fluobook.stages.apply_talos_config import documents
from fluobook.stages.apply_talos_config.documents import refuse_contradictions

ROOT = Path(__file__).parents[3]
SECRETS, OTHER = new_secrets(), new_secrets()
REMOVED = object()

LONGHORN: dict[str, Any] = {
    "source": "/var/mnt/longhorn",
    "destination": "/var/mnt/longhorn",
    "type": "bind",
    "options": ["bind", "rshared", "rw"],
}

ANYWHERE: dict[str, tuple[str, Any, str]] = {
    "another token for Talos' certificates": ("machine.token", OTHER.trustd_token, "machine.token"),
    "Talos' authority of another cluster": ("machine.ca.crt", OTHER.talos.to_base64()["crt"], "machine.ca.crt"),
    "another name": ("cluster.clusterName", "other", "cluster.clusterName is other; the params say fluodata"),
    "another id": ("cluster.id", OTHER.cluster_id, "cluster.id is not that of the secrets bundle"),
    "another discovery secret": ("cluster.secret", OTHER.cluster_secret, "cluster.secret"),
    "no discovery secret": ("cluster.secret", REMOVED, "cluster.secret is missing"),
    "another bootstrap token": ("cluster.token", OTHER.bootstrap_token, "cluster.token"),
    "another authority": ("cluster.ca.crt", OTHER.kubernetes.to_base64()["crt"], "cluster.ca.crt"),
    "another endpoint": ("cluster.controlPlane.endpoint", "https://10.9.9.9:6443", "https://10.9.9.9:6443"),
    "another domain": ("cluster.network.dnsDomain", "k8s.internal", "cluster.network.dnsDomain is k8s.internal"),
    "another network of pods": ("cluster.network.podSubnets", ["10.200.0.0/16"], "cluster.network.podSubnets"),
    "another network of Services": ("cluster.network.serviceSubnets", ["10.112.0.0/12"], "serviceSubnets"),
    "no subnets": ("cluster.network.podSubnets", REMOVED, "cluster.network.podSubnets is not set"),
    "another kubelet": ("machine.kubelet.image", "ghcr.io/siderolabs/kubelet:v1.31.0", "machine.kubelet.image"),
    "no kubelet image": ("machine.kubelet.image", REMOVED, "machine.kubelet.image is not set"),
    "node addresses elsewhere": ("machine.kubelet.nodeIP.validSubnets", ["192.168.0.0/24"], "nodeIP.validSubnets"),
    "node addresses that are none": ("machine.kubelet.nodeIP.validSubnets", ["nonsense"], "nodeIP.validSubnets"),
    "node addresses left out": ("machine.kubelet.nodeIP.validSubnets", ["!10.10.0.0/24"], "nodeIP.validSubnets"),
    "kubelets that sign for themselves": ("machine.kubelet.extraArgs", {}, "rotate-server-certificates"),
    "kubelets that keep to themselves": ("machine.kubelet.skipNodeRegistration", True, "skipNodeRegistration"),
    "a mount over the data disk": ("machine.kubelet.extraMounts", [LONGHORN], "extraMounts has /var/mnt/longhorn"),
    "a mount from the data disk": (
        "machine.kubelet.extraMounts",
        [LONGHORN | {"destination": "/data"}],
        "extraMounts has /data",
    ),
    "a mount over all volumes": ("machine.kubelet.extraMounts", [LONGHORN | {"destination": "/var/mnt/"}], "/var/mnt"),
    "the mount of older guides": (
        "machine.kubelet.extraMounts",
        [{"source": "/var/lib/longhorn", "destination": "/var/lib/longhorn", "type": "bind"}],
        "extraMounts has /var/lib/longhorn",
    ),
    "a file outside /var": ("machine.files", [{"path": "/etc/motd", "op": "create"}], "not allowed outside of /var"),
    "the other role": ("machine.type", "init", "machine.type is init"),
}

CONTROL_PLANE: dict[str, tuple[str, Any, str]] = {
    "an authority without its key": ("cluster.ca.key", REMOVED, "cluster.ca.key is missing"),
    "Talos' authority without its key": ("machine.ca.key", REMOVED, "machine.ca.key is missing"),
    "no aggregator authority": ("cluster.aggregatorCA", REMOVED, "cluster.aggregatorCA.crt is missing"),
    "another aggregator authority": ("cluster.aggregatorCA", OTHER.aggregator.to_base64(), "cluster.aggregatorCA.crt"),
    "another authority of etcd": ("cluster.etcd.ca", OTHER.etcd.to_base64(), "cluster.etcd.ca.crt"),
    "etcd elsewhere": ("cluster.etcd.advertisedSubnets", ["192.168.0.0/24"], "cluster.etcd.advertisedSubnets"),
    "another service account key": (
        "cluster.serviceAccount.key",
        OTHER.as_mapping()["certs"]["k8sserviceaccount"]["key"],
        "cluster.serviceAccount.key is not that of the secrets bundle",
    ),
    "no encryption key": ("cluster.secretboxEncryptionSecret", REMOVED, "secretboxEncryptionSecret is missing"),
    "another encryption key": ("cluster.secretboxEncryptionSecret", OTHER.secretbox_encryption_secret, "secretbox"),
    "a second encryption key": ("cluster.aescbcEncryptionSecret", "c2Vjb25k", "cluster.aescbcEncryptionSecret"),
    "another API server": ("cluster.apiServer.image", "registry.k8s.io/kube-apiserver:v1.30.1", "apiServer.image"),
    "another scheduler": ("cluster.scheduler.image", REMOVED, "cluster.scheduler.image is not set"),
    "kube-proxy": ("cluster.proxy.disabled", REMOVED, "cluster.proxy.disabled"),
    "flannel": ("cluster.network.cni.name", "flannel", "cluster.network.cni.name is flannel"),
    "Talos' default network": ("cluster.network.cni", REMOVED, "cluster.network.cni.name is "),
    "no Cilium": ("cluster.inlineManifests", [], "cilium is missing"),
    "another Cilium": (
        "cluster.inlineManifests",
        [{"name": "cilium", "contents": "kind: List"}],
        "cilium is not what its Application renders to",
    ),
    "no admission": ("cluster.apiServer.admissionControl", REMOVED, "PodSecurity enforces not set"),
    "another plugin": ("cluster.apiServer.admissionControl", [{"name": "PodSecurty"}], "PodSecurity enforces not set"),
    "no names": ("cluster.apiServer.certSANs", REMOVED, "cluster.apiServer.certSANs lacks"),
    "no names for Talos": ("machine.certSANs", ["10.0.0.1"], "machine.certSANs lacks"),
}


def place(main: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    for name in above:
        main = main.setdefault(name, {})
    if value is REMOVED:
        del main[last]
    else:
        main[last] = value


def as_documents(main: dict[str, Any], others: list[Any]) -> list[Any]:
    """A v1alpha1 document by contract 1.14, with those of the others that it says nothing about."""
    made = contracts.split(main)
    for each in made:
        if each.get("kind") == "KubeProxyConfig":
            each["enabled"] = not contracts.value_at(main, "cluster.proxy.disabled")
    if contracts.value_at(main, "cluster.network.cni.name") != "none":
        made.append({"apiVersion": "v1alpha1", "kind": "KubeFlannelCNIConfig"})
    return [*made, *(each for each in others if contracts.fold([each]) == {} and each["kind"] != "KubeProxyConfig")]


class Rendered:
    """The texts of a phase whose endpoint is mapped to another name, and what they are made of."""

    def __init__(self, phase: str, contract: str = "1.13") -> None:
        platform = params.load(phase, root=ROOT).platform
        mapped = {f"{platform.api_address}:6443": "api.example.org:443"}
        mapped |= {f"{node.address}:50000": f"talos.example.org:{5000 + n}" for n, node in enumerate(platform.nodes)}
        self.platform = params.overlay(platform, {"endpoints": mapped, "versions": {"contract": contract}})
        folder = ROOT / "talos" / "patches" / contracts.folder_of(contract)
        patches = {name: (folder / f"{name}.yaml").read_text() for name in ("common", "controlplane", "worker")}
        self.ingredients = documents.Ingredients(patches, "factory.talos.dev/installer/x:v1.13.9", "kind: List\n")

    def spoiled(self, name: str, *changes: tuple[str, Any]) -> dict[str, str]:
        """All texts, one of them with changes to its v1alpha1 document, or to what it amounts to."""
        texts = documents.node_texts(self.platform, SECRETS, self.ingredients)
        main, *others = yaml.safe_load_all(texts[name])
        has_documents = contracts.has_documents(self.platform.versions.contract)
        if has_documents:
            main = contracts.fold([main, *others])
        for path, value in changes:
            place(main, path, value)
        if has_documents:
            others = as_documents(main, others)
            main = others.pop(0)
        return texts | {name: yaml.safe_dump_all([main, *others], sort_keys=False)}

    def refuse(self, texts: dict[str, str]) -> None:
        refuse_contradictions(self.platform, SECRETS, self.ingredients, texts)


@pytest.fixture(scope="module", params=[("phase1", "1.14"), ("phase3", "1.13")], ids="-".join)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return Rendered(*request.param)


def of_role(rendered: Rendered, role: str) -> str:
    return [node.name for node in rendered.platform.nodes if node.role == role][-1]


def test_what_the_tree_makes_is_accepted(rendered: Rendered) -> None:
    rendered.refuse(rendered.spoiled(rendered.platform.nodes[0].name))


@pytest.mark.parametrize("role", ["controlplane", "worker"])
@pytest.mark.parametrize("way", ANYWHERE)
def test_one_node_that_differs_is_named_with_the_field(rendered: Rendered, role: str, way: str) -> None:
    path, value, message = ANYWHERE[way]
    node = of_role(rendered, role)
    with pytest.raises(ParamsError) as caught:
        rendered.refuse(rendered.spoiled(node, (path, value)))
    assert caught.value.message.startswith(f"the machine configuration of {node}: ")
    assert message in present(caught.value).text()


@pytest.mark.parametrize("way", CONTROL_PLANE)
def test_one_control_plane_that_differs_is_named_with_the_field(rendered: Rendered, way: str) -> None:
    path, value, message = CONTROL_PLANE[way]
    node = of_role(rendered, "controlplane")
    with pytest.raises(ParamsError) as caught:
        rendered.refuse(rendered.spoiled(node, (path, value)))
    assert node in caught.value.message
    assert message in present(caught.value).text()
    assert not any(secret in present(caught.value).text() for secret in (*SECRETS.values(), *OTHER.values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"defaults": {"enforce": "privileged"}}, "enforces privileged by default"),
        ({"exemptions": {"namespaces": ["kube-system", "argocd"]}}, "exempts argocd"),
        ({"exemptions": {"usernames": ["system:serviceaccount:argocd:argocd"]}}, "exempts system:serviceaccount"),
    ],
)
def test_admission_that_lets_more_through_is_named(change: dict[str, Any], message: str) -> None:
    rendered = Rendered("phase1")
    settings = {"defaults": {"enforce": "baseline"}, "exemptions": {}} | change
    plugins = [{"name": "PodSecurity", "configuration": settings}]
    texts = rendered.spoiled(of_role(rendered, "controlplane"), ("cluster.apiServer.admissionControl", plugins))
    with pytest.raises(ParamsError, match=message):
        rendered.refuse(texts)


@pytest.mark.parametrize(
    ("authority", "message"),
    [
        (pki.new_authority(organization="etcd", years=0), "cluster.etcd.ca.crt expired at"),
        (pki.issue(SECRETS.etcd, common_name="etcd", server=True), "cluster.etcd.ca.crt is no certificate authority's"),
    ],
)
def test_a_bundle_whose_authority_cannot_sign_is_named(authority: pki.KeyPair, message: str) -> None:
    rendered, secrets = Rendered("phase1"), replace(SECRETS, etcd=authority)
    texts = documents.node_texts(rendered.platform, secrets, rendered.ingredients)
    with pytest.raises(ParamsError, match=message):
        refuse_contradictions(rendered.platform, secrets, rendered.ingredients, texts)


def test_a_name_that_is_not_the_nodes_is_named() -> None:
    rendered = Rendered("phase1")
    texts = rendered.spoiled("talos-worker-1")
    texts["talos-worker-1"] = texts["talos-worker-1"].replace("hostname: talos-worker-1", "hostname: somebody")
    with pytest.raises(ParamsError, match="HostnameConfig gives the name somebody; the params say talos-worker-1"):
        rendered.refuse(texts)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: Layer2VIPConfig\nname: 10.10.0.5", "kind: Layer2VIPConfig\nname: 10.10.0.6", "10.10.0.6; the params"),
        ("kind: Layer2VIPConfig", "kind: DummyLinkConfig", "the address not set; the params say 10.10.0.5"),
        ('link.hardware_addr) == "', 'link.hardware_addr) == "00:', "LinkAliasConfig net0 does not choose"),
    ],
)
def test_a_shared_address_elsewhere_is_named(old: str, new: str, message: str) -> None:
    rendered = Rendered("phase3")
    texts = rendered.spoiled("talos-cp-2")
    changed = texts["talos-cp-2"].replace(old, new)
    mac = rendered.platform.node("talos-cp-2").mac.lower()
    texts["talos-cp-2"] = changed.replace(f"00:{mac}", "00:00:00:00:00:01")
    with pytest.raises(ParamsError, match=f"the machine configuration of talos-cp-2: .*{message}"):
        rendered.refuse(texts)


def test_a_worker_without_its_data_volume_is_named() -> None:
    rendered = Rendered("phase1")
    rendered.ingredients.patches["worker"] += (
        "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: longhorn\n$patch: delete\n"
    )
    with pytest.raises(ParamsError, match="UserVolumeConfig longhorn is missing: Longhorn would store volumes"):
        rendered.refuse(rendered.spoiled("talos-cp-1"))


def test_other_mounts_of_the_kubelet_are_left_to_the_patches() -> None:
    rendered = Rendered("phase1")
    mount = {"source": "/var/local", "destination": "/var/local", "type": "bind", "options": ["bind", "rshared", "rw"]}
    rendered.refuse(rendered.spoiled("talos-worker-1", ("machine.kubelet.extraMounts", [mount])))


def test_what_all_nodes_have_wrong_is_told_once() -> None:
    rendered = Rendered("phase1")
    rendered.ingredients.patches["common"] += "    dnsDomain: k8s.internal\n"
    with pytest.raises(ParamsError) as caught:
        rendered.refuse(rendered.spoiled("talos-worker-1"))
    everybody = ", ".join(node.name for node in rendered.platform.nodes)
    assert caught.value.message.startswith(f"the machine configuration of {everybody}: cluster.network.dnsDomain is")
    assert "talos/patches" in caught.value.remedy


def test_patches_may_still_choose_what_is_theirs() -> None:
    rendered = Rendered("phase1")
    rendered.ingredients.patches["controlplane"] += (
        "  apiServer:\n    extraArgs:\n      v: '4'\n    auditPolicy: {kind: Policy, rules: [{level: None}]}\n"
    )
    rendered.refuse(rendered.spoiled("talos-worker-1"))


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("  nodeLabels: {rack: 'row 4, left'}\n", 'invalid machine node labels: label value "row 4, left" is invalid'),
        ("  kubelett: {}\n", "unknown keys found during decoding"),
        ("  install: {extraKernelArgs: [net.ifnames=0]}\n", "customization.extraKernelArgs of talos/schematic.yaml"),
        ("  sysctls: {}\n", "has `sysctls` twice"),
    ],
)
def test_render_and_plan_refuse_a_patch_before_anything_is_rendered(
    tmp_path: Path, addition: str, message: str
) -> None:
    shutil.copytree(ROOT / "talos", tmp_path / "talos")
    patch = tmp_path / "talos" / "patches" / "common.yaml"
    patch.write_text(patch.read_text().replace("machine:\n", "machine:\n" + addition, 1))
    with pytest.raises(ParamsError) as caught:
        documents.gather(Rendered("phase3").platform, tmp_path)
    assert len(caught.value.problems) == 1
    assert message in caught.value.problems[0]
    assert "talos/patches/common.yaml" in caught.value.problems[0]
