"""The nodes of the lab, asked with plain generated stubs: what a client of somebody else's would see."""

from __future__ import annotations

import ssl

import pytest
from google.protobuf.empty_pb2 import Empty
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.clients.loop import background
from fluobook.machine.pki import load_identity
from fluobook.wire.generated import machine_pb2 as api
from fluobook.wire.generated import storage_pb2 as storage
from fluobook.wire.generated.cosi_grpc import StateStub
from fluobook.wire.generated.cosi_pb2 import EventType, ListRequest, WatchRequest
from fluobook.wire.generated.machine_grpc import ImageServiceStub, LifecycleServiceStub, MachineServiceStub
from fluobook.wire.generated.storage_grpc import StorageServiceStub
from fluobook.wire.generated.time_grpc import TimeServiceStub

Mode = api.ApplyConfigurationRequest.Mode


def insecure():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def trusted(world):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.pki.talos.crt)
    load_identity(context, world.pki.client())
    context.set_alpn_protocols(["h2"])
    return context


def ask(world, stub, method, request=None, context=None):
    """One call on a connection of its own; streams come back as lists."""

    async def call():
        address = world.address()
        config = Configuration(ssl_target_name_override=address.name)
        async with Channel(address.host, address.port, ssl=context or insecure(), config=config) as channel:
            return await getattr(stub(channel), method)(request or Empty(), timeout=10)

    return background().run(call())


def refused(world, *args, **more):
    with pytest.raises(GRPCError) as caught:
        ask(world, *args, **more)
    return caught.value.status, caught.value.message


@pytest.fixture
def empty(world):
    world.power_on("cp-1")
    world.wait_mode("maintenance")
    return world


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
def test_maintenance_mode_lets_readers_in_and_nobody_else(empty, stub, method, request_):
    assert refused(empty, stub, method, request_) == (Status.PERMISSION_DENIED, "not authorized")


def test_maintenance_mode_answers_readers(empty):
    assert ask(empty, MachineServiceStub, "Version").messages[0].version.tag == "v1.13.9"
    assert ask(empty, MachineServiceStub, "Hostname").messages[0].hostname == "cp-1"
    assert not ask(empty, MachineServiceStub, "ServiceList").messages[0].services
    assert ask(empty, TimeServiceStub, "Time").messages[0].server
    disks = ask(empty, StorageServiceStub, "Disks").messages[0].disks
    assert [disk.device_name for disk in disks] == ["/dev/sda", "/dev/sdb"]


def test_etcd_is_not_to_be_had_without_a_machine_type(empty):
    status, message = refused(empty, MachineServiceStub, "EtcdMemberList", api.EtcdMemberListRequest())
    assert (status, message) == (Status.UNIMPLEMENTED, "machine type is not set, cannot use member list API")


def test_what_the_lab_does_not_play_is_unimplemented_after_the_roles(empty):
    status, _ = refused(empty, MachineServiceStub, "Dmesg", api.DmesgRequest())
    assert status is Status.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("asked", "got"), [(Mode.REBOOT, Mode.NO_REBOOT), (Mode.AUTO, Mode.NO_REBOOT), (Mode.STAGED, Mode.STAGED)]
)
def test_a_first_configuration_never_asks_for_a_reboot(empty, asked, got):
    request = api.ApplyConfigurationRequest(data=empty.controlplane().encode(), mode=asked, dry_run=True)
    assert ask(empty, MachineServiceStub, "ApplyConfiguration", request).messages[0].mode == got


def test_disks_may_be_wiped_before_there_is_a_configuration(empty):
    def wipe(name):
        return storage.BlockDeviceWipeRequest(devices=[storage.BlockDeviceWipeDescriptor(device=name)])

    assert len(ask(empty, StorageServiceStub, "BlockDeviceWipe", wipe("sdb")).messages) == 1
    status, message = refused(empty, StorageServiceStub, "BlockDeviceWipe", wipe("sdz"))
    assert (status, message) == (Status.NOT_FOUND, 'blockdevice "sdz" not found')


def test_a_list_is_ordered_and_can_be_narrowed(empty):
    request = ListRequest(namespace="runtime", type="Disks.block.talos.dev")
    assert [reply.resource.metadata.id for reply in ask(empty, StateStub, "List", request)] == ["sda", "sdb", "sr0"]
    request.options.id_query.regexp = "^sd"
    assert [reply.resource.metadata.id for reply in ask(empty, StateStub, "List", request)] == ["sda", "sdb"]


def test_a_watch_begins_with_an_empty_answer_as_cosi_clients_expect(empty):
    async def first_two():
        address = empty.address()
        async with Channel(address.host, address.port, ssl=insecure()) as channel:
            request = WatchRequest(namespace="runtime", type="Disks.block.talos.dev", id="sda", api_version=1)
            async with StateStub(channel).Watch.open(timeout=10) as stream:
                await stream.send_message(request, end=True)
                replies = [await stream.recv_message() for _ in range(2)]
                await stream.cancel()
                return replies

    empty_one, created = background().run(first_two())
    assert not empty_one.event
    assert (created.event[0].event_type, created.event[0].resource.metadata.id) == (EventType.CREATED, "sda")


def test_calls_are_remembered_and_changes_told_apart(empty):
    data = empty.controlplane().encode()
    for dry_run in (True, False):
        request = api.ApplyConfigurationRequest(data=data, mode=Mode.AUTO, dry_run=dry_run)
        ask(empty, MachineServiceStub, "ApplyConfiguration", request)
    refused_or_gone = [call for call in empty.machines.calls if call.path.endswith("ApplyConfiguration")]
    assert [call.mutating for call in refused_or_gone] == [False, True]
    assert not [call for call in empty.machines.calls if call.mutating and "Get" in call.path]


def test_a_configured_node_serves_official_clients_over_mutual_tls(empty):
    request = api.ApplyConfigurationRequest(data=empty.controlplane().encode(), mode=Mode.AUTO)
    ask(empty, MachineServiceStub, "ApplyConfiguration", request)
    empty.wait(lambda: empty.do(lambda: "cri" in empty.machines.node("cp-1").services))
    version = ask(empty, MachineServiceStub, "Version", context=trusted(empty)).messages[0]
    assert version.features.rbac
    services = ask(empty, MachineServiceStub, "ServiceList", context=trusted(empty)).messages[0].services
    assert [service.id for service in services] == sorted(service.id for service in services)


def test_a_node_does_not_answer_for_another(empty):
    async def version(node):
        address = empty.address()
        async with Channel(address.host, address.port, ssl=insecure()) as channel:
            return await MachineServiceStub(channel).Version(Empty(), timeout=10, metadata={"node": node})

    assert background().run(version("10.10.0.10")).messages[0].version.tag == "v1.13.9"
    with pytest.raises(GRPCError, match=r"10\.10\.0\.11"):
        background().run(version("10.10.0.11"))
