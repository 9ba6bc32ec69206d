"""What a stage works with: the platform, the paths, the policy, and one client for each system outside.

Clients are made at first use, shared by all threads of a run, and closed with it. A stage declares the clients it uses
(`Stage.uses`) and receives a context that refuses every other one.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from fluobook import lab as labs
from fluobook import params
from fluobook.clients import git, sops
from fluobook.clients.factory import FactoryClient
from fluobook.clients.kube import Kube, OperatorLease
from fluobook.clients.proxmox import ProxmoxClient, ProxmoxEndpoint
from fluobook.clients.s3 import Bucket
from fluobook.clients.talos import Address, MachineStage, Probe, TalosNode, connect, probe
from fluobook.cluster_secrets import ClusterSecrets
from fluobook.errors import AccessDenied, FluobookError, in_commands
from fluobook.journal.journal import Journal
from fluobook.params import TALOS_PORT, Node, Platform, SecretRef
from fluobook.params.load import digest_of
from fluobook.redact import Redactor
from fluobook.waiting import Cancellation, wait_until

T = TypeVar("T")

Client = Literal["proxmox", "talos", "kubernetes", "image factory", "bucket"]
"""The systems for which a context has clients."""


@dataclass(frozen=True)
class Policy:
    """What a target demands. Stages ask the policy and never the target.

    Args:
        refuses_lab_key: whether the lab's age key, which is public, is refused.
        names_cluster: whether an approval contains the cluster's name, so that nobody approves by habit.
        writes_params: whether a plan may change the params file.
        shows_rehearsals: whether a person is told if a plan of day-2 work was rehearsed.
    """

    refuses_lab_key: bool
    names_cluster: bool
    writes_params: bool
    shows_rehearsals: bool


POLICIES = {
    "lab": Policy(refuses_lab_key=False, names_cluster=False, writes_params=False, shows_rehearsals=False),
    "live": Policy(refuses_lab_key=True, names_cluster=True, writes_params=True, shows_rehearsals=True),
}
"""The policy of each target."""


class TalosNodes:
    """The platform's nodes over the Talos API; connections are shared by all threads.

    Args:
        platform: maps a node to the address at which it is reached.
        secrets: give the certificates.
    """

    def __init__(self, platform: Platform, secrets: ClusterSecrets) -> None:
        self._platform, self._secrets = platform, secrets
        self._lock = threading.Lock()
        self._connections: dict[tuple[str, str], TalosNode] = {}

    def address(self, node: Node) -> Address:
        """Where a node's Talos API is reached."""
        host, port = self._platform.route(node.address, TALOS_PORT)
        return Address(host, port, "" if host == node.address else node.address)

    def client(self, node: Node, role: str = "os:reader") -> TalosNode:
        """A configured node over mutual TLS, with a certificate of the given role."""
        identity, ca = self._secrets.talos_identity(role), self._secrets.bundle().trusted("talos")
        with self._lock:
            if (node.name, role) not in self._connections:
                connection = connect(self.address(node), ca=ca, crt=identity.crt, key=identity.key)
                self._connections[node.name, role] = connection
            return self._connections[node.name, role]

    def probe(self, node: Node, *, timeout: float = 3.0) -> Probe:
        """What answers at a node's address, with our certificates if there are any.

        Args:
            node: the node.
            timeout: seconds.
        """
        if not self._secrets.has_bundle():
            return probe(self.address(node), timeout=timeout)
        identity, ca = self._secrets.talos_identity("os:reader"), self._secrets.bundle().trusted("talos")
        return probe(self.address(node), ca=ca, identity=identity, timeout=timeout)

    def _machine_stage(self, node: Node) -> MachineStage | None:
        try:
            return self.client(node).machine_stage() if self._secrets.has_bundle() else None
        except AccessDenied:
            raise
        except FluobookError:
            return None

    def is_at_rest(self, node: Node) -> bool:
        """Whether a configured node does not restart by itself any more; a control plane boots until etcd runs."""
        stage = self._machine_stage(node)
        return stage is not None and stage.stage in ("booting", "running")

    def is_ready(self, node: Node) -> bool:
        """Whether a node runs and reports that etcd, kubelet and its Kubernetes node are healthy."""
        stage = self._machine_stage(node)
        return stage is not None and stage.stage == "running" and stage.ready

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        with self._lock:
            connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.close()


@dataclass
class RunContext:
    """Everything a stage may reach.

    Args:
        phase: name of the phase.
        platform: the desired state, endpoints mapped for the target.
        target: "lab" or "live"; for display. What differs between them is in `policy`.
        root: the repository.
        home: the cluster's own folder: kubeconfig, talosconfig, lock.
        redactor: receives every secret that is loaded.
        journal: receives every event.
        lab: the lab of a rehearsal, if it is known.
        cancellation: whether the run is cancelled.
        uses: the clients that may be used; None allows all.
    """

    phase: str
    platform: Platform
    target: str
    root: Path
    home: Path
    redactor: Redactor
    journal: Journal
    lab: labs.Lab | None = None
    cancellation: Cancellation = field(default_factory=Cancellation, repr=False)
    uses: frozenset[Client] | None = None
    secrets: ClusterSecrets = field(init=False, repr=False)
    _shared: dict[object, object] = field(init=False, repr=False, default_factory=dict)
    _lock: threading.RLock = field(init=False, repr=False, default_factory=threading.RLock)

    def __post_init__(self) -> None:
        refuses = self.policy.refuses_lab_key
        self.secrets = ClusterSecrets(self.platform.secrets, self.root, self.redactor, refuses_lab_key=refuses)

    def limited_to(self, uses: Iterable[Client]) -> RunContext:
        """The same context, with these clients only."""
        limited = copy(self)
        limited.uses = frozenset(uses)
        return limited

    @property
    def in_commands(self) -> str:
        """How commands name the platform."""
        return in_commands(self.phase, self.target)

    @property
    def conditions(self) -> dict[str, Any]:
        """What durations depend on."""
        return labs.conditions(self.target, self.lab)

    @property
    def policy(self) -> Policy:
        """What the target demands."""
        return POLICIES[self.target]

    def proxmox(self, name: str) -> ProxmoxClient:
        """The client of a Proxmox VE endpoint of the platform."""
        return self._client("proxmox", ("proxmox", name), lambda: self._connect_proxmox(name))

    @property
    def talos(self) -> TalosNodes:
        """The platform's nodes over the Talos API."""
        return self._client("talos", TalosNodes, lambda: TalosNodes(self.platform, self.secrets))

    def kube(self) -> Kube:
        """The cluster's API as an administrator; the kubeconfig is made from the bundle, so no file is needed."""
        return self._client("kubernetes", Kube, self._connect_kube)

    @property
    def factory(self) -> FactoryClient:
        """The Talos Image Factory."""
        platform, endpoint = self.platform, ("factory.talos.dev", 443)
        return self._client(
            "image factory",
            FactoryClient,
            lambda: FactoryClient(address=platform.route(*endpoint), ca_file=platform.trusted_ca(*endpoint)),
        )

    @property
    def bucket(self) -> Bucket:
        """The bucket of the snapshots of etcd, which the params name."""
        return self._client("bucket", Bucket, self._connect_bucket)

    def _client(self, client: Client, key: object, make: Callable[[], T]) -> T:
        if self.uses is not None and client not in self.uses:
            raise RuntimeError(f"the stage uses the {client} client but does not declare it in Stage.uses")
        return self.shared(key, make)

    def secret(self, reference: SecretRef) -> str:
        """The secret that the params refer to; from now on nothing shows it.

        Raises:
            ParamsError: there is no secret at that place.
        """
        secret = reference.resolve(self.root, lambda path: sops.read(path, self.secrets.age_key()))
        self.redactor.add(secret)
        return secret

    def _connect_proxmox(self, name: str) -> ProxmoxClient:
        endpoint = next(e for e in self.platform.proxmox if e.name == name)
        secret = self.secret(endpoint.token_secret)
        trusted = self.platform.trust.get(endpoint.authority)
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

    def _connect_bucket(self) -> Bucket:
        wanted = self.platform.etcd_snapshots.bucket
        if wanted is None:
            raise RuntimeError("the params name no bucket")
        return Bucket(
            wanted.name,
            endpoint=wanted.url,
            region=wanted.region,
            key_id=self.secret(wanted.access_key_id),
            secret=self.secret(wanted.secret_access_key),
            token=self.secret(wanted.session_token) if wanted.session_token else "",
            address=self.platform.route(*wanted.server),
            ca_file=self.platform.trusted_ca(*wanted.server),
            deadline=self.platform.deadlines.upgrade,
        )

    def _connect_kube(self) -> Kube:
        return Kube.from_kubeconfig(self.secrets.kubeconfig(self.platform))

    def reconnect(self) -> None:
        """Use the secrets as they are now, after they have changed: with other authorities, or another identity."""
        self.talos.close()
        self.kube().identify(self.secrets.kubeconfig(self.platform))

    def shared(self, key: object, make: Callable[[], T]) -> T:
        """The run's one object of a kind: made at first use, then the same for all stages and threads."""
        with self._lock:
            if key not in self._shared:
                self._shared[key] = make()
            return cast("T", self._shared[key])

    def close(self) -> None:
        """Close every connection; a later call opens it again."""
        with self._lock:
            opened = list(self._shared.values())
            self._shared.clear()
        for client in opened:
            if callable(close := getattr(client, "close", None)):
                close()

    @contextmanager
    def lease(self) -> Iterator[Callable[[], None]]:
        """Lock the cluster against other operators with a Lease, as soon as its API answers.

        Yields a function that raises `Locked` once another operator has taken the lease: after this machine slept for
        longer than the lease is valid, for example.

        The holder's name contains no process id, so the lease of a killed run is taken over at once; two runs on one
        machine are kept apart by the lock file.

        Raises:
            Locked: another operator holds the lease.
        """
        kube = self.shared(Kube, self._connect_kube) if self.secrets.has_bundle() else None
        if kube is None or not kube.ready():
            yield lambda: None
            return
        person, host = operator()
        with OperatorLease(kube, f"{person}@{host}:{self.home}").held() as lease:
            yield lease.check

    def wait_until(
        self,
        deadline: str,
        condition: str,
        check: Callable[[], T | None],
        *,
        interval: float = 0.2,
        final: tuple[type[FluobookError], ...] = (),
    ) -> T:
        """Call `check` until it returns something other than None; see `fluobook.waiting.wait_until`.

        Args:
            deadline: its name in the params (`deadlines`), which gives the seconds.
            condition: what must happen, as in "node a to be Ready", for the error message.
            check: returns None while there is nothing yet.
            interval: seconds between the first two calls.
            final: further errors that waiting does not fix here.

        Raises:
            DeadlineExceeded: there was nothing in time.
            Cancelled: the run was cancelled.
        """
        return wait_until(
            check,
            what=condition,
            timeout=float(getattr(self.platform.deadlines, deadline)),
            cancellation=self.cancellation,
            interval=interval,
            final=final,
            remedy=f"remove what it waits for, then run it again; deadlines.{deadline} in the params sets the limit"
            + ("; the node stays cordoned until then" if deadline in ("drain", "canary") else ""),
        )


def operator() -> tuple[str, str]:
    """The person who runs this, as the operating system knows them, and the host."""
    try:
        person = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        person = str(os.getuid())
    return person, socket.gethostname()


def beginning_of(
    phase: str, platform: Platform, stages: Iterable[str], *, root: Path, target: str, lab: labs.Lab | None
) -> dict[str, Any]:
    """The event with which the record of a run begins: what it is about, where it comes from, what durations need."""
    person, host = operator()
    return {
        "phase": phase,
        "stages": list(stages),
        "params": digest_of(platform.written),
        **labs.conditions(target, lab),
        **({"charts": lab.charts, "sources": lab.sources} if lab else {}),
        "cluster": platform.cluster.name,
        "versions": platform.versions.model_dump(exclude_none=True),
        "commit": git.commit_of(root),
        "fluobook": metadata.version("fluobook"),
        "person": person,
        "host": host,
    }


def open_context(chosen: params.Params, *, root: Path, target: str, redactor: Redactor) -> RunContext:
    """The context of a phase and a target; for target "lab" with the lab that `fluobook.lab` finds or starts."""
    folder = os.environ.get("FLUOBOOK_RUN")
    journal = Journal(Path(folder) / "events.jsonl" if folder else None, redactor)
    if target == "live":
        home = params.home() / chosen.platform.cluster.name
        return RunContext(chosen.phase, chosen.platform, target, root, home, redactor, journal)
    lab = labs.for_phase(chosen, root=root)
    platform = params.overlay(chosen.platform, lab.overlay)
    return RunContext(chosen.phase, platform, target, root, lab.cluster_folder, redactor, journal, lab)
