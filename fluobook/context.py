"""What a stage works with: the platform, the paths, and the clients, each made when it is first needed."""

from __future__ import annotations

import getpass
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from fluobook.clients import sops
from fluobook.clients.factory import FactoryClient
from fluobook.clients.kube import Kube, OperatorLease
from fluobook.clients.proxmox import ProxmoxClient, ProxmoxEndpoint
from fluobook.clients.talos import Address, TalosNode, connect
from fluobook.cluster_secrets import ClusterSecrets
from fluobook.params import TALOS_PORT
from fluobook.waiting import Cancellation, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from fluobook.errors import FluobookError
    from fluobook.journal.journal import Journal
    from fluobook.params import Node, Platform
    from fluobook.redact import Redactor

T = TypeVar("T")


@dataclass
class RunContext:
    """Everything a stage may reach.

    Args:
        phase: name of the phase.
        platform: the desired state, endpoints mapped for the target.
        target: "lab" or "live"; for what people are told, no stage acts on it.
        root: the repository.
        home: the cluster's own folder: kubeconfig, talosconfig, lock.
        redactor: learns every secret that is loaded.
        journal: gets every event.
        remarks: what a person should know.
        cancellation: says when work is to be broken off.
    """

    phase: str
    platform: Platform
    target: str
    root: Path
    home: Path
    redactor: Redactor
    journal: Journal
    remarks: tuple[str, ...] = ()
    cancellation: Cancellation = field(default_factory=Cancellation, repr=False)
    _made: dict[str, Any] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """The thing of that name, made at the first call and kept."""
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]

    def forget(self, name: str) -> None:
        """Let `once` make the thing anew."""
        with self._lock:
            self._made.pop(name, None)

    def close(self) -> None:
        """Close every connection that was made; a later call makes it anew."""
        with self._lock:
            made, self._made = [*self._made.values(), self.__dict__.pop("factory", None)], {}
        for one in made:
            if callable(close := getattr(one, "close", None)):
                close()

    @cached_property
    def secrets(self) -> ClusterSecrets:
        """The age key and the Talos secrets bundle."""
        return ClusterSecrets(self.platform.secrets, self.root, self.redactor, live=self.target == "live")

    def proxmox(self, name: str) -> ProxmoxClient:
        """The client of a Proxmox VE endpoint of the platform."""
        return self.once(f"proxmox {name}", lambda: self._proxmox(name))

    def _proxmox(self, name: str) -> ProxmoxClient:
        endpoint = next(e for e in self.platform.proxmox if e.name == name)
        secret = endpoint.token_secret.resolve(self.root, lambda path: sops.read(path, self.secrets.age_key()))
        self.redactor.add(secret)
        trusted = self.platform.trust.get(f"{endpoint.host}:{endpoint.port}")
        return ProxmoxClient(
            ProxmoxEndpoint(
                name,
                endpoint.url,
                endpoint.token_id,
                secret,
                address=self.platform.route(endpoint.host, endpoint.port),
                ca_file=trusted or endpoint.ca_file,
                fingerprint=None if trusted else endpoint.fingerprint,
            )
        )

    @cached_property
    def factory(self) -> FactoryClient:
        """The Talos Image Factory."""
        host, port = "factory.talos.dev", 443
        return FactoryClient(address=self.platform.route(host, port), ca_file=self.platform.trusted_ca(host, port))

    def talos_address(self, node: Node) -> Address:
        """Where a node's Talos API is reached."""
        host, port = self.platform.route(node.address, TALOS_PORT)
        return Address(host, port, "" if host == node.address else node.address)

    def talos(self, node: Node, role: str = "os:reader") -> TalosNode:
        """A configured node over mutual TLS, with a certificate of the given role."""
        return self.once(f"talos {node.name} {role}", lambda: self._talos(node, role))

    def _talos(self, node: Node, role: str) -> TalosNode:
        pair = self.secrets.talos_identity(role)
        return connect(self.talos_address(node), ca=self.secrets.bundle().talos.crt, crt=pair.crt, key=pair.key)

    @cached_property
    def kubeconfig_path(self) -> Path:
        """Where the kubeconfig is written."""
        return self.home / "kubeconfig"

    def kube(self) -> Kube:
        """The cluster's API as an administrator; the kubeconfig is made from the bundle, so no file is needed."""
        return self.once("kube", lambda: Kube.from_kubeconfig(self.secrets.kubeconfig(self.platform)))

    @contextmanager
    def lease(self) -> Iterator[Callable[[], None]]:
        """Keep other operators out while something is changed, by a Lease in the cluster as soon as its API answers.

        Yields what raises `Locked` once another operator has taken the lease from us: after a sleep of this machine,
        say, that was longer than the lease is good for.

        The name of the holder has no process in it: a killed run of ours is taken over at once, since on one machine
        the cluster's lock keeps two runs apart.

        Raises:
            Locked: another operator is at work.
        """
        if not (self.secrets.has_bundle() and self.kube().ready()):
            yield lambda: None
            return
        with OperatorLease(self.kube(), f"{getpass.getuser()}@{socket.gethostname()}:{self.home}").held() as lease:
            yield lease.check

    def wait_until(
        self,
        name: str,
        what: str,
        look: Callable[[], T | None],
        *,
        every: float = 0.2,
        final: tuple[type[FluobookError], ...] = (),
    ) -> T:
        """Look again and again until there is an answer.

        Args:
            name: the deadline's name in the params; it gives the seconds.
            what: what is waited for, for the error.
            look: returns None while it has to be waited for. Our errors, but for `FINAL`, count as "not yet".
            every: seconds between two looks, at first; they grow to five times that.
            final: further errors that no waiting mends here.

        Raises:
            DeadlineExceeded: it did not come in time.
            Cancelled: the run was interrupted.
        """
        return wait_until(
            look,
            what=what,
            timeout=float(getattr(self.platform.deadlines, name)),
            cancellation=self.cancellation,
            interval=every,
            final=final,
            remedy=f"inspect the systems; deadlines.{name} in the params sets the limit",
        )


def plain(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as a plain dict, for the journal."""
    return dict(mapping)
