"""The network: pools and addresses of Services, what the LAN can reach, backends of hosts, and network policies."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from itertools import combinations
from typing import TYPE_CHECKING, Any

from fluobook.gitops import reachability
from fluobook.gitops.charts import chart_of
from fluobook.gitops.documents import walk
from fluobook.gitops.tree import POOL_KIND, WITHOUT_PODS
from fluobook.kubernetes.policies import TCP, WORLD, Endpoint, Policies, closes_egress, closes_ingress
from fluobook.kubernetes.selectors import matches
from fluobook.params.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fluobook.gitops.documents import Document, Finding, Key, Position
    from fluobook.gitops.reachability import Table
    from fluobook.gitops.snapshot import Snapshot
    from fluobook.params import Platform

POOL = "fluobook/pool"
"""The label by which a Service asks for a pool."""
Span = tuple[int, int]
"""The first and the last address of a block, as numbers."""
_ADDRESS_ANNOTATIONS = ("lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips")
_SHARING = ("lbipam.cilium.io/sharing-key", "io.cilium/lb-ipam-sharing-key")
_ANNOUNCER = "io.cilium/l2-announcer"
_EXPOSED = ("LoadBalancer", "NodePort")
_NAMESPACES_WITH_PODS = ("default", "kube-system")
_ANY = "ANY"
"""Every protocol, for Cilium."""
_SHOWN = 3
_DNS, _DNS_PORT = "coredns", (53, "UDP")


def pools_are_disjoint(snapshot: Snapshot) -> Iterator[Finding]:
    """No two blocks of a platform share an address, and each ends after its start, inside the network."""
    for platform, objects in snapshot.objects_by_platform:
        network = IPv4Network(str(platform.network.cidr)) if platform else None
        valid: list[tuple[Document, Position, Span]] = []
        for pool in (document for document in objects if document.kind == POOL_KIND):
            for index, span in enumerate(_spans(pool)):
                place = pool.at("spec", "blocks", index)
                if span is None or span[0] > span[1]:
                    yield place.finding(f"pool {pool.name} has an invalid block", "give start and stop, or cidr")
                elif network and not int(network[0]) <= span[0] <= span[1] <= int(network[-1]):
                    message = f"pool {pool.name} has {IPv4Address(span[0])}, which is not in {network}"
                    yield place.finding(message, "take addresses of the platform's network")
                if span:
                    valid.append((pool, place, span))
        for (pool, _, a), (other, place, b) in combinations(valid, 2):
            if a[0] <= b[1] and b[0] <= a[1]:
                message = f"pools {pool.name} and {other.name} both have {IPv4Address(max(a[0], b[0]))}"
                yield place.finding(message, "move one of them")


def _spans(pool: Document) -> list[Span | None]:
    """The blocks of a pool; None for one that is invalid."""
    return [_span(block) for block in (pool.data.get("spec") or {}).get("blocks") or []]


def _span(block: dict[str, Any]) -> Span | None:
    try:
        if "cidr" in block:
            network = ip_network(block["cidr"], strict=False)
            return (int(network[0]), int(network[-1])) if isinstance(network, IPv4Network) else None
        return int(ip_address(block["start"])), int(ip_address(block.get("stop", block["start"])))
    except (KeyError, ValueError):
        return None


def services_get_an_address(snapshot: Snapshot) -> Iterator[Finding]:
    """Each LoadBalancer has one pool, an address, and can be announced; each pool has a Service, no node's address."""
    pools = snapshot.objects(POOL_KIND)
    left_out = [document for app in snapshot.tree.left_out for document in snapshot.tree.all_deployed_by(app)]
    services = [service for service in snapshot.objects("Service") if _type(service) == "LoadBalancer"]
    for service in services:
        for message, remedy, path in _service_defects(service, pools):
            yield service.at(*path).finding(f"Service {service.name} {message}", remedy)
    for pool in pools:
        selector: dict[str, Any] | None = (pool.data.get("spec") or {}).get("serviceSelector")
        labels = list((selector or {}).get("matchLabels") or ())
        if selector is None and len(pools) > 1:
            message = f"pool {pool.name} serves every Service, those of the other pools too"
            yield pool.at("metadata", "name").finding(message, "give it a serviceSelector")
        elif labels and not any(_serves(pool, service) for service in [*services, *left_out]):
            place = pool.at("spec", "serviceSelector", "matchLabels", labels[0])
            yield place.finding(f"pool {pool.name} serves no Service of the tree", "correct its selector")
    yield from _pools_with_used_addresses(snapshot)
    yield from _pools_without_addresses(snapshot)
    for policy in snapshot.objects("CiliumL2AnnouncementPolicy"):
        yield from _announcement_defects(policy)


def _pools_with_used_addresses(snapshot: Snapshot) -> Iterator[Finding]:
    for platform, objects in snapshot.objects_by_platform:
        owners = _used_addresses(platform).items() if platform else ()
        for pool in (document for document in objects if document.kind == POOL_KIND):
            for index, span in enumerate(_spans(pool)):
                names = [name for address, name in owners if span and span[0] <= int(IPv4Address(address)) <= span[1]]
                if names:
                    message = f"pool {pool.name} has the address of {names[0]}"
                    yield pool.at("spec", "blocks", index).finding(message, "take addresses that are free")


def _pools_without_addresses(snapshot: Snapshot) -> Iterator[Finding]:
    """Pools with fewer addresses than Services ask for; those with a sharing key may share one."""
    for _, objects in snapshot.objects_by_platform:
        services = [each for each in objects if each.kind == "Service" and _type(each) == "LoadBalancer"]
        alone = [each for each in services if not any(key in each.annotations for key in _SHARING)]
        for pool in (each for each in objects if each.kind == POOL_KIND):
            served = [service for service in alone if _serves(pool, service)]
            room = sum(span[1] - span[0] + 1 for span in _spans(pool) if span)
            for service in served[room:] if room else ():
                message = f"Service {service.name} gets no address: pool {pool.name} has {room}, which go to"
                names = ", ".join(other.name for other in served[:room])
                remedy = f"widen the pool, or give both the same {_SHARING[0]}"
                yield service.at("metadata", "name").finding(f"{message} {names}", remedy)


def _type(service: Document) -> str:
    """The type of a core Service, "" for an object of another group."""
    return "" if service.group else str((service.data.get("spec") or {}).get("type", ""))


def _serves(pool: Document, service: Document) -> bool:
    labels = (service.data.get("metadata") or {}).get("labels") or {}
    return matches((pool.data.get("spec") or {}).get("serviceSelector") or {}, labels)


def _pool_remedy(serving: list[Document], every: list[Document]) -> str:
    if serving:
        return "let their selectors exclude each other"
    selectors = [(pool.name, (pool.data.get("spec") or {}).get("serviceSelector") or {}) for pool in every]
    labels = [value for _, selector in selectors if (value := (selector.get("matchLabels") or {}).get(POOL))]
    remedies = [f"label it {POOL}: {' or '.join(labels)}"] if labels else []
    remedies += [f"leave {POOL} out for pool {name}" for name, selector in selectors if matches(selector, {})]
    return ", or ".join(remedies) or "add a pool that selects it"


def _service_defects(service: Document, every: list[Document]) -> Iterator[tuple[str, str, tuple[Key, ...]]]:
    spec, pools = service.data["spec"], [pool for pool in every if _serves(pool, service)]
    if len(pools) != 1:
        names = " and ".join(pool.name for pool in pools) or "no pool"
        yield f"is served by {names}", _pool_remedy(pools, every), ("metadata", "labels", POOL)
    elif POOL not in (service.data["metadata"].get("labels") or {}):
        remedy = f"label it {POOL}: NAME; a Service without the label shares the ingress's pool"
        yield f"does not name its pool {pools[0].name}", remedy, ("metadata", "name")
    requests: dict[tuple[Key, ...], str | None] = {("spec", "loadBalancerIP"): spec.get("loadBalancerIP")}
    requests |= {("metadata", "annotations", key): service.annotations.get(key) for key in _ADDRESS_ANNOTATIONS}
    spans = [span for pool in pools for span in _spans(pool) if span]
    for path, text in requests.items():
        addresses = [address.strip() for address in str(text).split(",")] if text is not None else []
        if outside := [address for address in addresses if not _is_in(address, spans)]:
            yield f"asks for {outside[0]}, which is not in its pool", "take an address of its pool", path
    if spec.get("loadBalancerClass", _ANNOUNCER) != _ANNOUNCER:
        remedy = f"leave it out, or write {_ANNOUNCER}"
        yield "has a class that nothing here serves", remedy, ("spec", "loadBalancerClass")
    if spec.get("externalTrafficPolicy") == "Local":
        remedy = "leave it Cluster: Cilium's L2 announcements cannot do Local"
        yield "is reachable only on the nodes of its pods", remedy, ("spec", "externalTrafficPolicy")


def _is_in(address: str, spans: list[Span]) -> bool:
    try:
        number = int(IPv4Address(address))
    except ValueError:
        return False
    return any(first <= number <= last for first, last in spans)


def _used_addresses(platform: Platform) -> dict[str, str]:
    """The addresses of nodes, the gateway and the VIP in the network of a platform, and who has them."""
    network = platform.network
    owners = {str(network.gateway): "the gateway"} | ({str(network.vip): "the VIP"} if network.vip else {})
    owners |= {str(node.address): node.name for node in platform.nodes}
    return {address: name for address, name in owners.items() if IPv4Address(address) in IPv4Network(str(network.cidr))}


def _announcement_defects(policy: Document) -> Iterator[Finding]:
    spec: dict[str, Any] = policy.data.get("spec") or {}
    if not (spec.get("loadBalancerIPs") or spec.get("externalIPs")):
        place = policy.at("spec", "loadBalancerIPs")
        yield place.finding(f"{policy.name} announces nothing", "set loadBalancerIPs to true")
    for index, pattern in enumerate(spec.get("interfaces") or ()):
        try:
            re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError):
            place = policy.at("spec", "interfaces", index)
            yield place.finding(f"{policy.name}: {pattern} is not a regular expression", "correct it")


def only_intended_services_are_exposed(snapshot: Snapshot) -> Iterator[Finding]:
    """A LoadBalancer has only ports that reachability.yaml opens to the world; nothing else is exposed to the LAN."""
    table = snapshot.table
    remedy = "keep it ClusterIP, and give what the LAN needs a Service of its own"
    for document in snapshot.objects():
        if document.kind == "Service" and not document.group:
            for path, message, fix in _exposure_defects(table, document):
                yield document.at(*path).finding(f"Service {document.name} {message}", fix or remedy)
            continue
        for path in _exposing(document.data.get("spec")):
            name = f"{document.kind} {document.name}: {'.'.join(map(str, path))}"
            yield document.at("spec", *path).finding(f"{name} exposes every port of the Service to the LAN", remedy)
    for app in snapshot.applications:
        intended = {(*path.split("."), "type") for path in chart_of(app).exposes}
        for path in _exposing(app.values):
            if path not in intended:
                place = app.document.at("spec", "source", "helm", "valuesObject", *path)
                yield place.finding(f"{app.name}: {'.'.join(map(str, path))} exposes it to the LAN", remedy)


def _exposing(data: Any) -> Iterator[tuple[Key, ...]]:
    """The paths of every `type` that exposes a Service to the LAN."""
    return (path for path, key, value in walk(data) if key == "type" and value in _EXPOSED)


def _exposure_defects(table: Table, service: Document) -> Iterator[tuple[tuple[Key, ...], str, str]]:
    """Path, message and remedy, "" for the usual one."""
    spec = service.data.get("spec") or {}
    if spec.get("type") == "NodePort":
        yield ("spec", "type"), "opens a port of every node", ""
    if spec.get("type") != "LoadBalancer":
        return
    pods = [pod for pod in table.pods.values() if pod.namespace == service.namespace and _selects(spec, pod)]
    if not pods:
        remedy = f"correct its selector, or add the pod to {reachability.NAME}"
        yield ("spec", "selector"), f"selects no pod of {reachability.NAME}", remedy
    for index, port in enumerate(spec.get("ports") or ()):
        target = (port.get("targetPort", port.get("port")), port.get("protocol", TCP))
        if closed := [pod.name for pod in pods if not table.row(WORLD, pod, target)[0]]:
            message = f"exposes {closed[0]}:{target[0]} to the LAN, and no row expects the world there"
            yield ("spec", "ports", index), message, f"remove the port, or add a row to {reachability.NAME}"


def _selects(spec: dict[str, Any], pod: Endpoint) -> bool:
    selector = spec.get("selector") or {}
    return bool(selector) and matches({"matchLabels": selector}, pod.labels)


def policies_of(snapshot: Snapshot) -> Policies[Document]:
    """The policies that the tree deploys, with the labels of its namespaces."""
    policies = snapshot.objects("NetworkPolicy", "CiliumNetworkPolicy")
    labels = {
        name: namespace.data["metadata"].get("labels") or {} for name, (_, namespace) in snapshot.namespaces.items()
    }
    return Policies(tuple(policy for policy in policies if isinstance(policy.data.get("spec"), dict)), labels)


def namespaces_deny_by_default(snapshot: Snapshot) -> Iterator[Finding]:
    """Every namespace with pods has a default deny, applied last; no rule allows everything."""
    policies = policies_of(snapshot).policies
    closed = {policy.namespace for policy in policies if _denies_all(policy)}
    for name in [*_NAMESPACES_WITH_PODS, *snapshot.namespaces]:
        if name not in closed:
            # The first policy of the namespace, else the namespace, else the Application of the policies.
            manifest = snapshot.namespaces.get(name)
            document = manifest[1] if manifest else snapshot.tree.application("network-policies").document
            document = next((policy for policy in policies if policy.namespace == name), document)
            message = f"namespace {name} has no default deny for ingress"
            yield document.at("metadata", "name").finding(message, "add default-deny-ingress to its policies")
    for policy in policies:
        for path, message, remedy in (*_policy_defects(policy), *_egress_defects(policy, snapshot)):
            yield policy.at(*path).finding(f"{policy.name} {message}", remedy)


def _policy_defects(policy: Document) -> Iterator[tuple[tuple[Key, ...], str, str]]:
    spec = policy.data["spec"]
    if closes_ingress(policy) and not _denies_all(policy) and not policy.name.startswith("allow-"):
        yield ("metadata", "name"), "would be applied after the default deny", "let its name begin with allow-"
    if "egressDeny" in spec:
        yield (
            ("spec", "egressDeny"),
            f"denies egress, which no row of {reachability.NAME} proves",
            "list what it allows",
        )
    for index, rule in enumerate(spec.get("ingress") or ()):
        all_pods = any(
            peer.get("namespaceSelector") == {} and not peer.get("podSelector") for peer in rule.get("from") or ()
        )
        if not rule.get("ports") and (all_pods or not (rule.get("from") or rule.get("fromEntities"))):
            yield ("spec", "ingress", index), "allows every pod, on every port", "name a namespace, or a port"


def _denies_all(policy: Document) -> bool:
    spec = policy.data["spec"]
    is_for_all = policy.kind == "NetworkPolicy" and not spec.get("podSelector")
    return is_for_all and closes_ingress(policy) and not spec.get("ingress")


def _egress_defects(policy: Document, snapshot: Snapshot) -> Iterator[tuple[tuple[Key, ...], str, str]]:
    """A policy that closes egress leaves its pods names, and what rows expect of them by their name or namespace."""
    if not closes_egress(policy):
        return
    spec, table, policies = policy.data["spec"], snapshot.table, policies_of(snapshot)
    selector = spec.get("podSelector", spec.get("endpointSelector")) or {}
    own = [pod for pod in table.pods.values() if pod.namespace == policy.namespace and matches(selector, pod.labels)]
    own = own or [Endpoint(f"pods of {policy.namespace}", policy.namespace, selector.get("matchLabels") or {})]
    field = "egress" if "egress" in spec else "policyTypes"
    for pod in own:
        for target, (port, protocol), _ in table.targets():
            sources = [names for _, _, names in table.rows_to(target, (port, protocol))]
            is_named = any({pod.name, f"namespace {pod.namespace}"} & names for names in sources)
            is_dns = target.name == _DNS and (port, protocol) == _DNS_PORT
            if (is_named or is_dns) and not policies.leaves(pod, target, (port, protocol)):
                use = "its names come from there" if is_dns else f"a row of {reachability.NAME} expects it open"
                message = f"keeps {pod.name} from {target.name}:{port}/{protocol}, and {use}"
                yield ("spec", field), message, f"allow port {port} of {target.name} in its egress"


def reachability_is_as_expected(snapshot: Snapshot) -> Iterator[Finding]:
    """What the table expects to be open is open, and nothing else is; it has the pods of every namespace."""
    table = snapshot.table
    known = {pod.namespace for pod in table.pods.values()}
    users = {app.namespace: app.name for app in snapshot.applications if not snapshot.tree.is_ours(app)}
    users |= {document.namespace: app.name for app, document in snapshot.deployed if document.kind not in WITHOUT_PODS}
    for name, (_, namespace) in snapshot.namespaces.items():
        if name not in known and name in users:
            message = f"{reachability.NAME} has no pod of namespace {name}, where {users[name]} deploys"
            yield namespace.at("metadata", "name").finding(message, "add its pods, and rows for what reaches them")
    for position, name, pod in snapshot.homeless_pods:
        yield position.finding(f"{name} is in namespace {pod['namespace']}, which nothing creates", "correct it")
    for position, name in table.repeated:
        yield position.finding(f"the pod {name} is in upstream's table too", "give it another name")
    for position, name in table.strangers:
        yield position.finding(f"the row names {name}, which is no pod", did_you_mean(name, table.names))
    wrong: dict[tuple[Position, Position | None], list[str]] = {}
    for cell in reachability.matrix(table, policies_of(snapshot)):
        if not cell.is_as_expected:
            # The policy that allows too much or is in the way; else the pod, which has no policy.
            places = [policy.at("metadata", "name") for policy in cell.verdict.policies]
            place = places[0] if places else table.at(cell.target)
            wrong.setdefault((place, cell.row), []).append(cell.question())
    for (place, row), questions in wrong.items():
        more = f" and {len(questions) - _SHOWN} more" if len(questions) > _SHOWN else ""
        expectation = f"closed, and {row} expects it open" if row else "open, and no row expects it"
        yield place.finding(
            f"{expectation}: {', '.join(questions[:_SHOWN])}{more}",
            "let a policy allow it" if row else f"narrow the policy, or add a row to {reachability.NAME}",
        )


def opened_ports_are_served(snapshot: Snapshot) -> Iterator[Finding]:
    """A port that a row of reachability.yaml or a policy opens is one that a pod has."""
    table = snapshot.table
    for place, row in table.rows:
        for name in filter(table.pods.__contains__, reachability.listed(row["to"])):
            opened = [text if "/" in text else f"{text}/{TCP}" for text in map(str, row.get("ports") or ())]
            closed = set(opened) - {f"{number}/{protocol}" for number, protocol in table.ports(name)}
            yield from _unserved(place, filter(closed.__contains__, opened), f"the row opens {name}:")
    namespaces = {pod.namespace for pod in table.pods.values()}
    for policy in policies_of(snapshot).policies:
        if policy.namespace not in namespaces:
            continue  # this root deploys nothing there: both variants of the tree have the policies of both
        spec = policy.data["spec"]
        selector = spec.get("podSelector", spec.get("endpointSelector"))
        pods = [p for p in table.pods.values() if p.namespace == policy.namespace and matches(selector or {}, p.labels)]
        served: set[tuple[str | int, str]] = {port for pod in pods for port in table.ports(pod.name)}
        served |= {(name, port[1]) for pod in pods for name, port in table.named_ports(pod.name).items()}
        usual = TCP if policy.kind == "NetworkPolicy" else _ANY
        for index, rule in enumerate(spec.get("ingress") or ()):
            ports = [
                *(rule.get("ports") or ()),
                *(p for to in rule.get("toPorts") or () for p in to.get("ports") or ()),
            ]
            ranges = [
                (str(port["port"]), str(port.get("endPort", port["port"])), port.get("protocol", usual))
                for port in ports
                if "port" in port
            ]
            closed_ports = [
                f"{first}-{last}/{protocol}" if last != first else f"{first}/{protocol}"
                for first, last, protocol in ranges
                if not any(_is_opened(listening, first, last) for listening, own in served if protocol in (own, _ANY))
            ]
            yield from _unserved(policy.at("spec", "ingress", index), closed_ports, f"{policy.name} opens ")


def _is_opened(port: str | int, first: str, last: str) -> bool:
    """Whether a port, by its number or its name, is one of a range."""
    is_range = isinstance(port, int) and first.isdigit() and last.isdigit()
    return int(first) <= int(port) <= int(last) if is_range else str(port) == first


def _unserved(place: Position, closed: Iterable[str], subject: str) -> Iterator[Finding]:
    for port in closed:
        yield place.finding(f"{subject}{port}, where nothing listens", "close it, or correct pod and port")
