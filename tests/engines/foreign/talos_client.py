"""Asks a Talos node with bindings that somebody else generated for Talos 1.6; tells what it heard as JSON."""

import asyncio
import json
import ssl
import sys

import betterproto
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.exceptions import GRPCError
from talos_linux_api.v1_6_0.common import ContainerDriver
from talos_linux_api.v1_6_0.machine import BootstrapRequest, EtcdMemberListRequest, LogsRequest, MachineServiceStub


async def main() -> None:
    port, name, ca, certificate = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2"])
    channel = Channel("127.0.0.1", int(port), ssl=context, config=Configuration(ssl_target_name_override=name))
    node = MachineServiceStub(channel)
    empty = betterproto.lib.google.protobuf.Empty()
    version = (await node.version(empty)).messages[0]
    services = (await node.service_list(empty)).messages[0].services
    members = (await node.etcd_member_list(EtcdMemberListRequest())).messages[0].members
    log = b"".join([part.bytes async for part in node.logs(LogsRequest("system", "kubelet", ContainerDriver(0)))])
    try:
        await node.bootstrap(BootstrapRequest())
        bootstrap = "OK"
    except GRPCError as error:
        bootstrap = error.status.name
    channel.close()
    facts = {
        "version": version.version.tag,
        "platform": version.platform.name,
        "hostname": (members[0].hostname if members else ""),
        "services": {service.id: service.state for service in services},
        "bootstrap": bootstrap,
        "log": log.decode(),
    }
    print(json.dumps(facts))  # noqa: T201 (how it tells)


asyncio.run(main())
