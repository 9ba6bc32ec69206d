"""The Image Factory: makes Talos images from schematics, and says which versions and extensions there are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

import requests

from fluobook.clients.https import CONNECT_TIMEOUT, READ_TIMEOUT, Target, TargetAdapter, fingerprint_seen
from fluobook.errors import NotFound, OutsideError, Rejected, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM = "factory"
RETRY_AFTER = (0.3, 1.0)
"""Seconds to wait before each repetition while the factory has trouble of its own; every call may be made twice."""
_THREADS = 8


class FactoryClient:
    """An Image Factory. Blocking and thread-safe.

    Every method raises Unreachable, NotFound, Rejected or OutsideError.

    Args:
        host: factory.talos.dev, or a mirror of it.
        port: its port.
        address: the (host, port) to connect to instead, or None.
        ca_file: PEM file of the authorities to trust instead of the system's, or None.
    """

    def __init__(
        self,
        host: str = "factory.talos.dev",
        port: int = 443,
        *,
        address: tuple[str, int] | None = None,
        ca_file: str | None = None,
    ) -> None:
        self._target = Target(host, port, address=address, ca_file=ca_file)
        self._base = f"https://{host}" if port == 443 else f"https://{host}:{port}"  # noqa: PLR2004 - https
        self._session = requests.Session()
        self._session.verify = ca_file or True
        try:
            self._session.mount(self._base, TargetAdapter(self._target, threads=_THREADS))
        except OSError as error:
            raise Unreachable(
                f"the CA file {ca_file} of {host} cannot be read: {error.strerror or error}",
                system=SYSTEM,
                remedy="correct the path under trust in the params",
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def schematic(self, text: str) -> str:
        """Reporter the factory a schematic (YAML), so that it makes images of it; the id is the SHA-256 of its form.

        Repeating it changes nothing: the id says what the schematic is.

        Raises:
            Rejected: the text is not a schematic.
        """
        answer = self._ask("POST", "/schematics", doing="register the schematic", body=text)
        return str(answer["id"])

    def known(self, schematic_id: str) -> str | None:
        """The schematic of that id as YAML, or None while nobody has told it to the factory; changes nothing."""
        try:
            return self._send("GET", f"/schematics/{schematic_id}", doing="look up the schematic").text
        except NotFound:
            return None

    def versions(self) -> tuple[str, ...]:
        """The Talos versions it makes images of, such as v1.13.9."""
        return tuple(self._ask("GET", "/versions", doing="list the Talos versions"))

    def extensions(self, version: str) -> tuple[str, ...]:
        """The official extensions that there are for a Talos version, such as siderolabs/iscsi-tools.

        Raises:
            NotFound: it does not know the version.
        """
        path = f"/version/v{version.removeprefix('v')}/extensions/official"
        return tuple(found["name"] for found in self._ask("GET", path, doing=f"list the extensions for {version}"))

    def check(self) -> None:
        """Whether it answers at all.

        Raises:
            Unreachable: it does not.
        """
        self.versions()

    def _ask(self, method: str, path: str, *, doing: str, body: str | None = None) -> Any:
        try:
            return self._send(method, path, doing=doing, body=body).json()
        except requests.JSONDecodeError as error:
            raise self._unreachable(f"what answers at {self._target.name} is not an Image Factory", error) from None

    def _send(self, method: str, path: str, *, doing: str, body: str | None = None) -> requests.Response:
        for pause in (*RETRY_AFTER, None):
            answer = self._once(method, path, doing=doing, body=body)
            if answer.status_code < requests.codes.internal_server_error or pause is None:
                break
            time.sleep(pause)
        if answer.ok:
            return answer
        raise _refusal(answer.status_code, answer.text.strip(), doing)

    def _once(self, method: str, path: str, *, doing: str, body: str | None) -> requests.Response:
        try:
            return self._session.request(
                method,
                self._base + path,
                data=body.encode() if body is not None else None,
                headers={"Content-Type": "application/yaml", "Accept": "application/json, */*;q=0.5"},
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
            )
        except (requests.RequestException, OSError) as error:
            raise self._unreachable(
                f"the Image Factory does not answer at {self._target.name}; could not {doing}", error
            ) from None

    def _unreachable(self, message: str, error: Exception) -> Unreachable:
        told: Mapping[str, Any] = {
            "cause": "no route to it, or a proxy or firewall in between",
            "remedy": f"try it: curl -I {self._base}/versions; set HTTPS_PROXY, or a mirror under endpoints",
        }
        if isinstance(error, requests.exceptions.SSLError):
            message = f"the certificate of the Image Factory at {self._target.name} is not trusted"
            told = {
                "cause": f"something else answers there, or a proxy that has its own authority "
                f"(SHA-256 fingerprint seen: {fingerprint_seen(self._target) or 'none'})",
                "remedy": f"name that authority's file: trust: {{'{self._target.host}:{self._target.port}': FILE}}",
            }
        return Unreachable(message, system=SYSTEM, detail=str(error), **told)


def _refusal(status: int, text: str, doing: str) -> OutsideError:
    message = f"the Image Factory refused to {doing}: {text.splitlines()[0] if text else status}"
    told: dict[str, Any] = {"system": SYSTEM, "detail": f"{status} {text}", "code": str(status)}
    if status == requests.codes.not_found:
        return NotFound(message, remedy="choose a version that the factory has: it lists them at /versions", **told)
    if status < requests.codes.internal_server_error:
        return Rejected(message, remedy="correct talos/schematic.yaml", **told)
    return OutsideError(message, cause="the factory has trouble of its own", remedy="run it again later", **told)
