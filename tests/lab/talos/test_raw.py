"""The lab's Talos nodes against plain generated gRPC stubs, as another client uses them."""

from __future__ import annotations

import ssl

import pytest
import yaml
from fluobook_lab.talos.resources import DEFINITIONS
from google.protobuf.empty_pb2 import Empty
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.clients.rpc import background
from fluobook.machine.pki import load_identity
from fluobook.wire.generated import machine_pb2 as api
from fluobook.wire.generated.cosi_grpc import StateStub
from fluobook.wire.generated.cosi_pb2 import EventType, GetRequest, ListRequest, WatchRequest
from fluobook.wire.generated.machine_grpc import ImageServiceStub, LifecycleServiceStub, MachineServiceStub

Mode = api.ApplyConfigurationRequest.Mode
EARLY = ["auditd", "containerd", "dashboard", "machined", "syslogd", "udevd"]
"""The services of a node without a configuration."""


def insecure():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def trusted(lab):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=lab.pki.talos.crt)
    load_identity(context, lab.pki.client())
    context.set_alpn_protocols(["h2"])
    return context


def call(lab, stub, method, request=None, context=None):
    """One call on its own connection; a stream is returned as a list."""

    async def send():
        address = lab.address()
        config = Configuration(ssl_target_name_override=address.name)
        async with Channel(address.host, address.port, ssl=context or insecure(), config=config) as channel:
            return await getattr(stub(channel), method)(request or Empty(), timeout=10)

    return background().run(send())


def refused(lab, *args, **more):
    with pytest.raises(GRPCError) as caught:
        call(lab, *args, **more)
    return caught.value.status, caught.value.message


@pytest.fixture
def empty(lab):
    lab.power_on("cp-1")
    lab.wait_mode("maintenance")
    return lab


@pytest.mark.parametrize(
    ("stub", "method", "request_"),
    [
        (MachineServiceStub, "Bootstrap", api.BootstrapRequest()),
        (MachineServiceStub, "Kubeconfig", Empty()),
        (MachineServiceStub, "Reboot", api.RebootRequest()),
        (MachineServiceStub, "Shutdown", api.ShutdownRequest()),
        (MachineServiceStub, "Reset", api.ResetRequest()),
        (MachineServiceStub, "Upgrade", api.UpgradeRequest()),
        (MachineServiceStub, "Rollback", api.RollbackRequest()),
        (MachineServiceStub, "Read", api.ReadRequest(path="/etc/os-release")),
        (MachineServiceStub, "GenerateClientConfiguration", api.GenerateClientConfigurationRequest()),
        (MachineServiceStub, "EtcdSnapshot", api.EtcdSnapshotRequest()),
        (LifecycleServiceStub, "Install", api.LifecycleServiceInstallRequest()),
        (LifecycleServiceStub, "Upgrade", api.LifecycleServiceUpgradeRequest()),
        (ImageServiceStub, "Pull", api.ImageServicePullRequest()),
    ],
)
def test_maintenance_mode_grants_only_the_reader_role(empty, stub, method, request_):
    assert refused(empty, stub, method, request_) == (Status.PERMISSION_DENIED, "not authorized")


def test_maintenance_mode_answers_read_calls(empty):
    assert call(empty, MachineServiceStub, "Version").messages[0].version.tag == "v1.13.9"
    services = call(empty, MachineServiceStub, "ServiceList").messages[0].services
    assert [service.id for service in services] == EARLY


def test_resource_definitions_lead_from_an_alias_to_a_type(empty):
    replies = call(empty, StateStub, "List", ListRequest(namespace="meta", type=DEFINITIONS))
    specs = [yaml.safe_load(reply.resource.spec.yaml_spec) for reply in replies]
    by_alias = {alias: spec for spec in specs for alias in spec["allAliases"]}
    assert by_alias["members"]["type"] == by_alias["member"]["type"] == "Members.cluster.talos.dev"
    assert by_alias["addressstatus"]["defaultNamespace"] == "network"
    assert by_alias["machineconfig"]["sensitivity"] == by_alias["mc"]["sensitivity"] == "sensitive"
    assert by_alias["disks.block"]["displayType"] == "Disk"
    replies = call(empty, StateStub, "Get", GetRequest(namespace="meta", type=DEFINITIONS, id="disks.block.talos.dev"))
    assert yaml.safe_load(replies.resource.spec.yaml_spec)["type"] == "Disks.block.talos.dev"


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        ("Pods.kubernetes.talos.dev", 'resource type "Pods.kubernetes.talos.dev" is not supported'),
        ("ConfigMaps.core", 'resource type "ConfigMaps.core" is not supported'),
        ("KubeletConfigs.kubernetes.talos.dev", "not authorized"),
        ("OSRootSecrets.secrets.talos.dev", "not authorized"),
    ],
)
def test_types_that_do_not_exist_and_secrets_are_refused(empty, type_, message):
    request = ListRequest(namespace="runtime", type=type_)
    assert refused(empty, StateStub, "List", request) == (Status.PERMISSION_DENIED, message)


def test_etcd_calls_need_a_machine_type(empty):
    status, message = refused(empty, MachineServiceStub, "EtcdMemberList", api.EtcdMemberListRequest())
    assert (status, message) == (Status.UNIMPLEMENTED, "machine type is not set, cannot use member list API")


def test_an_rpc_without_a_method_is_unimplemented(empty):
    status, _ = refused(empty, MachineServiceStub, "Dmesg", api.DmesgRequest())
    assert status is Status.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("requested", "effective"), [(Mode.REBOOT, Mode.NO_REBOOT), (Mode.AUTO, Mode.NO_REBOOT), (Mode.STAGED, Mode.STAGED)]
)
def test_a_first_configuration_needs_no_reboot(empty, requested, effective):
    request = api.ApplyConfigurationRequest(data=empty.controlplane().encode(), mode=requested, dry_run=True)
    assert call(empty, MachineServiceStub, "ApplyConfiguration", request).messages[0].mode == effective


def test_a_list_is_sorted_and_can_be_filtered(empty):
    request = ListRequest(namespace="runtime", type="Disks.block.talos.dev")
    assert [reply.resource.metadata.id for reply in call(empty, StateStub, "List", request)] == ["sda", "sdb", "sr0"]
    request.options.id_query.regexp = "^sd"
    assert [reply.resource.metadata.id for reply in call(empty, StateStub, "List", request)] == ["sda", "sdb"]


def test_a_watch_begins_with_an_empty_response(empty):
    async def first_two():
        address = empty.address()
        async with Channel(address.host, address.port, ssl=insecure()) as channel:
            request = WatchRequest(namespace="runtime", type="Disks.block.talos.dev", id="sda", api_version=1)
            async with StateStub(channel).Watch.open(timeout=10) as stream:
                await stream.send_message(request, end=True)
                replies = [await stream.recv_message() for _ in range(2)]
                await stream.cancel()
                return replies

    first, created = background().run(first_two())
    assert not first.event
    assert (created.event[0].event_type, created.event[0].resource.metadata.id) == (EventType.CREATED, "sda")


def test_calls_are_logged_and_marked_as_mutating_or_not(empty):
    data = empty.controlplane().encode()
    for dry_run in (True, False):
        request = api.ApplyConfigurationRequest(data=data, mode=Mode.AUTO, dry_run=dry_run)
        call(empty, MachineServiceStub, "ApplyConfiguration", request)
    applied = [entry for entry in empty.machines.calls if entry.path.endswith("ApplyConfiguration")]
    assert [entry.mutating for entry in applied] == [False, True]
    assert not [entry for entry in empty.machines.calls if entry.mutating and "Get" in entry.path]


def test_a_configured_node_serves_official_clients_over_mutual_tls(empty):
    request = api.ApplyConfigurationRequest(data=empty.controlplane().encode(), mode=Mode.AUTO)
    call(empty, MachineServiceStub, "ApplyConfiguration", request)
    empty.wait(lambda: empty.do(lambda: "cri" in empty.machines.node("cp-1").services))
    version = call(empty, MachineServiceStub, "Version", context=trusted(empty)).messages[0]
    assert version.features.rbac
    services = call(empty, MachineServiceStub, "ServiceList", context=trusted(empty)).messages[0].services
    assert [service.id for service in services] == sorted(service.id for service in services)


def test_a_node_does_not_forward_calls(empty):
    async def version(node):
        address = empty.address()
        async with Channel(address.host, address.port, ssl=insecure()) as channel:
            return await MachineServiceStub(channel).Version(Empty(), timeout=10, metadata={"node": node})

    assert background().run(version("10.10.0.10")).messages[0].version.tag == "v1.13.9"
    with pytest.raises(GRPCError, match=r"10\.10\.0\.11"):
        background().run(version("10.10.0.11"))
