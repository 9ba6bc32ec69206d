"""Which types of resource Talos 1.13 has, which of them only administrators may read, and its namespaces."""

from __future__ import annotations

NAMESPACES = frozenset(
    {
        "cluster",
        "cluster-raw",
        "config",
        "controlplane",
        "cri",
        "etcd",
        "files",
        "hardware",
        "k8s",
        "kubespan",
        "meta",
        "network",
        "network-config",
        "perf",
        "runtime",
        "secrets",
        "security",
    }
)

_TYPES = """
block.talos.dev:
    BlockDevices BlockSymlinks DiscoveredVolumes DiscoveryRefreshRequests DiscoveryRefreshStatuses Disks
    MountRequests MountStatuses SwapStatuses SystemDisks UserDiskConfigStatuses VolumeConfigs VolumeLifecycles
    VolumeMountRequests VolumeMountStatuses VolumeStatuses ZswapStatuses
cluster.talos.dev:
    Affiliates DiscoveryConfigs Identities Infos KubernetesAccessConfigs Members
config.talos.dev:
    MachineConfigs MachineTypes
cri.talos.dev:
    ImageCacheConfigs RegistryConfigs SeccompProfiles
etcd.talos.dev:
    EtcdConfigs EtcdMembers EtcdSpecs PKIStatuses
files.talos.dev:
    EtcFileSpecs EtcFileStatuses
hardware.talos.dev:
    MemoryModules PCIDevices PCRStatuses Processors SystemInformations
k8s.talos.dev:
    NodeAnnotationSpecs NodeCordonedSpecs NodeLabelSpecs NodeTaintSpecs
kubernetes.talos.dev:
    APIServerConfigs AdmissionControlConfigs AuditPolicyConfigs AuthorizationConfigs BootstrapManifestsConfigs
    ConfigStatuses ControllerManagerConfigs Endpoints ExtraManifestsConfigs KubePrismConfigs KubePrismEndpoints
    KubePrismStatuses KubeletConfigs KubeletKubeconfigs KubeletLifecycles KubeletSpecs ManifestStatuses
    Manifests NodeIPConfigs NodeIPs NodeStatuses Nodenames SchedulerConfigs SecretStatuses
    StaticPodServerStatuses StaticPodStatuses StaticPods
kubespan.talos.dev:
    KubeSpanConfigs KubeSpanEndpoints KubeSpanIdentities KubeSpanPeerSpecs KubeSpanPeerStatuses
net.talos.dev:
    AddressSpecs AddressStatuses DNSResolveCaches DNSUpstreams DeviceConfigSpecs EthernetSpecs EthernetStatuses
    HardwareAddresses HostDNSConfigs HostnameSpecs HostnameStatuses LinkAliasSpecs LinkRefreshes LinkSpecs
    LinkStatuses NetworkStatuses NfTablesChains NodeAddressFilters NodeAddressSortAlgorithms NodeAddresses
    OperatorSpecs PlatformConfigs ProbeSpecs ProbeStatuses ResolverSpecs ResolverStatuses RouteSpecs
    RouteStatuses RoutingRuleSpecs RoutingRuleStatuses TimeServerSpecs TimeServerStatuses
perf.talos.dev:
    CPUStats MemoryStats
runtime.talos.dev:
    APIServiceConfigs DevicesStatuses Diagnostics Environments EventSinkConfigs ExtensionServiceConfigStatuses
    ExtensionServiceConfigs ExtensionStatuses KernelCmdlines KernelModuleSpecs KernelParamDefaultSpecs
    KernelParamSpecs KernelParamStatuses KmsgLogConfigs LoadedKernelModules MachineResetSignals MachineStatuses
    MaintenanceServiceConfigs MaintenanceServiceRequests MetaKeys MetaLoads MountStatuses PCIDriverRebindConfigs
    PCIDriverRebindStatuses ServicePIDs UniqueMachineTokens Versions WatchdogTimerConfigs WatchdogTimerStatuses
secrets.talos.dev:
    ApiCertificates CertSANs EncryptionSalts EtcdRootSecrets EtcdSecrets KubeletSecrets KubernetesDynamicCerts
    KubernetesRootSecrets KubernetesSecrets MaintenanceRootSecrets OSRootSecrets TrustdCertificates
security.talos.dev:
    ImageVerificationRules TUFTrustedRoots
siderolink.talos.dev:
    SiderolinkConfigs SiderolinkStatuses SiderolinkTunnels
talos.dev:
    BootedEntries OOMActions PlatformMetadatas SBOMItems SecurityStates
v1alpha1.talos.dev:
    AcquireConfigSpecs AcquireConfigStatuses AdjtimeStatuses Services TimeStatuses
"""

_SENSITIVE = """
block.talos.dev:
    VolumeConfigs
cluster.talos.dev:
    DiscoveryConfigs
config.talos.dev:
    MachineConfigs
cri.talos.dev:
    RegistryConfigs
files.talos.dev:
    EtcFileSpecs
k8s.talos.dev:
    NodeAnnotationSpecs NodeCordonedSpecs NodeLabelSpecs NodeTaintSpecs
kubernetes.talos.dev:
    APIServerConfigs AuditPolicyConfigs AuthorizationConfigs KubeletConfigs KubeletSpecs
kubespan.talos.dev:
    KubeSpanConfigs KubeSpanIdentities
net.talos.dev:
    DeviceConfigSpecs LinkSpecs OperatorSpecs
runtime.talos.dev:
    ExtensionServiceConfigs
secrets.talos.dev:
    ApiCertificates CertSANs EncryptionSalts EtcdRootSecrets EtcdSecrets KubeletSecrets KubernetesDynamicCerts
    KubernetesRootSecrets KubernetesSecrets MaintenanceRootSecrets OSRootSecrets TrustdCertificates
siderolink.talos.dev:
    SiderolinkConfigs SiderolinkTunnels
talos.dev:
    OOMActions
"""


def _full_names(table: str) -> frozenset[str]:
    """The types of a table of suffixes and names, in lower case, as Talos compares them."""
    found, suffix = set(), ""
    for word in table.split():
        if word.endswith(":"):
            suffix = word[:-1]
        else:
            found.add(f"{word}.{suffix}".lower())
    return frozenset(found)


TYPES = _full_names(_TYPES)
SENSITIVE = _full_names(_SENSITIVE)
