"""The operator's own folder: params, applications, secrets, tables and patches; upstream's files are unchanged."""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook import gitops, params
from fluobook.errors import ParamsError, ToolFailed
from fluobook.gitops.build import Builder, builder
from fluobook.gitops.check import RULES, all_findings, findings
from fluobook.gitops.metrics import Expression
from fluobook.gitops.snapshot import Snapshot
from fluobook.machine.node import patches_by_path, read_patches

if TYPE_CHECKING:
    from fluobook.params import Platform

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "tests" / "site"


def platform_of(site: Path) -> Platform:
    return params.load("mine", root=site).platform


def reported(site: Path, *names: str) -> list[str]:
    listed = findings(site, {name: RULES[name] for name in names}, path="site", without=("scylladb",))
    return [f"{finding.file} {finding.message}" for finding in listed]


def change(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_a_site_has_no_finding_with_its_own_files_alone(site: Path):
    assert all_findings(site) == []


def test_params_of_a_site_are_found_by_their_name(site: Path):
    assert params.load("mine", root=site).phase == "mine"
    assert params.phases(site) == ("mine", "phase1", "phase2", "phase3")


def test_two_params_files_of_one_name_are_refused(site: Path):
    shutil.copy(site / "params/phase1.yaml", site / "site/params/phase1.yaml")
    with pytest.raises(ParamsError, match="one name"):
        params.load("phase1", root=site)


def test_the_root_of_a_site_deploys_upstreams_applications_and_its_own(site: Path):
    upstream = {app.name for app in gitops.read(site).applications}
    tree = gitops.for_phase(platform_of(site), gitops.read(site, "site"))
    assert {app.name for app in tree.applications} == upstream | {"shop"}
    assert {app.repo for app in tree.applications if tree.is_ours(app)} == {"https://git.mine.example.org/platform.git"}
    assert gitops.root_application(platform_of(site), gitops.read(site, "site"))["spec"]["source"]["path"] == "site"


def test_kustomize_builds_the_application_of_a_site_with_its_secret_and_dashboard(site: Path):
    tree = gitops.for_phase(platform_of(site), gitops.read(site, "site"))
    shop = tree.application("shop")
    with builder(site) as build:
        objects = {obj["kind"]: obj for obj in build.build(site / shop.path, shop.kustomize["patches"])}
        root = build.build(site / "site")
    assert objects["Ingress"]["spec"]["rules"][0]["host"] == "shop.mine.example.org"
    assert objects["Secret"]["stringData"]["SHOP_PASSWORD"].startswith("ENC[")
    assert objects["ConfigMap"]["metadata"]["namespace"] == "monitoring"
    assert {obj["metadata"]["name"] for obj in root if obj["kind"] == "AppProject"} == {
        "apps",
        "infrastructure",
        "site",
    }


def test_an_application_without_rows_or_with_a_door_too_many_is_reported(site: Path):
    change(site / "site/shop/policies.yaml", "- {port: 8080, protocol: TCP}", "- {port: 9999, protocol: TCP}")
    lines = reported(site, "reachability")
    assert any("site/reachability.yaml:4 expects it open: ingress-nginx → shop:8080/TCP" in line for line in lines)
    (site / "site/reachability.yaml").unlink()
    assert any("reachability.yaml has no pod of namespace shop" in line for line in reported(site, "reachability"))


ISSUER = "cert-manager.io/cluster-issuer: letsencrypt-production\n"
AUTH = f"{ISSUER}    nginx.ingress.kubernetes.io/"


@pytest.mark.parametrize(
    ("edit", "rule", "message"),
    [
        (("shop/application.yaml", 'sync-wave: "3"', 'sync-wave: "-5"'), "project", "comes no earlier than shop"),
        (("project.yaml", "    - {group: apps, kind: Deployment}\n", ""), "project", "does not allow kind Deployment"),
        (("shop/ksops-generator.yaml", "  - shop.sops.yaml", "  []"), "generator", "shop.sops.yaml is not listed"),
        (("shop/dashboard.json", "replicas_available", "replicas_evailable"), "metric", "metrics.yaml does not have"),
        (("shop/shop.sops.yaml", "ENC[", "PLAIN["), "cleartext", "stringData.SHOP_PASSWORD is plaintext"),
        (("kustomization.yaml", "  - project.yaml\n", ""), "listing", "no kustomization lists it"),
        (
            (
                "shop/policies.yaml",
                "name: default-deny-ingress\n  namespace: shop\nspec:\n  podSelector: {}",
                "name: default-deny-ingress\n  namespace: shop\nspec:\n  podSelector: {matchLabels: {a: b}}",
            ),
            "policy",
            "namespace shop has no default deny",
        ),
        (("shop/shop.yaml", ":1.29.1", ":latest"), "pin", "no tag of one exact version"),
        (("shop/shop.yaml", "number: 80", "number: 81"), "reference", "has no port 81"),
        (("shop/namespace.yaml", "Prune=false,", ""), "keeping", "shop prunes"),
        (("shop/application.yaml", "shop.{domain}", "grafana.{domain}"), "reference", "the same host as grafana"),
        (
            ("shop/application.yaml", 'tls/0/hosts/0, value: "shop', 'tls/0/hosts/0, value: "a'),
            "reference",
            "TLS for a.",
        ),
        (("shop/shop.yaml", ISSUER, f"{AUTH}auth-secret: shop\n"), "reference", "Secret shop has no key auth"),
        (
            ("shop/shop.yaml", ISSUER, f"{AUTH}auth-tls-secret: shop/shop\n"),
            "reference",
            "Secret shop has no key ca.crt",
        ),
        (
            ("shop/shop.yaml", ISSUER, f"{AUTH}proxy-ssl-secret: shop/shops\n"),
            "reference",
            "there is no Secret shops in shop",
        ),
    ],
)
def test_mistakes_in_a_site_are_reported_as_anywhere(site: Path, edit: tuple[str, str, str], rule: str, message: str):
    assert reported(site, rule) == []
    file, old, new = edit
    change(site / "site" / file, old, new)
    assert any(message in line for line in reported(site, rule)), reported(site, rule)


POD = "pods:\n  {name}: {{namespace: {namespace}, labels: {{app: {name}}}, ports: [{port}]}}\n"
SOURCE = (EXAMPLE / "shop/application.yaml").read_text().partition("  source:\n")[2].partition("  destination:")[0]
ALONE = {
    "a table that is a list": ("reachability.yaml", "pods:", "- pods:", "is not"),
    "metrics that are a list": ("metrics.yaml", "", "- a\n", "is not a mapping"),
    "a kustomization that is a list": ("shop/kustomization.yaml", "", "- a\n", "is not a mapping"),
    "an empty table": ("reachability.yaml", "", "", "is empty"),
    "a float that is none": ("shop/namespace.yaml", "name: shop", "name: !!float abc", "could not convert"),
    "a merge of no mapping": ("shop/namespace.yaml", "metadata:", "<<: [1]\nmetadata:", "expected a mapping for"),
    "a conflict in a script": ("shop/run.sh", "", "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> c\n", "merge conflict"),
    "a key twice in JSON": ("shop/dashboard.json", '"uid"', '"uid": "a", "uid"', "has `uid` twice"),
    "a number in JSON that is none": ("shop/dashboard.json", '"uid"', '"x": NaN, "uid"', "NaN is no number"),
    "a pod of no namespace": ("reachability.yaml", "pods:\n", POD.format(name="a", namespace="gone", port=1), "gone"),
    "a pod named as upstream's": (
        "reachability.yaml", "pods:\n", POD.format(name="vmagent", namespace="shop", port=8080), "is in upstream's",
    ),
    "a port of letters": ("reachability.yaml", "ports: [8080]}\nopen", "ports: [abc]}\nopen", "a port is 8080 or"),
    "a brace that is not closed": ("shop/application.yaml", "shop.{domain}", "shop.{domain", "has a brace"),
    "a value that no phase has": ("shop/application.yaml", "shop.{domain}", "shop.{domian}", "has a value domian"),
    "no source": ("shop/application.yaml", f"  source:\n{SOURCE}", "", "has no source"),
    "a revision that is a number": ("shop/application.yaml", "Revision: main", "Revision: 1.10", "is 1.1, not a text"),
    "a path that does not exist": ("shop/application.yaml", "path: site/shop", "path: site/shap", "does not exist"),
    "a wave of an application": ("shop/application.yaml", 'wave: "3"', 'wave: "x"', "has the wave x"),
    "a wave of a project": ("project.yaml", '"-5"', '"first"', "has the wave first"),
    "a folder without kustomization": ("kustomization.yaml", "resources:", "resources:\n  - talos", "a folder without"),
    "a dashboard without a title": ("shop/dashboard.json", '"title": "Shop"', '"title": ""', "has no title"),
    "a dashboard with a long uid": ("shop/dashboard.json", "site-shop", "s" * 41, "uid of the dashboard is not valid"),
    "SOPS without MAC": ("shop/shop.sops.yaml", "mac:", "mag:", "has no mac"),
}  # fmt: skip
"""A mistake: a file below site, text in it ("" for all of it), the new text, and a part of the one finding."""
QUICK = {name: rule for name, rule in RULES.items() if name not in {"build", "health", "key", "mac", "patch"}}


@pytest.mark.parametrize("name", ALONE)
def test_one_mistake_gives_one_finding_in_its_own_file(site: Path, name: str):
    file, old, new, message = ALONE[name]
    path = site / "site" / file
    path.write_text(path.read_text().replace(old, new) if old else new)
    listed = findings(site, QUICK, path="site", without=("scylladb",))
    assert [finding.file for finding in listed] == [f"site/{file}"] * len(listed)
    assert len({(finding.line, finding.rule) for finding in listed}) == 1, listed
    assert message in listed[0].message


def test_a_file_that_cannot_be_read_hides_no_finding_of_another(site: Path):
    (site / "site/shop/new.yaml").write_text("a: [\n")
    change(site / "site/shop/shop.yaml", "replicas: 2", 'replicas: "2"')
    listed = findings(site, QUICK, path="site", without=("scylladb",))
    assert [(finding.file, finding.rule) for finding in listed] == [
        ("site/shop/new.yaml", "readable"),
        ("site/shop/shop.yaml", "shape"),
    ]


@pytest.mark.parametrize(
    "text", ["a: 1\n", "creation_rules: a\n", "- a\n", "creation_rules: [{path_regex: '(?U)a'}]\n"]
)
def test_creation_rules_of_another_shape_give_no_finding_about_encrypted_files(site: Path, text: str):
    (site / ".sops.yaml").write_text(text)
    assert {finding.file for finding in findings(site, QUICK, path="site", without=("scylladb",))} == {".sops.yaml"}


@pytest.mark.parametrize("expression", ["(" * 3000 + "up" + ")" * 3000, " or ".join(["up == 0"] * 2000), "a" * 30_000])
def test_an_expression_without_end_is_a_problem_and_no_traceback(expression: str):
    assert Expression(expression, {}).problems


OWN = "metadata: {name: own, namespace: shop}"
SAFE = OWN[:-1] + ", annotations: {argocd.argoproj.io/sync-options: 'Prune=false,Delete=false'}}"
CHART = """
    chart: own
    helm:
      valuesObject:
        {values}
"""


@pytest.mark.parametrize(
    ("added", "held"),
    [
        ("{apiVersion: v1, kind: PersistentVolumeClaim, spec: {}, METADATA}", "PersistentVolumeClaim own"),
        ("{apiVersion: postgresql.cnpg.io/v1, kind: Cluster, spec: {}, METADATA}", "Cluster own"),
        (
            "{apiVersion: kafka.strimzi.io/v1, kind: Kafka, spec: {kafka: {storage: {size: 1Gi}}}, METADATA}",
            "Kafka own",
        ),
        ("{apiVersion: e.org/v1, kind: Es, spec: {nodeSets: [{volumeClaimTemplates: []}]}, METADATA}", "Es own"),
        (
            "{apiVersion: apps/v1, kind: StatefulSet, METADATA, spec: {PVCS: {whenScaled: Delete}}}",
            "StatefulSet own",
        ),
        ("{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, METADATA}", "the kind of own"),
    ],
)
def test_an_application_that_could_take_data_with_it_is_reported(site: Path, added: str, held: str):
    file = site / "site/shop/shop.yaml"
    before, added = file.read_text(), added.replace("PVCS", "persistentVolumeClaimRetentionPolicy")
    file.write_text(before + "---\n" + added.replace("METADATA", OWN))
    lines = reported(site, "keeping")
    assert f"site/shop/application.yaml shop prunes, and has {held}" in lines
    assert (f"site/shop/application.yaml `argocd app delete shop` would delete {held}" in lines) == (
        held != "the kind of own"
    )
    file.write_text(before + "---\n" + added.replace("METADATA", SAFE))
    assert reported(site, "keeping") == []


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ("primary: {persistence: {enabled: true}}", "the volumes of primary.persistence"),
        ("db: {storageClass: longhorn}", "the volumes of db.storageClass"),
        ("crds: {create: true}", "the kinds of crds.create"),
        ("installCRDs: true", "the kinds of installCRDs"),
        ("crds: {create: false}", ""),
    ],
)
def test_a_chart_that_could_take_data_with_it_is_reported(site: Path, values: str, held: str):
    file = site / "site/shop/application.yaml"
    change(file, "    path: site/shop\n", CHART.replace("{values}", values).lstrip("\n"))
    assert any(line.endswith(f"shop prunes, and has {held}") for line in reported(site, "keeping")) == bool(held)
    change(file, "- CreateNamespace=false", "- Prune=confirm\n      - Delete=confirm")
    change(file, 'sync-wave: "3"', 'sync-wave: "3"\n    argocd.argoproj.io/sync-options: Prune=false')
    assert reported(site, "keeping") == []


def test_a_site_that_no_params_file_uses_is_reported(site: Path):
    change(site / "site/params/mine.yaml", "    path: site\n", "")
    lines = [finding.message for finding in all_findings(site) if finding.file == "site/kustomization.yaml"]
    assert lines == ["no kustomization, Application or platform.gitops.path names its folder"]


def test_a_kind_of_a_chart_that_is_not_known_may_come_from_it(site: Path):
    text = (site / "site/shop/application.yaml").read_text()
    chart = yaml.safe_load(text)
    chart["metadata"] = {**chart["metadata"], "name": "widgets", "annotations": {"argocd.argoproj.io/sync-wave": "1"}}
    chart["spec"]["source"] = {"repoURL": "https://charts.example.org", "chart": "widgets", "targetRevision": "1.2.3"}
    chart["spec"]["destination"]["namespace"] = "monitoring"
    (site / "site/shop/widgets.yaml").write_text(
        "apiVersion: widgets.example.org/v1\nkind: Widget\nmetadata: {name: w, namespace: shop}\nspec: {}\n"
    )
    change(site / "site/shop/kustomization.yaml", "  - shop.yaml\n", "  - shop.yaml\n  - widgets.yaml\n")
    assert any("needs group widgets.example.org" in line for line in reported(site, "wave"))
    (site / "site/widgets").mkdir()
    (site / "site/widgets/application.yaml").write_text(yaml.safe_dump(chart))
    change(site / "site/kustomization.yaml", "  - project.yaml\n", "  - project.yaml\n  - widgets/application.yaml\n")
    assert reported(site, "wave") == []


def test_talos_patches_of_a_site_apply_after_upstreams_to_all_to_a_role_and_to_a_node(site: Path):
    folder = site / "site/talos/patches/1.14"
    (folder / "worker.yaml").write_text("machine: {sysctls: {a: '1'}}\n")
    (folder / "worker-2.yaml").write_text("machine: {sysctls: {a: '2'}}\n")
    platform = platform_of(site)
    patches = read_patches(platform, site)
    own = {
        node.name: [text for text in patches_by_path(node, patches).values() if "somaxconn" in text or "{a:" in text]
        for node in platform.nodes
    }
    assert [len(own[name]) for name in ("cp-1", "worker-1", "worker-2")] == [1, 2, 3]
    assert list(patches_by_path(platform.node("worker-2"), patches).values())[-1] == "machine: {sysctls: {a: '2'}}\n"
    assert len(read_patches(params.load("phase1", root=site).platform, site)) == 3


def test_a_talos_patch_for_no_node_is_refused(site: Path):
    (site / "site/talos/patches/1.14/worker-9.yaml").write_text("machine: {}\n")
    platform = platform_of(site)
    with pytest.raises(ParamsError, match=r"worker-9\.yaml applies to no node"):
        read_patches(platform, site)
    assert any("worker-9.yaml applies to no node" in line for line in reported(site, "patch"))


def test_one_misnamed_patch_hides_no_finding_of_another(site: Path):
    folder = site / "site/talos/patches/1.14"
    for name in ("x.yml", "worker.json", "worker-9.yaml"):
        (folder / name).write_text('{"machine": {}}\n')
    (folder / "worker.yaml").write_text("machine:\n  kublet: {}\n")
    (site / "talos/patches/worker-1.yaml").write_text("machine: {}\n")
    lines = reported(site, "patch")
    assert [line.partition(":")[0] for line in lines if "applies to no node" in line] == [
        "site/talos/patches/1.14/worker-9.yaml applies to no node",
        "site/talos/patches/1.14/worker.json applies to no node",
        "site/talos/patches/1.14/x.yml applies to no node",
        "talos/patches/worker-1.yaml applies to no node",
    ]
    assert any(line.startswith("site/talos/patches/1.14/worker.yaml ") for line in lines)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            "apiVersion: v1alpha1\nkind: HostnameConfig\nauto: off\nhostname: worker-1\n",
            "HostnameConfig gives the name worker-1; the params say worker-2",
        ),
        (
            "apiVersion: v1alpha1\nkind: KubeNetworkConfig\ndnsDomain: example.org\n",
            "dnsDomain is example.org; the params say cluster.local",
        ),
        (
            "apiVersion: v1alpha1\nkind: KubeNodeConfig\nnodeIP: {validSubnets: ['!10.0.0.0/8']}\n",
            "which leaves out the node's own address",
        ),
        (
            "apiVersion: v1alpha1\nkind: KubeNodeConfig\nskipNodeRegistration: true\n",
            "Kubernetes would never know the node",
        ),
        (
            "apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: longhorn\nprovisioning: {minSize: 500GiB}\n",
            "UserVolumeConfig longhorn wants 500 GiB, and the disk has 80: Talos would never make it",
        ),
        (
            "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {minSize: 50GiB}\n",
            "VolumeConfig EPHEMERAL wants 50 GiB, and the disk has 20",
        ),
        (
            "machine: {files: [{path: /etc/motd, op: create, permissions: 0o644, content: hello}]}\n",
            'machine.files: create operation not allowed outside of /var: "/etc/motd"',
        ),
    ],
)
def test_a_talos_patch_that_contradicts_the_params_is_reported(site: Path, patch: str, message: str):
    assert reported(site, "patch") == []
    (site / "site/talos/patches/1.14/worker.yaml").write_text(patch)
    lines = reported(site, "patch")
    assert [line.startswith("site/talos/patches/1.14/worker.yaml ") and message in line for line in lines] == [True]


def test_a_talos_patch_that_talos_refuses_is_reported_in_the_site(site: Path):
    (site / "site/talos/patches/1.14/worker.yaml").write_text("machine:\n  kublet: {}\n")
    assert any(line.startswith("site/talos/patches/1.14/worker.yaml ") for line in reported(site, "patch"))


def test_a_talos_patch_for_an_older_contract_than_any_cluster_of_the_site_has_is_refused(site: Path):
    (site / "site/talos/patches/worker.yaml").write_text("machine: {}\n")
    (line,) = reported(site, "patch")
    assert line.startswith("site/talos/patches/worker.yaml applies to no node")
    assert "for mine.yaml it may be 1.14/common.yaml, 1.14/controlplane.yaml" in line
    with pytest.raises(ParamsError, match=r"site/talos/patches/worker\.yaml applies to no node"):
        read_patches(platform_of(site), site)
    change(site / "site/params/mine.yaml", "platform:\n", 'platform:\n  versions: {contract: "1.13"}\n')
    assert reported(site, "patch") == []
    assert "site/talos/patches/worker.yaml" in read_patches(platform_of(site), site)


def test_upstream_leaves_the_folder_empty_but_for_its_page():
    assert [path.name for path in (REPOSITORY / "site").iterdir()] == ["README.md"]
    assert Snapshot(REPOSITORY).variants == (Snapshot(REPOSITORY),)


SCRAPE = """apiVersion: operator.victoriametrics.com/v1beta1
kind: VMPodScrape
metadata: {name: own, namespace: shop, labels: {argocd.argoproj.io/secret-type: repository}}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: loki}}
  namespaceSelector: {any: true}
  podMetricsEndpoints: [{port: http-metrics}]
"""


@pytest.mark.parametrize("name", ["metrics.yaml", "reachability.yaml"])
def test_a_scrape_of_any_namespace_may_have_the_name_of_a_table(site: Path, name: str):
    (site / "site/shop" / name).write_text(SCRAPE)
    change(site / "site/shop/kustomization.yaml", "resources:\n", f"resources:\n  - {name}\n")
    assert {finding.rule for finding in all_findings(site)} == {"project"}
    change(site / "site/shop" / name, "io/name: loki", "io/name: loky")
    assert [line.partition(" ")[2] for line in reported(site, "reference")] == [
        "VMPodScrape own selects nothing in reachability.yaml or in the tree"
    ]


def test_a_second_release_of_a_chart_hides_no_pod_of_the_first(site: Path):
    upstream = (site / "cluster-gitops/infrastructure/monitoring/loki/application.yaml").read_text()
    own = upstream.replace("name: loki\n", "name: own-loki\n", 1).replace("namespace: logging", "namespace: shop")
    (site / "site/loki.yaml").write_text(own)
    change(site / "site/kustomization.yaml", "  - project.yaml\n", "  - project.yaml\n  - loki.yaml\n")
    pods = Snapshot(site, "site", ("scylladb",)).table.pods
    assert (pods["loki"].namespace, pods["loki of own-loki"].namespace) == ("logging", "shop")


def test_a_patch_for_one_node_may_stand_beside_the_params_of_another_cluster(site: Path):
    text = (site / "site/params/mine.yaml").read_text()
    names = [node.name for node in platform_of(site).nodes]
    other = (
        text.replace("phase: mine", "phase: other").replace("name: mine}", "name: other}").replace(names[0], "node-x")
    )
    (site / "site/params/other.yaml").write_text(other)
    (site / f"site/talos/patches/1.14/{names[0]}.yaml").write_text("machine: {sysctls: {vm.swappiness: '1'}}\n")
    assert reported(site, "patch") == []
    assert f"site/talos/patches/1.14/{names[0]}.yaml" not in read_patches(
        params.load("other", root=site).platform, site
    )
    (site / "site/talos/patches/1.14/node-y.yaml").write_text("machine: {}\n")
    assert all("applies to no node" in line for line in reported(site, "patch"))
    with pytest.raises(ParamsError, match=r"node-y\.yaml applies to no node"):
        read_patches(platform_of(site), site)


def test_what_generators_in_nested_folders_make_is_counted(site: Path):
    shop = site / "site/shop"
    (shop / "sub").mkdir()
    for file in [*shop.glob("*.yaml"), *shop.glob("*.json")]:
        if file.name != "application.yaml":
            file.rename(shop / "sub" / file.name)
    (shop / "kustomization.yaml").write_text("resources: [sub]\n")
    assert reported(site, "build", "hash") == []
    change(shop / "sub/kustomization.yaml", "disableNameSuffixHash: true", "disableNameSuffixHash: false")
    change(shop / "application.yaml", "prune: true", "prune: false")
    assert ["does not prune" in line for line in reported(site, "hash")] == [True]


@pytest.mark.parametrize(
    ("ports", "closed"),
    [
        ("[{port: dns, protocol: UDP}, {port: '53', protocol: ANY}, {port: '53'}]", []),
        ("[{port: '50', endPort: 60, protocol: UDP}]", []),
        ("[{port: '54', endPort: 60, protocol: UDP}, {port: dns, protocol: TCP}]", ["54-60/UDP", "dns/TCP"]),
    ],
)
def test_a_door_may_be_a_name_a_range_or_of_any_protocol(site: Path, ports: str, closed: list[str]):
    policy = f"""---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: allow-names, namespace: kube-system}}
spec:
  endpointSelector: {{matchLabels: {{k8s-app: kube-dns}}}}
  ingress: [{{fromEntities: [cluster], toPorts: [{{ports: {ports}}}]}}]
"""
    file = site / "site/shop/policies.yaml"
    file.write_text(file.read_text() + policy)
    assert [line.partition("opens ")[2].partition(",")[0] for line in reported(site, "door")] == closed


def test_the_usual_label_of_dashboards_is_watched_only_if_no_grafana_has_another(site: Path):
    file = site / "cluster-gitops/infrastructure/monitoring/victoria-metrics/application.yaml"
    change(file, "\n        grafana:\n", "\n        grafana:\n          sidecar: {dashboards: {label: own}}\n")
    assert any("nothing reads the dashboards of shop-dashboards" in line for line in reported(site, "listing"))


COMPONENT = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
PATCH = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop, namespace: shop}\nspec: "
FEATURES: dict[str, tuple[str, dict[str, str], str]] = {
    "an image": ("images: [{name: nginxinc/nginx-unprivileged, newTag: 1.30.0}]", {}, ""),
    "a renamed image": (
        "images: [{name: nginxinc/nginx-unprivileged, newName: a.example.org/b, newTag: 1.30.0}]",
        {},
        "",
    ),
    "an image that nothing has": (
        "images: [{name: nginx/nginx-unprivileged, newTag: 1.30.0}]",
        {},
        "which nothing here has",
    ),
    "an image that floats": (
        "images: [{name: nginxinc/nginx-unprivileged, newTag: latest}]",
        {},
        "has no tag of one exact version",
    ),
    "replicas": ("replicas: [{name: shop, count: 3}]", {}, ""),
    "replicas of nothing": ("replicas: [{name: shp, count: 3}]", {}, "cannot be built: "),
    "a replacement": (
        "replacements: [{source: {kind: Service}, targets: [{select: {kind: Ingress}, fieldPaths: [metadata.name]}]}]",
        {},
        "",
    ),
    "a merging patch": ("patches: [{path: a.yaml}]", {"a.yaml": f"{PATCH}{{replicas: 3}}"}, ""),
    "a merging patch with a misspelt field": (
        "patches: [{path: a.yaml}]",
        {"a.yaml": f"{PATCH}{{replica: 3}}"},
        "spec.replica",
    ),
    "a patch by labels": (
        "patches: [{target: {kind: Deployment, name: sh.*}, patch: '- {op: add, path: /spec/paused, value: false}'}]",
        {},
        "",
    ),
    "a patch of nothing": (
        "patches: [{target: {kind: Deployment, name: shp.*}, patch: '- {op: add, path: /spec/paused, value: false}'}]",
        {},
        "which is not there",
    ),
    "a component": (
        "components: [part]",
        {
            "part/kustomization.yaml": f"{COMPONENT}patches: [{{path: a.yaml}}]",
            "part/a.yaml": f"{PATCH}{{replicas: 3}}",
        },
        "",
    ),
    "selectors": ("labels: [{pairs: {app: store}, includeSelectors: true}]", {}, "closed, and"),
    "a prefix": ("namePrefix: a-", {}, "Ingress shop has nothing at"),
}


@pytest.fixture(scope="module")
def built() -> dict[Path, list[dict[str, Any]]]:
    """The objects of each folder of cluster-gitops as it is."""
    return {}


@pytest.fixture
def upstream_once(built: dict[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the folders of cluster-gitops once for tests that change the site alone: each costs a process."""
    build = Builder.build

    def built_once(self: Builder, folder: Path) -> list[dict[str, Any]]:
        path = folder.relative_to(self.root)
        if path.parts[0] == "site":
            return build(self, folder)
        if path not in built:
            built[path] = build(self, folder)
        return deepcopy(built[path])

    monkeypatch.setattr(Builder, "build", built_once)


@pytest.mark.usefixtures("upstream_once")
@pytest.mark.parametrize("name", FEATURES)
def test_what_kustomize_makes_is_checked_as_it_is_deployed(site: Path, name: str):
    text, files, message = FEATURES[name]
    for path, content in files.items():
        (site / "site/shop" / path).parent.mkdir(exist_ok=True)
        (site / "site/shop" / path).write_text(content)
    file = site / "site/shop/kustomization.yaml"
    file.write_text(f"{file.read_text()}{text}\n")
    names = ("pin", "shape", "reference", "duplicate", "listing", "phase-value", "reachability", "build")
    rules = {rule: RULES[rule] for rule in names}
    found = [each.message for each in findings(site, rules, path="site", without=("scylladb",))]
    assert bool(found) == bool(message), found
    assert message in "".join(found)


SPREAD = "topologySpreadConstraints: [{maxSkew: 1, whenUnsatisfiable: DoNotSchedule,"
NODES = {
    "nodeSelector: {example.org/disk: fast}": "selects example.org/disk=fast, which no node has",
    "nodeSelector: {kubernetes.io/hostname: worker-1}": "",
    f"{SPREAD} topologyKey: a/zone}}]": "spreads by a/zone",
    f"{SPREAD} topologyKey: topology.kubernetes.io/zone}}]": "",
    "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: "
    "[{matchExpressions: [{key: example.org/gpu, operator: Exists}]}]}}}": "by its nodeAffinity that no node has",
    "initContainers: [{name: a, image: 'a:1.2', resources: {requests: {cpu: 1}}}]": "",
    "cpu: 500": "requests cpu 500, more than the largest node has",
    "memory: 500Gi": "requests memory 500Gi, more than the largest node has",
}


@pytest.mark.parametrize("text", NODES)
def test_pods_find_a_node_of_each_platform(site: Path, text: str):
    is_request = text.startswith(("cpu", "memory"))
    old, new = (
        ("cpu: 10m, memory: 32Mi", text) if is_request else ("      containers:", f"      {text}\n      containers:")
    )
    change(site / "site/shop/shop.yaml", old, new)
    found = [each.message for each in findings(site, {"node": RULES["node"]}, path="site", without=("scylladb",))]
    assert len(found) == bool(NODES[text]), found
    assert NODES[text] in "".join(found)


def test_a_label_that_a_worker_may_not_give_itself_is_reported(site: Path):
    labels = 'labels: {node-role.kubernetes.io/worker: "", example.org/disk: fast}\n'
    patch = f"apiVersion: v1alpha1\nkind: KubeNodeConfig\n{labels}"
    (site / "site/talos/patches/1.14/worker-1.yaml").write_text(patch)
    change(
        site / "site/shop/shop.yaml",
        "      containers:",
        "      nodeSelector: {example.org/disk: fast}\n      containers:",
    )
    rules = {name: RULES[name] for name in ("patch", "node")}
    [finding] = findings(site, rules, path="site", without=("scylladb",))
    assert (
        "node label node-role.kubernetes.io/worker is one that Kubernetes does not let a worker give itself"
        in finding.message
    )


def test_two_sites_have_each_their_patches_and_dashboards(site: Path):
    example = (site / "site/params/mine.yaml").read_text()
    for name, number in (("berlin", "10.43."), ("paris", "10.44.")):
        shutil.copytree(EXAMPLE, site / "site" / name, ignore=shutil.ignore_patterns("params"))
        change(site / f"site/{name}/kustomization.yaml", "../cluster-gitops", "../../cluster-gitops")
        change(site / f"site/{name}/shop/application.yaml", "site/shop", f"site/{name}/shop")
        text = example.replace("phase: mine", f"phase: {name}").replace("name: mine", f"name: {name}")
        text = text.replace("10.42.", number).replace("path: site", f"path: site/{name}")
        (site / f"site/params/{name}.yaml").write_text(text)
    for path in ("params/mine.yaml", "kustomization.yaml", "project.yaml", "reachability.yaml"):
        (site / "site" / path).unlink()
    for folder in ("shop", "talos"):
        shutil.rmtree(site / "site" / folder)
    assert all_findings(site) == []
    change(site / "site/paris/talos/patches/1.14/common.yaml", "SysctlConfig", "SysctlsConfig")
    assert [finding.file for finding in all_findings(site)] == ["site/paris/talos/patches/1.14/common.yaml"]


def test_a_json_file_without_panels_is_no_dashboard(site: Path):
    (site / "site/shop/settings.json").write_text('{"panels": 3}')
    with (site / "site/shop/kustomization.yaml").open("a") as file:
        file.write("  - {name: settings, namespace: shop, files: [settings.json]}\n")
    assert reported(site, "listing") == []


def test_a_full_temporary_folder_is_no_defect_of_a_kustomization(site: Path, monkeypatch: pytest.MonkeyPatch):
    def build(*_: object) -> None:
        raise ToolFailed(
            "kubectl failed", system="kubectl", detail="error: writing plugin config: no space left on device"
        )

    monkeypatch.setattr(Builder, "build", build)
    (finding,) = findings(site, {"build": RULES["build"]}, path="site", without=("scylladb",))
    assert "No space left on device" in finding.message
    assert "TMPDIR" in finding.remedy


TO = "to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "
DNS = f"{{{TO}kube-system}}}}}}], ports: [{{port: 53, protocol: UDP}}]}}"
DATABASE = f"{{{TO}fluodata}}}}}}], ports: [{{port: 5432}}]}}"
CILIUM_DNS = "{toEndpoints: [{matchLabels: {k8s:io.kubernetes.pod.namespace: kube-system}}]}"


@pytest.mark.parametrize(
    ("kind", "egress", "problems"),
    [
        ("NetworkPolicy", f"[{DNS}, {DATABASE}]", []),
        ("NetworkPolicy", f"[{DNS}, {DATABASE}, {{to: [{{ipBlock: {{cidr: 0.0.0.0/0}}}}]}}]", []),
        ("NetworkPolicy", "[{}]", []),
        ("NetworkPolicy", f"[{DNS}]", ["keeps shop from postgresql:5432/TCP"]),
        ("NetworkPolicy", "[{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]", ["coredns:53/UDP", "postgresql:5432/TCP"]),
        ("NetworkPolicy", "[]", ["coredns:53/UDP", "postgresql:5432/TCP"]),
        ("CiliumNetworkPolicy", f"[{CILIUM_DNS}, {{toEntities: [cluster]}}]", []),
        (
            "CiliumNetworkPolicy",
            f"[{CILIUM_DNS}, {{toFQDNs: [{{matchName: a.example.org}}]}}]",
            ["postgresql:5432/TCP"],
        ),
        ("CiliumNetworkPolicy", "[{toEndpoints: [{matchLabels: {app: coredns}}]}]", ["coredns:53/UDP", "postgresql"]),
    ],
)
def test_a_policy_may_close_egress_but_for_names_and_what_rows_expect(
    site: Path, kind: str, egress: str, problems: list[str]
):
    table = site / "site/reachability.yaml"
    table.write_text(table.read_text() + "  - {from: shop, to: postgresql, ports: [5432], why: its data}\n")
    policy = {"kind": kind, "metadata": {"name": "shop-out", "namespace": "shop"}}
    spec = {"policyTypes": ["Egress"]} if kind == "NetworkPolicy" else {}
    policy["apiVersion"] = "networking.k8s.io/v1" if spec else "cilium.io/v2"
    selector = "podSelector" if spec else "endpointSelector"
    policy["spec"] = {selector: {"matchLabels": {"app": "shop"}}, **spec, "egress": yaml.safe_load(egress)}
    file = site / "site/shop/policies.yaml"
    file.write_text(f"{file.read_text()}---\n{yaml.safe_dump(policy)}")
    lines = reported(site, "policy")
    assert len(lines) == len(problems)
    for problem in problems:
        assert any(problem in line for line in lines), lines


@pytest.mark.parametrize(
    ("patch", "where"),
    [
        ("kind: RegistryAuthConfig\nname: r.example.org\nusername: u\npassword: hunter2", "password"),
        ("kind: RegistryAuthConfig\nname: r.example.org\nauth: dTpodW50ZXIy", "auth"),
        ("kind: SideroLinkConfig\napiUrl: grpc://a.example.org:8090?jointoken=hunter2", "apiUrl"),
        ("kind: KmsgLogConfig\nname: a\nurl: tcp://10.42.0.5:5170", ""),
    ],
)
def test_a_secret_in_a_talos_patch_is_reported(site: Path, patch: str, where: str):
    (site / "site/talos/patches/1.14/worker.yaml").write_text(f"apiVersion: v1alpha1\n{patch}\n")
    lines = reported(site, "cleartext")
    assert [line for line in lines if f"{where} is a secret in plaintext" in line] == lines
    assert bool(lines) == bool(where)
    assert not any("hunter2" in line for line in lines)


def test_a_cilium_policy_may_name_the_source_of_a_label(site: Path):
    policy = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy"}
    policy["metadata"] = {"name": "shop-out", "namespace": "shop"}
    policy["spec"] = {"endpointSelector": {"matchLabels": {"k8s:app": "shop"}}, "egress": [yaml.safe_load(CILIUM_DNS)]}
    file = site / "site/shop/policies.yaml"
    file.write_text(f"{file.read_text()}---\n{yaml.safe_dump(policy)}")
    assert reported(site, "shape", "policy", "reachability") == []


def test_two_ingresses_may_share_a_host_if_their_paths_differ(site: Path):
    ingress = (site / "site/shop/shop.yaml").read_text().rpartition("---\n")[2]
    other = ingress.replace("name: shop\n  namespace", "name: api\n  namespace").replace("shop-tls", "api-tls")
    (site / "site/shop/api.yaml").write_text(other.replace("path: /", "path: /api"))
    change(site / "site/shop/kustomization.yaml", "  - shop.yaml\n", "  - shop.yaml\n  - api.yaml\n")
    assert reported(site, "reference") == []
    (site / "site/shop/api.yaml").write_text(other)
    assert any("has the same host as" in line for line in reported(site, "reference"))


def test_a_domain_of_the_params_that_nobody_certifies_is_reported(site: Path):
    change(site / "site/params/mine.yaml", 'domain: "mine.example.org"', 'domain: "mine.home.arpa"')
    assert any("certifies public names only, not shop.mine.home.arpa" in line for line in reported(site, "reference"))


@pytest.mark.parametrize("name", ["params/berlin.yml", "talos/patches/1.14/worker.yml", "metrics.yml"])
def test_a_file_with_an_ending_that_nothing_reads_is_reported(site: Path, name: str):
    (site / "site" / name).write_text("a: b\n")
    assert reported(site, "listing")[0] == f"site/{name} nothing reads it: its name ends with .yml"


def test_a_service_without_a_pool_is_told_the_labels_of_pools(site: Path):
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lan", "namespace": "shop"}}
    service["metadata"]["labels"] = {"fluobook/pool": "wan"}
    service["spec"] = {"type": "LoadBalancer", "selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": 8080}]}
    file = site / "site/shop/shop.yaml"
    file.write_text(f"{file.read_text()}---\n{yaml.safe_dump(service)}")
    (found,) = findings(site, {"address": RULES["address"]}, path="site", without=("scylladb",))
    assert found.message == "Service lan is served by no pool"
    assert found.remedy == "label it fluobook/pool: mqtt, or leave fluobook/pool out for pool ingress"
