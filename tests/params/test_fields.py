"""Single values in every form that sites write them: accepted in one canonical form, or refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluobook.clients.proxmox.session import ProxmoxEndpoint
from fluobook.errors import ParamsError
from fluobook.failures import present
from fluobook.params import load, mirrored, parse
from fluobook.params.reading import read

SMALLEST = Path(__file__).parent / "valid" / "smallest.yaml"


def changed(path: str, value: Any) -> dict[str, Any]:
    """The smallest params with one value replaced: "proxmox.0.url"."""
    document = read(SMALLEST)
    *parents, key = path.split(".")
    holder = document["platform"]
    for step in parents:
        holder = holder[int(step)] if isinstance(holder, list) else holder.setdefault(step, {})
    holder[int(key) if isinstance(holder, list) else key] = value
    return document


def value_at(document: dict[str, Any], path: str) -> Any:
    value: Any = parse(document).platform.model_dump()
    for step in path.split("."):
        value = value[int(step)] if isinstance(value, list | tuple) else value[step]
    return value


URL = "proxmox.0.url"
REPOSITORY = "gitops.repository"
REVISIONS = [
    "--upload-pack=x",
    "a b",
    "..",
    "a..b",
    "a~1",
    "a^",
    "a:b",
    "main.lock",
    "a/.b",
    "/a",
    "a/",
    "a//b",
    "a@{1}",
    "@",
]
NUMBERS = [
    *(f"nodes.1.{name}" for name in ("cores", "memory_gib", "boot_disk_gib", "data_disk_gib", "start_order", "vmid")),
    *("network.vlan", "network.mtu", "storage.replicas", "deadlines.install"),
]


UUID = "12345678-1234-1234-1234-123456789abc"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n"
CREDENTIALS = ("url", "webhook_url", "password", "api_key", "routing_key", "token")


def files(path: str) -> list[tuple[str, Any]]:
    """Every field that has the path of a file, with that path."""
    return [
        ("proxmox.0.ca_file", path),
        ("trust", {"a.example.org:8006": path}),
        ("proxmox.0.token_secret", {"file": path}),
        ("proxmox.0.token_secret", {"sops": path}),
        ("secrets", {"bundle": path}),
        ("secrets", {"age_key": {"file": path}}),
    ]


def receivers(text: str) -> list[tuple[str, Any]]:
    """Every text of a receiver, with that text."""
    mail = {"type": "email", "to": ["a@example.org"], "sender": "b@example.org", "smarthost": "m.example.org:587"}
    return [
        ("alerts.receivers", [{"name": "ops", "type": "slack", "channel": text}]),
        ("alerts.receivers", [{"name": "ops", **mail, "username": text}]),
    ]


def hosts(host: str) -> list[tuple[str, Any]]:
    """Every field that has a host, with that host."""
    return [
        (URL, f"https://{host}:8006"),
        (REPOSITORY, f"https://{host}/acme/p.git"),
        (REPOSITORY, f"git@{host}:acme/p.git"),
        ("gitops.mirrors", {"https://a.example.org": f"https://{host}/x"}),
        ("endpoints", {f"{host}:8006": "127.0.0.1:1"}),
        ("endpoints", {"a.example.org:8006": f"{host}:1"}),
        ("trust", {f"{host}:8006": "ca.pem"}),
        ("network.ntp", [host]),
        ("cluster.api_address", host),
    ]


@pytest.mark.parametrize(
    ("path", "written", "stored"),
    [
        (URL, "https://[::1]:8006", "https://[::1]:8006"),
        (URL, "https://[2001:DB8:0::10]:8006/", "https://[2001:db8::10]:8006"),
        (URL, "HTTPS://PVE1.Example.org:8006/", "https://pve1.example.org:8006"),
        (URL, "https://pve.example.org:443", "https://pve.example.org:443"),
        ("endpoints", {"[::1]:8006": "[::1]:40001"}, {"[::1]:8006": "[::1]:40001"}),
        ("endpoints", {"PVE.example.org:08006": "127.0.0.1:1"}, {"pve.example.org:8006": "127.0.0.1:1"}),
        ("trust", {"[2001:db8::0:1]:8006": "ca.pem"}, {"[2001:db8::1]:8006": "ca.pem"}),
        ("proxmox.0.token_id", "jo@example.org@oidc!fluobook", "jo@example.org@oidc!fluobook"),
        ("proxmox.0.token_id", "jo!admin@pve!fluobook", "jo!admin@pve!fluobook"),
        ("proxmox.0.token_id", "cn=jo@ldap!fluobook", "cn=jo@ldap!fluobook"),
        (REPOSITORY, "git@git.example.org:acme/platform.git", "git@git.example.org:acme/platform.git"),
        (REPOSITORY, "ssh://git@git.example.org:2222/acme/p.git", "ssh://git@git.example.org:2222/acme/p.git"),
        (REPOSITORY, "https://[2001:db8::1]:3000/acme/p.git", "https://[2001:db8::1]:3000/acme/p.git"),
        ("gitops.mirrors", {"git@git.example.org:acme": "https://m.example.org/acme"}, None),
        ("gitops.path", "plattform/größe", "plattform/größe"),
        (URL, "https://pve.example.org.:8006", "https://pve.example.org:8006"),
        ("endpoints", {"pve.example.org.:8006": "127.0.0.1:1"}, {"pve.example.org:8006": "127.0.0.1:1"}),
        ("network.ntp", ["ntp.example.org."], ("ntp.example.org",)),
        (REPOSITORY, "https://dev.example.org/acme/_git/my%20platform", None),
        ("proxmox.0.ca_file", "~/pki/12345678-1234-1234-1234-123456789abc/ca.pem", None),
        ("gitops.revision", "503843eb7b0f4b6ab1c2d3e4f5a6b7c8d9e0f1a2", None),
    ],
)
def test_every_form_of_an_address_or_a_name_is_understood(path: str, written: Any, stored: Any) -> None:
    assert value_at(changed(path, written), path) == (written if stored is None else stored)


@pytest.mark.parametrize(
    ("path", "written", "rule"),
    [
        (URL, "https://root@pve.example.org:8006", "no user in it; use token_id"),
        (URL, "http://root@pve.example.org:8006", "is not encrypted"),
        (REPOSITORY, "git+ssh://git@git.example.org/acme/p.git", "must be an https:// or ssh:// URL"),
        (REPOSITORY, "https://@git.example.org/acme/p.git", "contains a user, password or token"),
        (REPOSITORY, "//hunter2@git.example.org/acme/p.git", "contains a user, password or token"),
        (REPOSITORY, "git@[2001:db8::1]:a.git", "write ssh://git@[2001:db8::1]/a.git"),
        ("cluster.pod_cidr", ["10.244.0.0/16", "fd00::/56"], "is IPv6"),
        ("cluster.pod_cidr", "10.244.0.0/16,fd00::/56", "is IPv6"),
        ("network.gateway6", "fd00::1", "IPv6 and dual stack are not supported"),
        ("network.dual-stack", True, "IPv6 and dual stack are not supported"),
        ("vm.extra_disk_gib", 5, "add others in Proxmox VE"),
        (URL, "https://hunter2@pve.example.org:8006", "contains a user, password or token"),
        (URL, "https://[fe80::1%25eth0]:8006", "has an IPv6 address that cannot be used"),
        (URL, "https://[::1", "must be a URL"),
        (URL, "https://pve.example.org:8006/api2/json", "must be only https://host:port"),
        (URL, "https://pve.example.org:8006/?token=hunter2", "must be only https://host:port"),
        (REPOSITORY, "https://hunter2@git.example.org/acme/p.git", "contains a user, password or token"),
        (REPOSITORY, "https://jo:hunter2@git.example.org/acme/p.git", "contains a user, password or token"),
        (REPOSITORY, "https://git.example.org/acme/p.git?access_token=hunter2", "has a query or a fragment"),
        (REPOSITORY, "https://git.example.org/acme/p.git?private_token=hunter2", "has a query or a fragment"),
        (REPOSITORY, "https://git.example.org/acme/p.git#hunter2", "has a query or a fragment"),
        (REPOSITORY, "ssh://git:hunter2@git.example.org/acme/p.git", "contains a user, password or token"),
        (
            "gitops.mirrors",
            {"https://hunter2@a.example.org": "https://b.example.org"},
            "contains a user, password or token",
        ),
        ("gitops.mirrors", {"https://a.example.org": "https://b.example.org/?key=hunter2"}, "has a query"),
        ("network.bridge", "vmbrä", "must be the name of a bridge"),
        ("network.bridge", "vmbr٣", "must be the name of a bridge"),
        ("versions", {"talos": "1.13.٩"}, "must be major.minor.patch"),
        ("network.cidr", "2001:db8::/64", "is IPv6, which fluobook does not support"),
        ("network.gateway", "2001:db8::1", "is IPv6, which fluobook does not support"),
        ("nodes.0.address", "[2001:db8::10]", "is IPv6, which fluobook does not support"),
        ("cluster.pod_cidr", "fd00::/56", "is IPv6, which fluobook does not support"),
        ("cluster.api_address", "2001:db8::5", "is IPv6, which fluobook does not support"),
        ("network.nameservers", ["2001:db8::53"], "is IPv6, which fluobook does not support"),
        ("proxmox.0.token_id", "fluobook@pve!name=hunter2", "contains the token's secret too"),
        (URL, "https://root:p@hunter2@pve.example.org:8006", "contains a user, password or token"),
        (URL, "https://root%3Ahunter2%40pve.example.org:8006", "has an invalid host name"),
        (REPOSITORY, "ssh://git%3Ahunter2@git.example.org/acme/p.git", "contains a user, password or token"),
        (REPOSITORY, "https://git.example.org/oauth2:hunter2@acme/p.git", "contains a user, password or token"),
        (REPOSITORY, "https://git.example.org/oauth2%3Ahunter2%40acme/p.git", "contains a user, password or token"),
        (REPOSITORY, "https://git.example.org/acme/p.git;access_token=hunter2", "contains a user, password or token"),
        (REPOSITORY, "https://git.example.org/acme/p.git%3Faccess_token%3Dhunter2", "contains a user, password"),
        (REPOSITORY, "https://git.example.org/ghp_hunter2hunter2/p.git", "contains a user, password or token"),
        (
            "gitops.mirrors",
            {"https://a.example.org": "https://b.example.org/key=hunter2/"},
            "contains a user, password",
        ),
        ("proxmox.0.token_secret", {"file": "12345678-hunter2", "sops": "a"}, "must name exactly one place"),
        *((path, value, "contains the secret itself") for path, value in files(UUID)),
        *((path, value, "contains the secret itself") for path, value in files("AGE-SECRET-KEY-1HUNTER2HUNTER2HUNTER")),
        *((path, value, "contains the secret itself") for path, value in files("-----BEGIN PRIVATE KEY-----\nhunter2")),
        *((path, value, "is a URL and not the path of a file") for path, value in files("https://a.org/hunter2.pem")),
        *((path, value, "is a fingerprint and not the path of a file") for path, value in files("AB:" * 31 + "CD")),
        (REPOSITORY, "https://github.com/acme/p/tree/main", "is a page about the repository; give its URL, which ends"),
        (REPOSITORY, "https://git.example.org/acme/p/-/blob/main/README.md", "is a page about the repository"),
        *((path, value, "is the content of a file and not its path") for path, value in files(CERTIFICATE)),
        *((path, value, "has a space, a colon or a slash") for path, value in receivers("user:hunter2")),
        *((path, value, "has a space, a colon or a slash") for path, value in receivers("https://a.org/hunter2")),
        *((path, value, "has a space, a colon or a slash") for path, value in receivers("discord.com/api/hunter2")),
        *((path, value, "has the form of a credential") for path, value in receivers("hooks.slack.com/T/hunter2")),
        *((path, value, "has the form of a credential") for path, value in receivers("xoxb-1234-hunter2")),
        *((path, value, "has a control character") for path, value in receivers("#ops\nhunter2")),
        *(
            (
                "alerts",
                {"receivers": [{"name": "a", "type": "slack", key: "hunter2"}]},
                "under the receiver's name (docs",
            )
            for key in CREDENTIALS
        ),
        ("endpoints", {"::1:8006": "127.0.0.1:1"}, "must be host:port"),
        ("vm.cpu", "hots", "is not a CPU type of Proxmox VE; did you mean 'host'?"),
        ("vm.cpu", "host,flags=+aes", "is not a CPU type of Proxmox VE"),
        ("vm.cpu", "custom-", "is not a CPU type of Proxmox VE"),
        ("vm.cpu", "Penryn", "lacks x86-64-v2, so Talos halts at boot"),
        *(("gitops.revision", text, "must be a branch, a tag or a commit") for text in REVISIONS),
        *((path, value, "is not ASCII; write xn--bcher-kva.example") for path, value in hosts("bücher.example")),
        *((path, value, "is not ASCII; write its ASCII form") for path, value in hosts("straße.example")),
        *(
            (path, value, "must be an IPv4 address; four numbers from 0 to 255")
            for path, value in hosts("192.168.1.300")
        ),
        *((path, value, "an IPv4 address") for path, value in hosts("10.10.0")),
        *((path, value, "host name") for path, value in hosts("-pve.example.org")),
        *((path, value, "host name") for path, value in hosts("pve..example.org")),
        (URL, "https://pve.example.org:99999", "has an invalid port; ports are numbers from 1 to 65535"),
        (URL, "https://pve.example.org:0", "has an invalid port"),
        (REPOSITORY, "ssh://git@git.example.org:65536/acme/p.git", "has an invalid port"),
        ("gitops.mirrors", {"https://a.example.org": "https://b.example.org:99999"}, "has an invalid port"),
        (REPOSITORY, "https://git.example.org/acme/a b.git", "it has a space"),
        (REPOSITORY, "https://git.example.org/acme\n/p.git", "a control character"),
        ("gitops.mirrors", {"https://a.example.org": "https://:443"}, "must be a URL"),
        ("gitops.path", "--output", "must be a folder of the repository"),
        ("gitops.path", ".", "must be a folder of the repository"),
        ("gitops.domain", "bücher.example", "is not ASCII; write xn--bcher-kva.example"),
        ("gitops.domain", "example.300", "must be a domain name"),
        ("gitops.acme_email", "ops@bücher.example", "is not ASCII; write xn--bcher-kva.example"),
        ("gitops.acme_email", "ops@example", "must be a domain name"),
        ("gitops.acme_email", "größe@example.org", "must be an e-mail address"),
        ("network.nameservers", ["127.0.0.53"], "is in 127.0.0.0/8, whose addresses are loopback"),
        ("network.nameservers", ["0.0.0.0"], "whose addresses are unspecified"),
        ("network.ntp", ["224.0.1.1"], "whose addresses are multicast"),
        ("network.cidr", "169.254.0.0/16", "whose addresses are link-local"),
        ("network.cidr", "0.0.0.0/0", "whose addresses are unspecified"),
        ("cluster.pod_cidr", "240.0.0.0/8", "whose addresses are reserved"),
        ("network.nameservers", ["9.9.9.9", "9.9.9.9"], "has '9.9.9.9' twice"),
        ("vm.tags", ["prod", "prod"], "has 'prod' twice"),
        ("alerts", {"receivers": [{"name": "ops", "type": "slack", "severities": ["critical"] * 2}]}, "twice"),
        ("network.bridge", "vmbr0.42", "is VLAN 42 of vmbr0 and not a bridge; write bridge: vmbr0 and vlan: 42"),
        ("network.bridge", "vmbr1v42", "is VLAN 42 of vmbr1 and not a bridge"),
        ("nodes.0.name", "common", "is the name of the patches of all nodes"),
        ("nodes.0.name", "worker", "is the name of the workers' patches"),
        ("nodes.0.name", "localhost", "means every machine itself"),
        ("cluster.name", "lab", "is the name of the folder of the labs"),
        ("network.bridge", "eno1", "is a network card and not a bridge"),
        ("network.bridge", "bond0", "is a network card and not a bridge"),
        ("nodes.0.name", "123", "is a number, which DNS takes for an address"),
        (URL, "https://[ff02::1]:8006", "has an IPv6 address that cannot be used"),
        (URL, "https://[::]:8006", "has an IPv6 address that cannot be used"),
        ("endpoints", {"a:1": "[fe80::1]:1"}, "must be host:port"),
        ("endpoints", {"A:1": "b:1", "a:1": "c:1"}, "has one key in two spellings"),
        ("trust", {"A:1": "b", "a:01": "c"}, "has one key in two spellings"),
        ("gitops.mirrors", {"https://a.org/": "https://b.org", "https://a.org": "https://c.org"}, "in two spellings"),
        ("proxmox.0.ca_file", "a\nb", "has a control character"),
        ("proxmox.0.ca_file", "ca.pem\0", "has a control character"),
        ("proxmox.0.ca_file", " ca.pem", "nor begin or end with a space"),
        ("vm.install_disk", "/dev/../etc/passwd", "is not the path of a whole disk"),
        ("vm.install_disk", "/dev/vda1", "is not the path of a whole disk"),
        ("vm.install_disk", "/dev/nvme0n1p2", "is not the path of a whole disk"),
        ("vm.install_disk", "/dev//vda", "must be the path of a disk"),
        ("gitops.path", "./cluster-gitops/", "is not the shortest form of the path; write cluster-gitops"),
        ("gitops.path", "site//a", "write site/a"),
        ("gitops.acme_email", "a@10.0.0.1", "must be a domain name"),
        ("network.ntp", ["ntp.example.org:123"], "must be an IPv4 address or a host name; in lower case, without"),
        ("network.ntp", ["http://ntp.example.org"], "must be an IPv4 address or a host name; in lower case, without"),
        ("cluster.api_address", "10.10.0.105", "contains 10.10.0.105 of platform.cluster.api_address"),
        ("versions", {"talos": "1.13." + "9" * 5000}, "must be major.minor.patch"),
        ("versions", {"kubernetes": "1.35.4-rc.1"}, 'must be major.minor.patch, without a v; such as "1.35.4"'),
        ("vm.cpu", "", "such as host; a model of your own"),
        *((path, 10**30, "must be at most") for path in NUMBERS),
        *((path, float("nan"), "must be a") for path in NUMBERS),
        *((path, "2", "without quotes") for path in NUMBERS),
    ],
)
def test_what_is_refused_gives_the_reason_and_repeats_no_credential(path: str, written: Any, rule: str) -> None:
    with pytest.raises(ParamsError) as refused:
        parse(changed(path, written))
    assert rule in refused.value.problems[0]
    assert "hunter2" not in present(refused.value).text()


def test_a_credential_in_a_url_is_answered_with_the_way_to_give_it() -> None:
    with pytest.raises(ParamsError) as refused:
        parse(changed(REPOSITORY, "https://hunter2@git.example.org/acme/p.git"))
    assert "argocd.argoproj.io/secret-type: repository" in refused.value.problems[0]


def test_names_of_proxmox_hosts_are_compared_with_case() -> None:
    document = changed("proxmox.0.hosts", ["PVE1", "pve1"])
    document["platform"]["nodes"][1]["host"] = "PVE1"
    assert parse(document).platform.hosts == ("pve1", "PVE1")
    document["platform"]["proxmox"][0]["hosts"] = ["pve1"]
    with pytest.raises(ParamsError) as refused:
        parse(document)
    assert "is a host of no endpoint" in refused.value.problems[0]


def test_an_endpoint_with_an_ipv6_address_is_routed_and_trusted() -> None:
    document = changed(URL, "https://[2001:db8::10]:8006")
    document["platform"] |= {"endpoints": {"[2001:DB8::10]:8006": "[::1]:40001"}}
    document["platform"]["proxmox"][0]["ca_file"] = "pve.pem"
    platform = parse(document).platform
    endpoint = platform.proxmox[0]
    assert (endpoint.host, endpoint.port, endpoint.authority) == ("2001:db8::10", 8006, "[2001:db8::10]:8006")
    assert platform.route(endpoint.host, endpoint.port) == ("::1", 40001)
    assert platform.route("2001:db8::11", 8006) == ("2001:db8::11", 8006)
    assert platform.trusted_ca(endpoint.host, endpoint.port) == "pve.pem"


def test_the_user_of_a_token_may_contain_its_separators() -> None:
    endpoint = ProxmoxEndpoint("pve", "https://pve:8006", "jo!x@example.org@oidc!fluobook", "secret")
    assert endpoint.token == ("jo!x@example.org@oidc", "fluobook")


def test_a_repository_in_the_form_of_scp_has_mirrors() -> None:
    url = "git@git.example.org:acme/platform.git"
    assert mirrored(url, {url: "http://127.0.0.1:1/x"}) == "http://127.0.0.1:1/x"
    assert (
        mirrored(url, {"git@git.example.org:acme": "https://m.example.org/a"}) == "https://m.example.org/a/platform.git"
    )


def test_a_tunnel_of_two_addresses_joins_two_hosts() -> None:
    document = read(SMALLEST.parent / "two-hosts.yaml")
    document["platform"]["wireguard"] |= {"cidr": "10.200.0.0/31"}
    for number, host in enumerate(document["platform"]["wireguard"]["hosts"]):
        host["address"] = f"10.200.0.{number}"
    assert parse(document).platform.wireguard is not None


@pytest.mark.parametrize("prefix", [30, 31, 32])
def test_a_network_without_room_for_the_nodes_is_one_problem_and_not_one_of_each_address(prefix: int) -> None:
    with pytest.raises(ParamsError) as refused:
        parse(changed("network.cidr", f"10.10.0.0/{prefix}"))
    [problem] = refused.value.problems
    assert problem.startswith(f"platform.network.cidr = '10.10.0.0/{prefix}': contains only ")
    assert "outside it is platform." in problem


@pytest.mark.parametrize(
    ("edits", "path"),
    [
        ({"nodes.0.role": "worker"}, "platform.nodes:"),
        ({"nodes.1.role": "controlplane", "nodes.2.role": "controlplane"}, "platform.nodes:"),
        ({"network.load_balancer.pools.0.stop": "10.10.0.255"}, "platform.network.load_balancer.pools.ingress.stop = "),
        ({"network.load_balancer.pools.0.start": "10.10.0.4"}, "platform.network.load_balancer.pools.ingress = "),
        ({"network.cidr": "10.20.0.0/24"}, "platform.network.cidr = "),
        ({"network.gateway": "10.20.0.1"}, "platform.network.gateway = "),
    ],
)
def test_one_mistake_is_one_problem(edits: dict[str, Any], path: str) -> None:
    platform = load("phase1").platform.written
    for place, value in edits.items():
        *parents, key = place.split(".")
        holder: Any = platform
        for step in parents:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        holder[key] = value
    with pytest.raises(ParamsError) as refused:
        parse({"phase": "phase1", "platform": platform})
    (problem,) = refused.value.problems
    assert problem.startswith(path)


LABELS = "nodes.1.labels"
TAINTS = "nodes.1.taints"


@pytest.mark.parametrize(
    ("path", "written", "rule"),
    [
        (LABELS, {"rack": "row 4, left"}, 'label value "row 4, left" is invalid'),
        (LABELS, {"a/b/c": "x"}, "too many slashes"),
        (LABELS, {"node-role.kubernetes.io/db": "x"}, "is a label that Kubernetes does not let a node give itself"),
        (LABELS, {"app.kubernetes.io/name": "x"}, "is a label that Kubernetes does not let a node give itself"),
        (LABELS, {"topology.kubernetes.io/zone": "x"}, "follows from host and disks"),
        (LABELS, {"kubernetes.io/hostname": "x"}, "is set by the kubelet"),
        (LABELS, {"beta.kubernetes.io/arch": "x"}, "is set by the kubelet"),
        (LABELS, {"node-restriction.kubernetes.io/a": "x"}, "is a label that Kubernetes does not let a node give"),
        (LABELS, {"mynode.kubernetes.io/a": "x"}, "is a label that Kubernetes does not let a node give itself"),
        (TAINTS, {"dedicated": "db:noschedule"}, "must be EFFECT or VALUE:EFFECT"),
        (TAINTS, {"dedicated": ""}, "must be EFFECT or VALUE:EFFECT"),
        (TAINTS, {"node.kubernetes.io/unschedulable": "PreferNoSchedule"}, "is set and removed by Kubernetes"),
        (TAINTS, {"node-role.kubernetes.io/control-plane": "PreferNoSchedule"}, "is set and removed by Kubernetes"),
        (TAINTS, {"dedicated": "db:Never"}, "must be EFFECT or VALUE:EFFECT"),
        (TAINTS, {"dedicated": "d b:NoSchedule"}, 'label value "d b" is invalid'),
        (TAINTS, {"dedicated": "db:NoSchedule"}, "every worker has a taint"),
        ("nodes.0.taints", {"dedicated": "NoExecute"}, "is for workers"),
        ("vm.tags", ["fluobook-other"], "must be a tag of Proxmox VE that is not fluobook's own"),
        ("vm.tags", ["Prod"], "must be a tag of Proxmox VE"),
        ("vm.pool", "a b", "must be the id of a pool"),
        ("backups.schedule", "61 1 * * *", "must be a schedule of five fields"),
        ("backups.schedule", "0 1 0 * *", "must be a schedule of five fields"),
        ("backups.bucket", "a..b", "must be the name of a bucket"),
        ("backups.bucket", "10.0.0.5", "must be the name of a bucket"),
        ("nodes.1.start_order", -1, "must be at least 0"),
        ("nodes.1.extra_disks", [100], "and give them to Talos by a patch"),
        ("nodes.1.networks", [{}], "a node has one network card"),
        ("network.ipv6", True, "IPv6 and dual stack are not supported"),
        ("nodes.1.patches", [], "patches are files"),
    ],
)
def test_what_a_node_cannot_have_is_refused_with_the_reason(path: str, written: Any, rule: str) -> None:
    with pytest.raises(ParamsError) as refused:
        parse(changed(path, written))
    assert len(refused.value.problems) == 1
    assert rule in refused.value.problems[0]


@pytest.mark.parametrize(
    ("path", "written"),
    [
        (LABELS, {"node.kubernetes.io/instance-type": "big.box", "beta.kubernetes.io/instance-type": "big.box"}),
        (LABELS, {"topology.kubernetes.io/region": "north", "failure-domain.beta.kubernetes.io/region": "north"}),
        (LABELS, {"rack.node.kubernetes.io/row": "4", "kubelet.kubernetes.io/a": "", "node.kubernetes.io/a": "b"}),
        (LABELS, {"example.org/rack": "r4", "rack": ""}),
        ("nodes.1.start_order", 0),
        ("nodes.1.start_order", 9999),
    ],
)
def test_what_a_node_may_have_is_accepted(path: str, written: Any) -> None:
    parse(changed(path, written))


def test_a_label_is_changed_by_set_although_its_key_has_dots() -> None:
    platform = load(SMALLEST, overrides=["nodes.worker-1.labels.example.org/rack=r4"]).platform
    assert platform.node("worker-1").labels == {"example.org/rack": "r4"}


def test_a_worker_that_repels_pods_is_no_failure_domain(two_hosts: dict[str, Any]) -> None:
    two_hosts["platform"]["storage"]["replicas"] = 1
    two_hosts["platform"]["nodes"][4]["taints"] = {"dedicated": "db:PreferNoSchedule"}
    assert parse(two_hosts).platform.failure_domains == ("pve1", "pve2")
    two_hosts["platform"]["nodes"][4]["taints"] = {"dedicated": "db:NoSchedule"}
    assert parse(two_hosts).platform.failure_domains == ("pve1",)


SERVERS = [("network.nameservers", ["{}"]), ("network.ntp", ["{}"]), (URL, "https://{}:8006")]


@pytest.mark.parametrize(("path", "form"), SERVERS, ids=["nameserver", "time server", "Proxmox VE"])
@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("10.96.0.10", "is inside platform.cluster.service_cidr 10.96.0.0/12"),
        ("10.244.3.4", "is inside platform.cluster.pod_cidr 10.244.0.0/16"),
        ("10.10.0.0", "is the network address of 10.10.0.0/24"),
        ("10.10.0.255", "is the broadcast address of 10.10.0.0/24"),
        ("10.10.0.105", "contains 10.10.0.105 of platform."),
        ("10.10.0.20", "is used by platform."),
    ],
)
def test_a_server_has_an_address_of_its_own_outside_the_cluster(path: str, form: Any, address: str, rule: str) -> None:
    written = [form[0].format(address)] if isinstance(form, list) else form.format(address)
    with pytest.raises(ParamsError) as refused:
        parse(changed(path, written))
    assert len(refused.value.problems) == 1
    assert rule in refused.value.problems[0]


@pytest.mark.parametrize(("path", "form"), SERVERS, ids=["nameserver", "time server", "Proxmox VE"])
@pytest.mark.parametrize("address", ["10.10.0.1", "10.10.0.2", "192.0.2.7"])
def test_a_server_may_be_the_router_or_in_the_nodes_network(path: str, form: Any, address: str) -> None:
    parse(changed(path, [form[0].format(address)] if isinstance(form, list) else form.format(address)))


@pytest.mark.parametrize(
    ("endpoint", "rule"),
    [
        ("10.200.0.9", "is inside platform.wireguard.cidr 10.200.0.0/24"),
        ("10.96.0.9", "is inside platform.cluster.service_cidr"),
    ],
)
def test_a_tunnel_does_not_lead_to_itself(two_hosts: dict[str, Any], endpoint: str, rule: str) -> None:
    two_hosts["platform"]["wireguard"]["hosts"][0]["endpoint"] = endpoint
    with pytest.raises(ParamsError) as refused:
        parse(two_hosts)
    assert len(refused.value.problems) == 1
    assert rule in refused.value.problems[0]


def test_an_item_whose_name_is_no_text_is_placed_by_its_number() -> None:
    with pytest.raises(ParamsError) as refused:
        parse(changed("nodes.1.name", 5))
    assert refused.value.problems[0].startswith("platform.nodes[1].name = 5: must be text")


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("vm.cpu", "custom-ha"),
        ("vm.cpu", "EPYC-Rome-v4"),
        ("gitops.revision", "v1.2.0"),
        ("gitops.revision", "feature/#12-ä"),
        ("gitops.revision", "f30e7f60c0ffee"),
        (REPOSITORY, "https://git_server.example.org/acme/p.git"),
        (URL, "https://127.0.0.1:8006"),
        (URL, "https://xn--bcher-kva.example:8006"),
        ("nodes.1.name", "worker-common"),
        ("network.bridge", "br.lan"),
        ("network.bridge", "vmbr4094"),
        (TAINTS, {"example.org/dedicated": "db:PreferNoSchedule"}),
        (LABELS, {"node.kubernetes.io/exclude-from-external-load-balancers": ""}),
        ("nodes.1.cores", 512),
        ("vm.install_disk", "/dev/disk/by-path/pci-0000:00:05.0-scsi-0:0:0:0"),
        ("vm.install_disk", "/dev/nvme0n1"),
        ("network.bridge", "entry1"),
        ("proxmox.0.ca_file", "größe der CA.pem"),
        ("nodes.1.name", "5b"),
    ],
)
def test_what_is_unusual_but_right_is_accepted(path: str, written: Any) -> None:
    assert value_at(changed(path, written), path) == written


@pytest.mark.parametrize(
    "url",
    [
        "git:s3cret@git.example.org:a.git",
        "https://s3cret%40git.example.org/a.git",
        "https://me:s3cret@git.example.org/a.git",
    ],
)
def test_a_refused_address_is_shown_without_its_credentials(url: str) -> None:
    with pytest.raises(ParamsError) as caught:
        parse(changed(REPOSITORY, url))
    assert "s3cret" not in present(caught.value).text()
