"""The mesh as pure functions: what each host's file has to hold, the script that makes it so, and what it reports."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from ipaddress import ip_address
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fluobook.params.platform import Wireguard, WireguardHost

KEEPALIVE = 25
"""Seconds between two packets of a host behind NAT, so that its router keeps the way back open."""
RECENT = 180
"""Seconds after which a session of WireGuard is not used any more: an older handshake means there is none."""
NO_KEY = "neither ssh nor a public_key in the params"
_SCRIPT = resources.files(__package__).joinpath("host.sh")


@dataclass(frozen=True)
class PeerState:
    """A peer as `wg show` has it: seconds since the last handshake (-1 for none), bytes received and sent.

    `endpoint` is where its last packet came from, or the configured one; `allowed` are the networks that it gets.
    """

    handshake: int
    received: int
    sent: int
    endpoint: str = ""
    allowed: frozenset[str] = frozenset()

    def evidence(self) -> dict[str, Any]:
        """The record of it in the journal."""
        return {**vars(self), "allowed": sorted(self.allowed)}


@dataclass(frozen=True)
class HostState:
    """What a host's script reported.

    Args:
        tools: whether WireGuard's programs are installed.
        public: the public key of the key file that the params ask for; "" if there is none.
        file: SHA-256 of the wg-quick file without its private key; "" if there is none.
        mode: the file's mode.
        holds: the public key of the private key in the file.
        running: the public key of the running interface; "" if it is down.
        mtu: the interface's MTU.
        addressed: whether the interface has the host's address.
        enabled: whether it starts with the host.
        stanza: whether Proxmox VE's network configuration names its address and MTU.
        ports: the UDP ports of all WireGuard interfaces.
        peers: by public key.
        paths: the peers' addresses that packets of full size reach unfragmented.
    """

    tools: bool = True
    public: str = ""
    file: str = ""
    mode: str = ""
    holds: str = ""
    running: str = ""
    mtu: int = 0
    addressed: bool = False
    enabled: bool = False
    stanza: bool = False
    ports: Mapping[str, int] = field(default_factory=dict)
    peers: Mapping[str, PeerState] = field(default_factory=dict)
    paths: frozenset[str] = frozenset()


def read(text: str) -> HostState:
    """What a script wrote; lines that are not known are left out."""
    words = [line.split() for line in text.splitlines() if line.strip()]
    first = {line[0]: line[1:] for line in words}
    ports = [line[1:] for line in words if line[0] == "port"]
    peers = [line[1:] for line in words if line[0] == "peer"]
    return HostState(
        tools="missing" not in first,
        public="".join(first.get("public", ())),
        file=first.get("file", [""])[0],
        mode=first.get("file", [""])[-1],
        holds="".join(first.get("holds", ())),
        running=first.get("running", [""])[0],
        mtu=int("".join(first.get("running", [])[1:]) or 0),
        addressed="addressed" in first,
        enabled="enabled" in first,
        stanza="stanza" in first,
        ports={name: int(port) for name, port in ports},
        peers={peer[0]: _peer(*peer[1:]) for peer in peers},
        paths=frozenset(line[1] for line in words if line[0] == "path"),
    )


def public_key(private: str) -> str:
    """The public key of a private one; "" if it is none."""
    try:
        key = X25519PrivateKey.from_private_bytes(base64.b64decode(private, validate=True))
    except ValueError:
        return ""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def _peer(handshake: str, received: str = "0", sent: str = "0", endpoint: str = "", allowed: str = "") -> PeerState:
    return PeerState(int(handshake), int(received), int(sent), endpoint, frozenset(filter(None, allowed.split(","))))


def allowed_ips(host: WireguardHost) -> list[str]:
    """The networks that the other hosts reach through a host."""
    return [f"{host.address}/32", *host.networks]


def configuration(mesh: Wireguard, name: str, keys: Mapping[str, str]) -> str:
    """A host's wg-quick file from the second line on; the first two are the section and its private key.

    Args:
        mesh: the mesh.
        name: the host.
        keys: the public keys of all other hosts.
    """
    host = mesh.host(name)
    lines = [f"Address = {host.address}/32", f"ListenPort = {mesh.port_of(host)}", f"MTU = {mesh.mtu}"]
    for peer in mesh.members:
        if peer is host:
            continue
        lines += ["", f"# {peer.host}", "[Peer]", f"PublicKey = {keys[peer.host]}"]
        lines += [f"Endpoint = {peer.endpoint}:{mesh.port_of(peer)}"] if peer.endpoint else []
        lines += [f"AllowedIPs = {', '.join(allowed_ips(peer))}"]
        lines += [f"PersistentKeepalive = {KEEPALIVE}"] if host.endpoint is None else []
    return "\n".join(lines) + "\n"


def script(mesh: Wireguard, name: str, verb: str, content: str = "", *, fabric: bool = False, given: str = "") -> str:
    """What `sh` runs on a host: its settings, then the program.

    Args:
        mesh: the mesh.
        name: the host.
        verb: observe, tools, key, mesh, peers (mesh, but the host keeps the key that it uses) or remove.
        content: from `configuration`, for the verbs mesh and peers.
        fabric: whether the interface is that of a fabric of the SDN.
        given: the private key, if it is not made on the host.
    """
    host, others = mesh.host(name), [peer for peer in mesh.members if peer.host != name]
    settings = {
        "verb": verb,
        "tunnel": mesh.interface,
        "interface": mesh.interface_on(host, fabric=fabric),
        "key": host.key,
        "given": given,
        "address": host.address,
        "mtu": mesh.mtu,
        "peers": " ".join(peer.address for peer in others),
        "routes": " ".join(cidr for peer in others for cidr in allowed_ips(peer)),
    }
    assignments = "".join(f"{key}='{value}'\n" for key, value in settings.items())
    return f"{assignments}configuration() {{\ncat <<'END'\n{content}END\n}}\n{_SCRIPT.read_text()}"


def digest(content: str) -> str:
    """What a host reports of a file with this content."""
    return hashlib.sha256(f"[Interface]\n{content}".encode()).hexdigest()


def active_keys(mesh: Wireguard, states: Mapping[str, HostState]) -> dict[str, str]:
    """The public key that each host uses now, or will use with its first file; "" where it has none yet."""
    keys = {}
    for host in mesh.members:
        state = states.get(host.host, HostState())
        keys[host.host] = state.holds or state.public if host.ssh else host.public_key or ""
    return keys


def is_rotated(state: HostState) -> bool:
    """Whether a host uses another key than the params ask for; its peers have to learn the new one."""
    return bool(state.holds) and state.holds != state.public


def differences(mesh: Wireguard, name: str, states: Mapping[str, HostState]) -> Iterator[str]:
    """What a host's tunnel lacks, rotation left aside."""
    state, keys, host = states[name], active_keys(mesh, states), mesh.host(name)
    unknown = [peer for peer, key in keys.items() if peer != name and not key]
    planned = "" if unknown else digest(configuration(mesh, name, keys))
    if not state.file:
        yield "it has no file"
        return
    if unknown:
        yield f"{', '.join(unknown)} get{'s' if len(unknown) == 1 else ''} a new key"
    elif state.file != planned:
        yield "its file differs"
    elif state.mode != "600":
        yield f"its file has mode {state.mode}"
    others = networks(mesh, name, keys) if state.file == planned else None
    yield from _running_differences(mesh, host, state, others)
    if not state.enabled:
        yield "it does not start with the host"
    if not state.stanza:
        yield "Proxmox VE does not know its address"


def _running_differences(
    mesh: Wireguard, host: WireguardHost, state: HostState, peers: Mapping[str, frozenset[str]] | None
) -> Iterator[str]:
    if not state.running:
        yield "it is down"
    elif state.running != state.holds:
        yield "it runs with another key than its file's"
    elif (state.mtu, state.ports.get(mesh.interface)) != (mesh.mtu, mesh.port_of(host)):
        yield f"it runs with MTU {state.mtu} on port {state.ports.get(mesh.interface)}"
    elif not state.addressed:
        yield "it has no address, or another one"
    elif peers is not None and {key: peer.allowed for key, peer in state.peers.items()} != peers:
        yield "it runs with other peers or networks than its file's"


def networks(mesh: Wireguard, name: str, keys: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """The networks that each peer of a host gets, by public key."""
    return {keys[peer.host]: frozenset(allowed_ips(peer)) for peer in mesh.members if peer.host != name}


def elsewhere(mesh: Wireguard, states: Mapping[str, HostState], keys: Mapping[str, str]) -> dict[str, str]:
    """The directions in which a peer's packets come from another address than its endpoint, and from where.

    WireGuard follows the packets, so such a pair works until a host starts again and has to reach the endpoint.
    """
    return {
        f"{name} to {peer.host}": f"its packets come from {seen.endpoint}, not from its endpoint {peer.endpoint}"
        for name, state in states.items()
        for peer in mesh.members
        if (seen := state.peers.get(keys[peer.host])) and is_address(peer.endpoint) and seen.handshake >= 0
        if seen.endpoint.rpartition(":")[0] != peer.endpoint
    }


def is_address(text: str | None) -> bool:
    """Whether a text is an IP address."""
    try:
        return bool(ip_address(text or ""))
    except ValueError:
        return False


def silent_pairs(mesh: Wireguard, states: Mapping[str, HostState], keys: Mapping[str, str]) -> dict[str, str]:
    """Each direction between two hosts in which something is missing, and what it is; `keys` are the public ones."""
    silent = dict[str, str]()
    for name, state in states.items():
        for peer in mesh.members:
            if peer.host != name and not mesh.host(name).removed:
                reason = _silence(state, state.peers.get(keys[peer.host]), peer.address)
                silent |= {f"{name} to {peer.host}": reason} if reason else {}
    return silent


def _silence(state: HostState, peer: PeerState | None, address: str) -> str:
    if peer is None or peer.handshake < 0:
        return "no handshake"
    if peer.handshake > RECENT:
        return f"no handshake for more than {RECENT} s"
    if not (peer.received and peer.sent):
        return "no transfer in both directions"
    return "" if address in state.paths else "packets of full size are lost"


def problems(
    mesh: Wireguard, states: Mapping[str, HostState], keys: Mapping[str, str], *, fabric: bool = False
) -> Iterator[str]:
    """What stands in the way: somebody else's interface on our port, a key that is not the expected one."""
    for host in mesh.members:
        state = states.get(host.host, HostState())
        for interface, port in state.ports.items():
            if not mesh.owns(interface) and port == mesh.port_of(host):
                yield f"UDP port {port} of {host.host} is used by its interface {interface}"
        key = state.public or ("" if host.private_key else keys[host.host])  # a given key was compared already
        if host.public_key and key and key != host.public_key:
            yield f"{host.host} has the public key {key}, and the params say {host.public_key}"
    owners: dict[str, str] = {}
    for name, key in keys.items():
        if key and owners.setdefault(key, name) != name:
            yield f"{owners[key]} and {name} have the same key {key}"
        elif not key and not mesh.host(name).ssh and not fabric:
            yield f"{name} has {NO_KEY}"


def unseen(mesh: Wireguard) -> list[str]:
    """The hosts that the params name no ssh for."""
    return [host.host for host in mesh.hosts if not host.ssh]
