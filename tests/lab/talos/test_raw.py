"""The lab's Talos nodes against plain generated gRPC stubs, as another client uses them."""

from __future__ import annotations

import ssl

import pytest
import yaml
from fluobook_lab.talos.resources import DEFINITIONS
from google.protobuf.empty_pb2 import Empty
from grpclib.client import Channel, UnaryUnaryMethod
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


def call(lab, stub, method, request=None, context=None, *, ip="10.10.0.10"):
    """One call on its own connection; a stream is returned as a list."""

    async def send():
        address = lab.address(ip)
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
    status, _ = refused(empty, MachineServiceStub, "ImageList", api.ImageListRequest())
    assert status is Status.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/machine.MachineService/LoadAvg", "unknown method LoadAvg for service machine.MachineService"),
        ("/inspect.InspectService/Dump", "unknown service inspect.InspectService"),
    ],
)
def test_calls_that_the_lab_does_not_know_are_unimplemented_for_every_client(empty, path, message):
    async def send():
        address = empty.address()
        async with Channel(address.host, address.port, ssl=insecure()) as channel:
            stream = UnaryUnaryMethod(channel, path, Empty, Empty).open()
            async with stream:
                await stream.send_message(Empty(), end=True)
                await stream.recv_message()

    with pytest.raises(GRPCError) as caught:
        background().run(send())
    assert (caught.value.status, caught.value.message) == (Status.UNIMPLEMENTED, message)


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


def started(lab, *names):
    """The lab with these control planes, the first of which has bootstrapped etcd."""
    for name in names:
        ip = f"10.10.0.{9 + int(name[-1])}"
        lab.power_on(name, ip)
        lab.wait_mode("maintenance", ip)
        request = api.ApplyConfigurationRequest(data=lab.controlplane(name).encode(), mode=Mode.AUTO)
        call(lab, MachineServiceStub, "ApplyConfiguration", request, ip=ip)
        lab.wait(lambda name=name: lab.do(lambda: "cri" in lab.machines.node(name).services))
        if name == "cp-1":
            call(lab, MachineServiceStub, "Bootstrap", api.BootstrapRequest(), trusted(lab))
        lab.wait_stage(name, "running")
    return lab


@pytest.fixture
def running(lab):
    return started(lab, "cp-1")


@pytest.fixture
def two(lab):
    return started(lab, "cp-1", "cp-2")


def machine(lab, method, request=None, *, ip="10.10.0.10"):
    return call(lab, MachineServiceStub, method, request, trusted(lab), ip=ip)


def members(lab):
    return {
        each.hostname: each.id
        for each in machine(lab, "EtcdMemberList", api.EtcdMemberListRequest()).messages[0].members
    }


def test_the_last_member_does_not_leave_etcd(running):
    removal = api.EtcdRemoveMemberByIDRequest(member_id=members(running)["cp-1"])
    attempts = {
        "EtcdLeaveCluster": api.EtcdLeaveClusterRequest(),
        "EtcdRemoveMemberByID": removal,
        "Reset": api.ResetRequest(graceful=True),
    }
    for method, request in attempts.items():
        answer = refused(running, MachineServiceStub, method, request, trusted(running))
        text = "etcdserver: re-configuration failed due to not enough started members"
        assert answer == (Status.FAILED_PRECONDITION, text)
    assert [*members(running)] == ["cp-1"]


def test_without_a_quorum_no_member_is_removed(two):
    request = api.EtcdRemoveMemberByIDRequest(member_id=members(two)["cp-2"])
    two.do(two.machines.power_off, two.machines.node("cp-2").vm.uuid)
    answer = refused(two, MachineServiceStub, "EtcdRemoveMemberByID", request, trusted(two))
    assert answer == (Status.UNAVAILABLE, "etcdserver: request timed out")


def test_a_member_that_left_has_no_data_and_joins_again_after_a_restart(two):
    machine(two, "EtcdLeaveCluster", api.EtcdLeaveClusterRequest(), ip="10.10.0.11")
    assert [*members(two)] == ["cp-1"]
    services = machine(two, "ServiceList", ip="10.10.0.11").messages[0].services
    assert next(service.state for service in services if service.id == "etcd") == "Finished"
    machine(two, "Reboot", api.RebootRequest(), ip="10.10.0.11")
    two.wait(lambda: [*members(two)] == ["cp-1", "cp-2"])


def test_an_alarm_ends_once_every_database_is_defragmented_and_the_alarm_disarmed(start_lab):
    two = started(start_lab("talos.etcd-no-space"), "cp-1", "cp-2")

    def alarms():
        return len(machine(two, "EtcdAlarmList").messages[0].member_alarms)

    def size():
        return machine(two, "EtcdStatus").messages[0].member_status.db_size

    before = size()
    machine(two, "EtcdDefragment")
    assert size() < before
    disarmed = machine(two, "EtcdAlarmDisarm").messages[0].member_alarms
    assert (len(disarmed), alarms()) == (2, 2)
    machine(two, "EtcdDefragment", ip="10.10.0.11")
    machine(two, "EtcdAlarmDisarm")
    assert alarms() == 0


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            api.ResetRequest(mode="SYSTEM_DISK", user_disks_to_wipe=["/dev/sdb"]),
            "wipe mode SYSTEM_DISK doesn't support UserDisksToWipe parameter",
        ),
        (
            api.ResetRequest(mode="USER_DISKS", system_partitions_to_wipe=[{"label": "STATE", "wipe": True}]),
            "wipe mode USER_DISKS doesn't support SystemPartitionsToWipe parameter",
        ),
        (api.ResetRequest(user_disks_to_wipe=["/dev/sdx"]), "device /dev/sdx wasn't found"),
        (
            api.ResetRequest(system_partitions_to_wipe=[{"label": "KUBELET", "wipe": True}]),
            'failed to get volume status with label "KUBELET": not found',
        ),
    ],
)
def test_a_reset_without_sound_targets_is_refused(running, request_, message):
    answer = refused(running, MachineServiceStub, "Reset", request_, trusted(running))
    assert answer == (Status.UNKNOWN, message)
    assert running.machines.node("cp-1").stage == "running"


def test_a_reset_of_user_disks_keeps_the_system(running):
    node = running.machines.node("cp-1")
    data, disk = node.disk.data, next(disk.path for disk in node.disks if disk.drive != node.disk.drive)
    machine(running, "Reset", api.ResetRequest(mode="USER_DISKS", user_disks_to_wipe=[disk], reboot=True))
    running.wait(lambda: ("down", "cp-1") in running.cluster.events)
    running.wait_stage("cp-1", "running")
    assert node.disk.data != data


def test_files_are_listed_as_deep_as_asked(running):
    def names(**request):
        return [each.name for each in machine(running, "List", api.ListRequest(**request))]

    assert names(root="/etc") == ["/etc", "/etc/os-release"]
    assert names(root="/") == ["/", "/etc", "/proc", "/system"]
    assert "/proc/sys/kernel/random/boot_id" in names(root="/", recurse=True)
    release = b"".join(each.bytes for each in machine(running, "Read", api.ReadRequest(path="/etc/os-release")))
    assert b"VERSION_ID=v1.13.9" in release
    answer = refused(running, MachineServiceStub, "Read", api.ReadRequest(path="/etc/shadow"), trusted(running))
    assert answer == (Status.NOT_FOUND, "stat /etc/shadow: no such file or directory")


def test_the_kernels_log_has_the_states_of_the_services(running):
    log = b"".join(each.bytes for each in machine(running, "Dmesg", api.DmesgRequest())).decode()
    assert "[talos] service[kubelet](Running): Health check successful" in log


@pytest.mark.parametrize(
    ("method", "request_", "answer"),
    [
        ("ServiceRestart", api.ServiceRestartRequest(id="kubelet"), 'Service "kubelet" restarted'),
        ("ServiceStart", api.ServiceStartRequest(id="ext-iscsid"), 'Service "ext-iscsid" started'),
        ("ServiceStop", api.ServiceStopRequest(id="ext-iscsid"), 'Service "ext-iscsid" stopped'),
    ],
)
def test_services_of_extensions_and_the_kubelet_are_controlled(running, method, request_, answer):
    assert machine(running, method, request_).messages[0].resp == answer


@pytest.mark.parametrize(
    ("method", "request_", "message"),
    [
        (
            "ServiceRestart",
            api.ServiceRestartRequest(id="cri"),
            'service "cri" doesn\'t support restart operation via API',
        ),
        (
            "ServiceStop",
            api.ServiceStopRequest(id="kubelet"),
            'service "kubelet" doesn\'t support stop operation via API',
        ),
        ("ServiceStart", api.ServiceStartRequest(id="nginx"), 'service "nginx" not defined'),
    ],
)
def test_other_services_are_not(running, method, request_, message):
    assert refused(running, MachineServiceStub, method, request_, trusted(running)) == (Status.UNKNOWN, message)


def test_events_begin_with_an_empty_one_and_tell_each_new_state(running):
    async def stages():
        address = running.address()
        async with Channel(address.host, address.port, ssl=trusted(running)) as channel:
            stub, seen = MachineServiceStub(channel), []
            async with stub.Events.open(timeout=30) as stream:
                await stream.send_message(api.EventsRequest(tail_events=-1), end=True)
                first = await stream.recv_message()
                await stub.Reboot(api.RebootRequest(), timeout=10)
                while "REBOOTING" not in seen:
                    status, event = api.MachineStatusEvent(), await stream.recv_message()
                    if event.data.Unpack(status):
                        seen.append(status.MachineStage.Name(status.stage))
                await stream.cancel()
                return first, seen

    first, seen = background().run(stages())
    assert not first.HasField("data")
    assert seen[0] == "RUNNING"
    assert seen[-1] == "REBOOTING"


def test_a_node_does_not_forward_calls(empty):
    async def version(node):
        address = empty.address()
        async with Channel(address.host, address.port, ssl=insecure()) as channel:
            return await MachineServiceStub(channel).Version(Empty(), timeout=10, metadata={"node": node})

    assert background().run(version("10.10.0.10")).messages[0].version.tag == "v1.13.9"
    with pytest.raises(GRPCError, match=r"10\.10\.0\.11"):
        background().run(version("10.10.0.11"))
