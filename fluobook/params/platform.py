"""Every key of a params file with its default: the desired state of one phase, as frozen values.

`fluobook.params.fields` has the types of single values, `fluobook.params.rules` what no single value can check alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, model_validator
from pydantic.json_schema import SkipJsonSchema

from fluobook.params import fields
from fluobook.params.alerts import Alerts
from fluobook.params.fields import DERIVED, Count, Flag, Host, HostName, Ipv4, Model, Mtu, Name, Port, Seconds, Text
from fluobook.params.problems import refuse
from fluobook.params.secrets import SecretRef, SecretReferences
from fluobook.params.versions import Supported, Versions

TALOS_PORT = 50000
"""Port of the Talos API on every node."""
KUBERNETES_PORT = 6443
"""Port of the Kubernetes API on control planes and on the shared address."""
_NOT_IN_A_DIGEST: dict[str, Any] = {
    "secrets": True,
    "endpoints": True,
    "trust": True,
    "deadlines": True,
    "etcd_snapshots": True,  # what is taken, deleted or restored is in the actions
    "backups": True,  # it is in the content of the root Application
    "upgrade": True,  # a rollback has actions of its own
    "rotate": True,  # as are the authorities that are rotated
    "gitops": {"mirrors"},
    "versions": {"migrates_from"},  # what it allows is in the actions
    "wireguard": {"ssh_program"},
    "proxmox": {"__all__": {"token_id", "token_secret", "retired_token_id", "ca_file", "fingerprint"}},
}


class Cluster(Model):
    """The Kubernetes cluster."""

    name: fields.ClusterName
    """Name of the cluster; VM ids, MAC addresses and uuids follow from it."""
    pod_cidr: fields.Cidr = "10.244.0.0/16"
    """Network of the pods; every node takes a /24 of it."""
    service_cidr: fields.Cidr = "10.96.0.0/12"
    """Network of the Services."""
    api_address: Host | None = None
    """Address of the Kubernetes API; null for the VIP, or else the first control plane."""


class AddressRange(Model):
    """Addresses from `start` to `stop`, both included."""

    start: Ipv4
    """The first address."""
    stop: Ipv4
    """The last address."""


class Pool(AddressRange):
    """Addresses that Cilium gives to Services of type LoadBalancer."""

    name: Name
    """Name of the pool, such as ingress."""


class LoadBalancer(Model):
    """Addresses for Services of type LoadBalancer, and whether Cilium announces them by ARP."""

    announce: Flag = True
    """Whether Cilium announces the addresses on layer 2; needs network.layer2."""
    pools: tuple[Pool, ...] = ()
    """Pools of addresses, each with a name."""


class Network(Model):
    """The network of all nodes."""

    cidr: fields.Cidr
    """Network of the nodes, such as 10.10.0.0/24."""
    gateway: Ipv4
    """The router's address in that network."""
    nameservers: Annotated[tuple[Ipv4, ...], Field(min_length=1, max_length=3), fields.Distinct]
    """One to three DNS servers."""
    ntp: Annotated[tuple[Host, ...], Field(min_length=1), fields.Distinct] = ("time.cloudflare.com",)
    """Time servers; etcd and certificates need the right time."""
    bridge: fields.Interface = "vmbr0"
    """The Proxmox VE bridge that the nodes are attached to."""
    vlan: fields.VlanTag | None = None
    """VLAN tag on that bridge, 1 to 4094; null for none."""
    mtu: Mtu = 1500
    """Largest packet on the nodes' interfaces, in bytes."""
    addressing: Literal["static", "dhcp"] = "static"
    """static: by cloud-init drive; dhcp: by reservations for the nodes' MAC addresses."""
    dhcp_range: AddressRange | None = None
    """The range of a DHCP server in that network; of the platform only nodes with `addressing: dhcp` may be in it."""
    layer2: Flag = True
    """Whether all nodes share one layer-2 segment; a VIP and layer-2 announcements need it."""
    vip: Ipv4 | None = None
    """Address that the control planes share for the Kubernetes API."""
    load_balancer: LoadBalancer = LoadBalancer(announce=False)
    """Addresses for Services of type LoadBalancer."""


class WireguardHost(Model):
    """A Proxmox VE host, as a peer of the mesh."""

    host: HostName
    """Name of a Proxmox VE host."""
    endpoint: Host | None
    """The host's address for the other hosts; null behind NAT: it then keeps its own connections to them open."""
    port: Port | None = None
    """UDP port of this host; null for the mesh's."""
    address: Ipv4
    """The host's address inside the tunnel."""
    networks: tuple[fields.Cidr, ...] = ()
    """Further networks behind this host that the other hosts reach through the tunnel."""
    ssh: fields.SshDestination | None = None
    """Where the operator's own ssh reaches the host as root; null: stage host-network shows what to run there."""
    public_key: fields.WireguardKey | None = None
    """Public key of a host without ssh; of another host, the key that it must have."""
    key: Annotated[Count, Field(le=99)] = 1
    """Number of the host's key; the next number replaces the key."""
    private_key: SecretRef | None = None
    """Where the private key is stored; null: it is made on the host and never leaves it."""
    removed: Flag = False
    """Whether the host leaves the mesh: stage host-network deletes what it has made there."""


class Vxlan(Model):
    """The layer-2 segment over the mesh: a zone of Proxmox VE's SDN; `network.bridge` names its VNet."""

    zone: fields.SdnName = "fluobook"
    """Id of the zone."""
    tag: Annotated[Count, Field(le=16_777_215)] = 100
    """VXLAN network identifier of the VNet."""
    port: Port = 4789
    """UDP port of VXLAN, inside the tunnel."""


class Wireguard(Model):
    """The mesh between Proxmox VE hosts, invisible to the nodes."""

    interface: fields.TunnelName = "wgfluo"
    """Name of the interface on every host."""
    port: Port = 51820
    """UDP port on every host."""
    cidr: fields.Cidr
    """Network of the tunnel addresses."""
    underlay_mtu: Mtu = 1500
    """Largest packet between the hosts, in bytes."""
    mtu: Mtu = 1420
    """Largest packet in the tunnel: the underlay's less 80."""
    hosts: Annotated[tuple[WireguardHost, ...], Field(min_length=2)]
    """Every host of the mesh."""
    vxlan: Vxlan | None = None
    """The layer-2 segment for the nodes; null if they have another one."""
    ssh_program: Text = "ssh"
    """The program that connects to the hosts, as `ssh` does."""

    @property
    def members(self) -> tuple[WireguardHost, ...]:
        """The hosts that stay in the mesh; none of them if it is removed."""
        return tuple(host for host in self.hosts if not host.removed)

    def host(self, name: str) -> WireguardHost:
        """The host of that name."""
        return next(host for host in self.hosts if host.host == name)

    def interface_on(self, host: WireguardHost, *, fabric: bool) -> str:
        """The interface on a host; in a fabric of the SDN each number of its key has a name of its own."""
        return self.interface_named(host.key if fabric else 1)

    def interface_named(self, key: int) -> str:
        """The interface of a fabric whose key has this number."""
        number = str(key) if key > 1 else ""
        return self.interface[: 8 - len(number)] + number

    def owns(self, interface: str) -> bool:
        """Whether an interface on a host is the mesh's, whatever the number of its key."""
        start = interface.rstrip("0123456789")
        return interface == self.interface or (self.interface[:6] == start[:6] and self.interface.startswith(start))

    def port_of(self, host: WireguardHost) -> int:
        """The UDP port on a host."""
        return host.port or self.port


class ProxmoxEndpoint(Model):
    """One Proxmox VE API: a single host, or a cluster of them."""

    name: Name
    """Name of the endpoint in these parameters."""
    url: fields.ProxmoxUrl
    """https://host:port of the API."""
    token_id: fields.TokenId
    """API token, user@realm!name."""
    token_secret: SecretRef
    """Where the token's secret is stored."""
    retired_token_id: fields.TokenId | None = None
    """The token that the present one has replaced, user@realm!name; 26_certificates revokes it."""
    ca_file: fields.FilePath | None = None
    """CA that signed the API's certificate; null for the system's CAs."""
    fingerprint: fields.Fingerprint | None = None
    """SHA-256 fingerprint of the API's certificate, instead of a CA."""
    hosts: Annotated[tuple[HostName, ...], Field(min_length=1)]
    """The Proxmox VE hosts (its nodes) behind this API."""
    image_storage: fields.Storage = "local"
    """Storage that takes ISO images."""
    disk_storage: fields.Storage = "local-lvm"
    """Storage that takes VM disks."""

    @property
    def host(self) -> str:
        """Host part of the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port of the URL."""
        return urlsplit(self.url).port or 0

    @property
    def authority(self) -> str:
        """host:port of the URL, as `endpoints` and `trust` name it."""
        return fields.authority(self.host, self.port)


class Vm(Model):
    """Settings of every node's virtual machine."""

    cpu: fields.Cpu = "host"
    """CPU type: host, or one that has what Talos (x86-64-v2) and the workloads need (ScyllaDB: PCLMULQDQ)."""
    bios: Literal["ovmf", "seabios"] = "ovmf"
    """Firmware: ovmf (UEFI) or seabios."""
    scsi_controller: fields.ScsiController = "virtio-scsi-pci"
    """SCSI controller; Talos' guide forbids virtio-scsi-single, with which some hosts show Talos no disks."""
    install_disk: fields.DevicePath | None = None
    """Path of the disk for Talos, such as /dev/vda; null selects the VM's first disk by its bus path."""
    agent: Flag = True
    """Whether Proxmox VE uses the guest agent."""
    on_boot: Flag = True
    """Whether the node starts with its host."""
    tags: Annotated[tuple[fields.VmTag, ...], fields.Distinct] = ()
    """Tags of the VMs beside fluobook's own; others that a VM has are left alone."""
    pool: fields.VmPool | None = None
    """Resource pool that the VMs are created in; it must exist."""


class Node(Model):
    """One Talos node and its virtual machine."""

    name: fields.NodeName
    """Host name, VM name and Kubernetes node name in one."""
    role: Literal["controlplane", "worker"]
    """controlplane: etcd and the Kubernetes API; worker: what the platform runs."""
    host: HostName
    """The Proxmox VE host of the VM."""
    address: Ipv4
    """The node's address in network.cidr."""
    cores: fields.Cores
    """Virtual CPU cores."""
    memory_gib: fields.MemoryGib
    """Memory in GiB."""
    boot_disk_gib: fields.DiskGib
    """Size of the system disk in GiB."""
    data_disk_gib: fields.DiskGib | None = None
    """Size of the Longhorn disk in GiB; workers have one, control planes have none."""
    labels: dict[fields.LabelKey, fields.LabelValue] = Field(default_factory=dict)
    """Labels of the Kubernetes node, such as example.org/rack: r4."""
    taints: dict[fields.LabelKey, fields.Taint] = Field(default_factory=dict)
    """Taints of a worker, "VALUE:EFFECT" or "EFFECT" by key; it gets them when it joins, never later."""
    start_order: Annotated[int, Field(strict=True, ge=0, le=9999)] | None = None
    """Place in the order in which its host starts VMs, 0 first."""
    vmid: Annotated[fields.Vmid, DERIVED]
    """Number of the VM; derived from cluster and node name unless pinned."""
    mac: Annotated[fields.Mac, DERIVED]
    """MAC address of the VM; derived from cluster and node name unless pinned."""
    uuid: SkipJsonSchema[str]
    """SMBIOS uuid that identifies a VM of the platform; always derived from cluster and node name."""

    def __hash__(self) -> int:
        """By the uuid: labels and taints are mappings, which have no hash."""
        return hash(self.uuid)

    @property
    def repels(self) -> bool:
        """Whether a taint keeps pods away that do not tolerate it, those of the platform among them."""
        return any(taint.rpartition(":")[2] != "PreferNoSchedule" for taint in self.taints.values())


class LonghornStorage(Model):
    """Longhorn."""

    replicas: Annotated[Count, Field(le=20)] = 1
    """Copies of every volume: one for each failure domain at most."""


class GitOps(Model):
    """The repository that Argo CD reads, and what differs between sites."""

    repository: fields.RepositoryUrl
    """Git repository that Argo CD reads, https:// or ssh://."""
    revision: fields.Revision = "main"
    """Branch, tag or commit."""
    path: fields.RepositoryPath = "cluster-gitops/bootstrap"
    """Folder of the root Application."""
    without: Annotated[tuple[Text, ...], fields.Distinct] = ()
    """Components that are not deployed, such as scylladb: a folder below apps or infrastructure, or one Application."""
    domain: fields.Domain
    """Domain of the services."""
    acme_email: fields.Email
    """Address that Let's Encrypt writes to."""
    mirrors: Annotated[dict[fields.SourceUrl, fields.SourceUrl], fields.OneSpelling] = Field(default_factory=dict)
    """Prefixes of repoURLs and their replacements (air-gapped sites)."""

    def mirrored(self, url: str) -> str:
        """The URL from which a source is really fetched; see `mirrored`."""
        return mirrored(url, self.mirrors)

    @property
    def site(self) -> str:
        """The operator's own folder, if the root Application is in it: what is there applies to the platform."""
        return self.path if self.path.split("/")[0] == "site" else ""


class SnapshotBucket(Model):
    """A bucket of an S3 service for snapshots of etcd."""

    name: fields.Bucket
    """Name of the bucket; the snapshots are below the cluster's name in it."""
    region: fields.Region = "us-east-1"
    """Region of the bucket; a service other than AWS takes its default, or any."""
    endpoint: fields.Endpoint | None = None
    """URL of the service; null for AWS in that region."""
    access_key_id: SecretRef = SecretRef(env="AWS_ACCESS_KEY_ID")
    """Where the access key is stored."""
    secret_access_key: SecretRef = SecretRef(env="AWS_SECRET_ACCESS_KEY")
    """Where the secret key is stored."""
    session_token: SecretRef | None = None
    """Where the session token of temporary keys is stored; null for lasting keys."""

    @property
    def url(self) -> str:
        """The URL of the service."""
        return self.endpoint or f"https://s3.{self.region}.amazonaws.com"

    @property
    def server(self) -> tuple[str, int]:
        """Host and port of the service."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class EtcdSnapshots(Model):
    """Snapshots of etcd: where they are, and how many there are."""

    folder: fields.FilePath | None = None
    """Folder of the snapshots; null for etcd-snapshots in the cluster's own folder."""
    bucket: SnapshotBucket | None = None
    """Bucket of the snapshots, in place of the folder; null for the folder."""
    max_age_hours: Annotated[Count, Field(le=8760)] = 24
    """Hours after which the health gate fails; the runbook takes another snapshot when half of them have passed."""
    keep: Annotated[Count, Field(le=10_000)] = 14
    """How many of the newest are kept whatever their age."""
    keep_days: Annotated[Count, Field(le=36_500)] = 30
    """Days for which the others are kept too."""
    restore: Text | None = None
    """Name of the snapshot that 25_restore restores, or the path of a file; null for the newest one."""

    @model_validator(mode="after")
    def _is_one_place(self) -> EtcdSnapshots:
        if self.folder and self.bucket:
            raise refuse("names two places", "give `folder` or `bucket`, and leave the other one out")
        return self


class Backups(Model):
    """Backups to a bucket; its credentials are in the Secrets longhorn-backup and fluodata-backup."""

    bucket: fields.Bucket | None = None
    """Name of an S3 bucket for nothing else; null for no backups."""
    region: fields.Region = "us-east-1"
    """Region of the bucket; a service other than AWS takes its default, or any."""
    endpoint: fields.Endpoint | None = None
    """URL of a service other than AWS; Longhorn takes it from its Secret, as AWS_ENDPOINTS."""
    schedule: fields.Schedule = "30 1 * * *"
    """When backups are made: minute, hour, day of the month, month, day of the week, in UTC."""
    keep: Annotated[Count, Field(le=100)] = 14
    """How many backups of each volume are kept, and for how many days PostgreSQL can be restored to any time."""


class Rotate(Model):
    """What 26_certificates rotates. A time is a date, or a time in UTC; no secret is ever written here."""

    talos_ca: fields.Moment | None = None
    """The authority of the Talos API is replaced if it was made before this."""
    kubernetes_ca: fields.Moment | None = None
    """The authority of Kubernetes is replaced if it was made before this."""
    argocd_password: fields.Moment | None = None
    """The password of admin in Argo CD is generated again if it was set before this."""
    age_key: fields.AgeRecipient | None = None
    """The public half of the age key that replaces your others; its private half is in the age key file too."""


class Upgrade(Model):
    """How 21_upgrade_talos works."""

    rollback: bool = False
    """Whether nodes with a newer Talos than `versions.talos` go back to the image before; else they are refused."""


class Deadlines(Model):
    """The deadline of every named wait, in seconds."""

    image_download: Seconds = 1800
    """A host downloads the Talos image, in seconds."""
    host_network: Seconds = 300
    """The hosts of a mesh take their files and reload their network, in seconds."""
    vm_create: Seconds = 300
    """A VM and its disks are created, in seconds."""
    vm_start: Seconds = 120
    """A VM starts, in seconds."""
    vm_lock: Seconds = 300
    """A lock that somebody else holds on a VM is released, in seconds."""
    maintenance: Seconds = 600
    """A started VM responds in maintenance mode, in seconds."""
    install: Seconds = 900
    """Talos installs, reboots and runs, in seconds."""
    etcd: Seconds = 600
    """etcd has all its members, in seconds."""
    nodes_ready: Seconds = 900
    """Every node is Ready with Cilium, in seconds."""
    csr: Seconds = 600
    """Every kubelet has its serving certificate, in seconds."""
    argocd: Seconds = 900
    """Argo CD runs, in seconds."""
    applications: Seconds = 3600
    """Every Application is Synced and Healthy, in seconds."""
    gate: Seconds = 1800
    """The gates between two nodes pass: volumes are rebuilt, databases are whole, in seconds."""
    drain: Seconds = 600
    """All pods of a node are evicted, in seconds."""
    canary: Seconds = 300
    """A volume is attached to an upgraded node, written and read back, in seconds."""
    upgrade: Seconds = 1800
    """A node fetches and installs an image, restarts and is ready, in seconds."""


class Platform(Model):
    """The desired state of one phase."""

    cluster: Cluster
    """The Kubernetes cluster."""
    versions: Versions
    """Versions of Talos and Kubernetes; null takes the pin of params/versions.yaml."""
    network: Network
    """The network of the nodes."""
    proxmox: Annotated[tuple[ProxmoxEndpoint, ...], Field(min_length=1)]
    """The Proxmox VE endpoints."""
    vm: Vm = Vm()
    """Settings of every virtual machine."""
    nodes: Annotated[tuple[Node, ...], Field(min_length=1)]
    """The nodes, control planes and workers."""
    storage: LonghornStorage = LonghornStorage()
    """Longhorn."""
    gitops: GitOps
    """The repository and the settings for Argo CD."""
    alerts: Alerts = Alerts()
    """Who receives alerts."""
    secrets: SecretReferences
    """Where the keys of the platform are stored."""
    wireguard: Wireguard | None = None
    """The mesh between hosts, if they need one."""
    etcd_snapshots: EtcdSnapshots = EtcdSnapshots()
    """Snapshots of etcd."""
    backups: Backups = Backups()
    """Backups of the volumes and of PostgreSQL."""
    rotate: Rotate = Rotate()
    """What is rotated."""
    upgrade: Upgrade = Upgrade()
    """How Talos is upgraded."""
    deadlines: Deadlines = Deadlines()
    """The deadline of each named wait."""
    endpoints: Annotated[dict[fields.HostPort, fields.HostPort], fields.OneSpelling] = Field(default_factory=dict)
    """host:port of a server, and the host:port to connect to instead."""
    trust: Annotated[dict[fields.HostPort, fields.FilePath], fields.OneSpelling] = Field(default_factory=dict)
    """host:port of a server, and the CA file that verifies its certificate."""

    _written: Mapping[str, Any] = PrivateAttr()
    _supported: Supported = PrivateAttr()

    @property
    def written(self) -> dict[str, Any]:
        """The platform as it was written, with `--set`: a notebook receives it, and overlays are merged into it."""
        return copy.deepcopy(dict(self._written))

    @property
    def supported(self) -> Supported:
        """The pins and the matrix that the platform was validated with."""
        return self._supported

    def remember(self, written: Mapping[str, Any], supported: Supported) -> None:
        """Store what the platform was made from; only `fluobook.params.load` calls it, once."""
        self._written, self._supported = written, supported

    @property
    def control_planes(self) -> tuple[Node, ...]:
        """The control planes, in the order of the file; the first one is bootstrapped."""
        return tuple(node for node in self.nodes if node.role == "controlplane")

    @property
    def workers(self) -> tuple[Node, ...]:
        """The workers, in the order of the file."""
        return tuple(node for node in self.nodes if node.role == "worker")

    @property
    def api_address(self) -> str:
        """The address of the Kubernetes API: as set, or the VIP, or the first control plane."""
        return self.cluster.api_address or self.network.vip or self.control_planes[0].address

    @property
    def hosts(self) -> tuple[str, ...]:
        """The Proxmox VE hosts of the nodes."""
        return tuple(dict.fromkeys(node.host for node in self.nodes))

    @property
    def failure_domains(self) -> tuple[str, ...]:
        """The hosts of the workers that take any pod: one can fail without another copy of a volume."""
        return tuple(dict.fromkeys(node.host for node in self.workers if not node.repels))

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            KeyError: there is none.
        """
        return {node.name: node for node in self.nodes}[name]

    def endpoint_of(self, node: Node) -> ProxmoxEndpoint:
        """The Proxmox VE endpoint of a node's host."""
        return self.endpoint_at(node.host)

    def endpoint_at(self, host: str) -> ProxmoxEndpoint:
        """The Proxmox VE endpoint through which a host of the platform is reached."""
        return next(endpoint for endpoint in self.proxmox if host in endpoint.hosts)

    def route(self, host: str, port: int) -> tuple[str, int]:
        """The host and port to connect to for `host`:`port`: from `endpoints`, or unchanged."""
        mapped = self.endpoints.get(fields.authority(host, port))
        return fields.split_authority(mapped) if mapped else (host, port)

    def trusted_ca(self, host: str, port: int) -> str | None:
        """The CA file for `host`:`port`: from `trust`, or a Proxmox VE endpoint's own; None for the system's CAs."""
        own = (endpoint.ca_file for endpoint in self.proxmox if (endpoint.host, endpoint.port) == (host.lower(), port))
        return self.trust.get(fields.authority(host, port)) or next(own, None)

    def ca_file(self, url: str) -> Path | None:
        """The CA file for the server of a URL; None for the system's CAs."""
        parts = urlsplit(url)
        file = self.trusted_ca(parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 22))
        return Path(file).expanduser() if file else None

    def digest_data(self) -> dict[str, Any]:
        """The part that enters a plan's digest: plain JSON without secrets, endpoints, trust and deadlines."""
        return self.model_dump(mode="json", exclude=_NOT_IN_A_DIGEST)


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """The URL from which a source is really fetched: the longest prefix that has a mirror is replaced.

    >>> mirrored("https://charts.example.org/a", {"https://charts.example.org": "http://127.0.0.1:80/x"})
    'http://127.0.0.1:80/x/a'
    """
    prefixes = [prefix for prefix in mirrors if url == prefix or url.startswith(prefix.rstrip("/") + "/")]
    if not prefixes:
        return url
    prefix = max(prefixes, key=len)
    return mirrors[prefix].rstrip("/") + url[len(prefix.rstrip("/")) :]


class Params(Model):
    """A params file: which phase it is, and the platform of that phase."""

    phase: fields.PhaseName
    """Name of the phase, such as phase1 or berlin; runs and the lab's folder carry it."""
    platform: Platform
    """The desired state."""
