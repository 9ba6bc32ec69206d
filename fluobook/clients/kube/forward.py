"""A local port that leads to a pod of a Service, as `kubectl port-forward` makes one."""

from __future__ import annotations

import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fluobook.clients.kube.failures import translated
from fluobook.errors import NotFound, Unreachable
from fluobook.machine.pki import openssl_key

if TYPE_CHECKING:
    from types import TracebackType

    from fluobook.clients.kube.client import Kube

CHUNK = 1 << 16


class Forward:
    """Listens on 127.0.0.1 and carries each connection to a ready pod, chosen anew each time; close it at the end.

    Args:
        kube: the cluster.
        service: the Service's name.
        namespace: its namespace.
        port: the Service's port.

    Attributes:
        address: where it listens.

    Raises:
        NotFound: no such Service, or it has no such port.
        OutsideError: no answer, or a refusal.
    """

    def __init__(self, kube: Kube, service: str, namespace: str, port: int) -> None:
        self._kube = kube
        self._name = f"{service}.{namespace}:{port}"
        self._namespace = namespace
        found = kube.get("v1", "Service", service, namespace)
        self._selector = found["spec"].get("selector") or {}
        targets = [told.get("targetPort", port) for told in found["spec"]["ports"] if told["port"] == port]
        if not targets:
            raise NotFound(f"Service {namespace}/{service} has no port {port}", system="kubernetes", code="NoPort")
        self._target: int | str = targets[0]
        self._identity = tempfile.TemporaryDirectory(prefix="fluobook-")
        self._configuration = _configuration(kube, Path(self._identity.name))
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
        """Listen no longer; connections that are open end when their ends do."""
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
        from kubernetes.stream import ws_client  # noqa: PLC0415

        pod = self._pod()
        port = _container_port(pod, self._target)
        path = self._kube.transport.kind("v1", "Pod").path(pod["metadata"]["name"], self._namespace, "portforward")
        with translated(f"forward a port to {self._name}", self._kube.at.name):
            query = [("ports", str(port))]
            url = self._kube.at.url + path
            return ws_client.portforward_call(self._configuration, "GET", url, query_params=query).socket(port)

    def _pod(self) -> dict[str, Any]:
        labels = ",".join(f"{key}={value}" for key, value in self._selector.items())
        for pod in self._kube.list("v1", "Pod", self._namespace, labels=labels):
            conditions = (pod.get("status") or {}).get("conditions") or []
            if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                return pod
        raise Unreachable(
            f"no pod behind {self._name} is ready",
            system="kubernetes",
            code="NoEndpoints",
            cause="its pods are still starting, or fail",
            remedy=f"kubectl -n {self._namespace} get pods -l {labels}",
        )

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            try:
                far = self.connect()
            except (Unreachable, NotFound):
                near.close()  # the caller sees a closed connection, and may try again
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_carry, args=(source, sink), name="forward", daemon=True).start()


def _carry(source: Any, sink: Any) -> None:
    """Copy until one end is closed, then close the other."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


def _container_port(pod: dict[str, Any], target: int | str) -> int:
    if isinstance(target, int):
        return target
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or []]
    return next((port["containerPort"] for port in ports if port.get("name") == target), 0)


def _configuration(kube: Kube, folder: Path) -> Any:
    """For the websocket, which takes certificates from files alone: in a folder of our own, while it is open."""
    from kubernetes.client import Configuration  # noqa: PLC0415

    configuration = Configuration()
    configuration.host, configuration.tls_server_name, configuration.proxy = kube.at.url, kube.at.server_name, None
    configuration.ssl_ca_cert = str(folder / "ca.pem")
    Path(configuration.ssl_ca_cert).write_text(kube.at.ca)
    if kube.at.identity:
        identity = folder / "identity.pem"
        identity.touch(mode=0o600)
        identity.write_text(openssl_key(kube.at.identity.key).rstrip("\n") + "\n" + kube.at.identity.crt)
        configuration.cert_file = configuration.key_file = str(identity)
    return configuration
