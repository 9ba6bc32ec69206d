"""A port that leads to a Service's pods."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.subresources import Backend

from fluobook.errors import NotFound, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.lab

LABELS = {"k8s-app": "hubble-relay"}
WHERE = ("hubble-relay", "kube-system", 80)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
def rig(kubernetes: Callable[..., Any]) -> Iterator[Any]:
    rig = kubernetes(controllers=False)
    server = rig.background.run(asyncio.start_server(echo, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()[:2]
    rig.background.call(rig.lab.api.publish, Backend("kube-system", LABELS, 4245, address))
    spec = {"selector": LABELS, "ports": [{"port": 80, "targetPort": "grpc"}]}
    metadata = {"name": "hubble-relay", "namespace": "kube-system", "labels": LABELS}
    rig.store("create", {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    container = {"name": "relay", "image": "i:1", "ports": [{"name": "grpc", "containerPort": 4245}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    made = rig.store("create", pod)
    rig.store("set_status", made, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
    yield rig
    rig.background.call(server.close)


def test_bytes_go_there_and_back(rig: Any) -> None:
    payload = bytes(range(256)) * 2000
    with rig.kube.forward(*WHERE) as forward, socket.create_connection(forward.address, timeout=10) as connection:
        connection.sendall(payload)
        received = b""
        while len(received) < len(payload):
            chunk = connection.recv(1 << 16)
            assert chunk
            received += chunk
    assert received == payload


def test_connections_do_not_get_mixed_up(rig: Any) -> None:
    with rig.kube.forward(*WHERE) as forward:
        connections = [socket.create_connection(forward.address, timeout=10) for _ in range(5)]
        for number, connection in enumerate(connections):
            connection.sendall(f"{number}".encode())
        assert [connection.recv(10) for connection in connections] == [b"0", b"1", b"2", b"3", b"4"]
        for connection in connections:
            connection.close()


def test_without_a_ready_pod_it_says_so(rig: Any) -> None:
    rig.kube.delete("v1", "Pod", "hubble-relay", "kube-system")
    with rig.kube.forward(*WHERE) as forward:
        with pytest.raises(Unreachable, match=r"no pod behind hubble-relay\.kube-system:80 is ready"):
            forward.connect()
        with socket.create_connection(forward.address, timeout=10) as connection:
            assert connection.recv(1) == b""


@pytest.mark.parametrize("where", [("none", "kube-system", 80), ("hubble-relay", "kube-system", 81)])
def test_no_such_service_or_port(rig: Any, where: tuple[str, str, int]) -> None:
    with pytest.raises(NotFound):
        rig.kube.forward(*where)


def test_no_key_stays_behind(rig: Any) -> None:
    with rig.kube.forward(*WHERE) as forward:
        folder = Path(forward._identity.name)
        assert (folder / "identity.pem").stat().st_mode & 0o777 == 0o600
    assert not folder.exists()
