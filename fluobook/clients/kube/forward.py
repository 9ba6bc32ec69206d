"""A local port that leads to a pod of a Service, like `kubectl port-forward`."""

from __future__ import annotations

import re
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fluobook.clients.https import LOST, Target
from fluobook.clients.kube.transport import Transport, refused
from fluobook.errors import NotFound, OutsideError, Unreachable
from fluobook.files import temporary_prefix
from fluobook.machine.pki import openssl_key

CHUNK = 1 << 16


class Forward:
    """Listens on 127.0.0.1 and connects each client to a ready pod, chosen for each connection; to be closed.

    Args:
        transport: the cluster.
        service: the Service's name.
        namespace: its namespace.
        port: the Service's port.

    Attributes:
        address: where it listens.

    Raises:
        NotFound: no such Service, or it has no such port.
        OutsideError: no answer, or a refusal.
    """

    def __init__(self, transport: Transport, service: str, namespace: str, port: int) -> None:
        self._transport = transport
        self._name = f"{service}.{namespace}:{port}"
        self._namespace = namespace
        obj = transport.get("v1", "Service", service, namespace)
        self._selector = obj["spec"].get("selector") or {}
        targets = [entry.get("targetPort", port) for entry in obj["spec"].get("ports") or () if entry["port"] == port]
        if not targets:
            raise NotFound(f"Service {namespace}/{service} has no port {port}", system="kubernetes", code="NoPort")
        self._target: int | str = targets[0]
        self._identity = tempfile.TemporaryDirectory(prefix=temporary_prefix("forward"))
        self._configuration = _configuration(transport.at, Path(self._identity.name))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        threading.Thread(target=self._accept, name=f"forward {self._name}", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; open connections stay open until one end closes them."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()
        self._identity.cleanup()

    def connect(self) -> Any:
        """A new connection to a pod, as a socket.

        Raises:
            Unreachable: no pod is ready.
            OutsideError: the API refuses.
        """
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415  (takes 0.2 s)
        from kubernetes.stream import ws_client  # noqa: PLC0415

        pod = self._pod()
        port = _container_port(pod, self._target)
        path = self._transport.kind("v1", "Pod").path(pod["metadata"]["name"], self._namespace, "portforward")
        url, query = f"https://{self._transport.at.endpoint}{path}", [("ports", str(port))]
        try:
            return ws_client.portforward_call(self._configuration, "GET", url, query_params=query).socket(port)
        except (ApiException, OSError, ValueError) as error:
            text = str(getattr(error, "reason", "") or error)
            status = re.search(r"Handshake status (\d+)", text)
            what, code = f"forward a port to {self._name}", int(status[1]) if status else 0
            if code:
                raise refused(what, code, {}, text) from None
            raise Unreachable(f"cannot {what}: {text}", system="kubernetes", code=LOST) from None

    def _pod(self) -> dict[str, Any]:
        labels = ",".join(f"{key}={value}" for key, value in self._selector.items())
        for pod in self._transport.list("v1", "Pod", self._namespace, labels=labels):
            conditions = (pod.get("status") or {}).get("conditions") or []
            if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                return pod
        raise Unreachable(
            f"no pod behind {self._name} is ready",
            system="kubernetes",
            code="NoEndpoints",
            facts={"namespace": self._namespace, "labels": labels},
        )

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            try:
                pod = self.connect()
            except OutsideError:
                client.close()  # the client sees a closed connection, and may try again
                continue
            for source, sink in ((client, pod), (pod, client)):
                threading.Thread(target=_carry, args=(source, sink), name="forward", daemon=True).start()


def _carry(source: Any, sink: Any) -> None:
    """Copy until one end is closed, then close the other."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def _container_port(pod: dict[str, Any], target: int | str) -> int:
    if isinstance(target, int):
        return target
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or []]
    return next((port["containerPort"] for port in ports if port.get("name") == target), 0)


def _configuration(at: Target, folder: Path) -> Any:
    """For the websocket client, which reads certificates only from files: in a private folder, while it is open."""
    from kubernetes.client import Configuration  # noqa: PLC0415

    configuration = Configuration()
    configuration.host, configuration.tls_server_name = f"https://{at.endpoint}", at.server_name
    configuration.proxy = None
    configuration.ssl_ca_cert = str(folder / "ca.pem")
    Path(configuration.ssl_ca_cert).write_text(at.ca)
    if at.identity:
        identity = folder / "identity.pem"
        identity.touch(mode=0o600)
        identity.write_text(openssl_key(at.identity.key).rstrip("\n") + "\n" + at.identity.crt)
        configuration.cert_file = configuration.key_file = str(identity)
    return configuration
