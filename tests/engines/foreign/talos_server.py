"""Plays a Talos node with bindings that somebody else generated for Talos 1.6; tells its port."""

import asyncio
import ssl
import sys

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from talos_linux_api.v1_6_0 import machine


class Node(machine.MachineServiceBase):
    """The answers that our client is asked about."""

    async def version(self, _request):
        info = machine.Version(
            version=machine.VersionInfo(tag="v1.6.0"), platform=machine.PlatformInfo(name="nocloud", mode="cloud")
        )
        return machine.VersionResponse(messages=[info])

    async def service_list(self, _request):
        health = machine.ServiceHealth(healthy=True, last_message="fine")
        services = [machine.ServiceInfo(id="etcd", state="Running", health=health)]
        return machine.ServiceListResponse(messages=[machine.ServiceList(services=services)])

    async def etcd_member_list(self, _request):
        member = machine.EtcdMember(id=255, hostname="cp-1", peer_urls=["https://10.10.0.10:2380"])
        return machine.EtcdMemberListResponse(messages=[machine.EtcdMembers(members=[member])])

    async def bootstrap(self, _request):
        raise GRPCError(Status.ALREADY_EXISTS, "etcd data directory is not empty")


async def main() -> None:
    identity, ca = sys.argv[1:]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(identity)
    context.set_alpn_protocols(["h2"])
    server = Server([Node()])
    await server.start("127.0.0.1", 0, ssl=context)
    print(server._server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 (how it tells)
    await server.wait_closed()


asyncio.run(main())
