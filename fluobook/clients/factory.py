"""The Image Factory: builds Talos images from schematics, and lists versions and extensions."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Self

import requests

from fluobook.clients.https import CONNECT_TIMEOUT, READ_TIMEOUT, Target, open_adapter, unreachable
from fluobook.errors import NotFound, OutsideError, Rejected, Unreachable
from fluobook.waiting import retry

SYSTEM = "factory"
RETRY_AFTER = (0.3, 1.0)
"""Seconds before each repetition while the factory answers 5xx; every call may be made twice."""
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
        self._facts = {"url": self._base}
        self._session.mount(self._base, open_adapter(self._target, threads=_THREADS, system=SYSTEM, name=host))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def schematic(self, text: str) -> str:
        """Register a schematic (YAML), so that the factory builds images of it; returns its id, a SHA-256.

        A repetition changes nothing, since the id depends only on the schematic.

        Raises:
            Rejected: the text is not a schematic.
        """
        answer = self._json("POST", "/schematics", doing="register the schematic", body=text)
        return str(answer["id"])

    def known(self, schematic_id: str) -> str | None:
        """The schematic of that id as YAML, or None if it is not registered."""
        try:
            return self._send("GET", f"/schematics/{schematic_id}", doing="read the schematic").text
        except NotFound:
            return None

    def versions(self) -> tuple[str, ...]:
        """The Talos versions that it builds images of, such as v1.13.9."""
        return tuple(self._json("GET", "/versions", doing="list the Talos versions"))

    def extensions(self, version: str) -> tuple[str, ...]:
        """The official extensions for a Talos version, such as siderolabs/iscsi-tools.

        Raises:
            NotFound: it does not know the version.
        """
        path = f"/version/v{version.removeprefix('v')}/extensions/official"
        return tuple(
            extension["name"] for extension in self._json("GET", path, doing=f"list the extensions for {version}")
        )

    def check(self) -> None:
        """Check that it answers.

        Raises:
            Unreachable: it does not.
        """
        self.versions()

    def _json(self, method: str, path: str, *, doing: str, body: str | None = None) -> Any:
        try:
            return self._send(method, path, doing=doing, body=body).json()
        except requests.JSONDecodeError as error:
            raise Unreachable(
                f"what answers at {self._target.name} is not an Image Factory",
                system=SYSTEM,
                detail=str(error),
                code="connection",
                facts=self._facts,
            ) from None

    def _send(self, method: str, path: str, *, doing: str, body: str | None = None) -> requests.Response:
        return retry(
            lambda: self._once(method, path, doing=doing, body=body),
            if_error=lambda error: type(error) is OutsideError,
            pauses=RETRY_AFTER,
        )

    def _once(self, method: str, path: str, *, doing: str, body: str | None) -> requests.Response:
        try:
            answer = self._session.request(
                method,
                self._base + path,
                data=body.encode() if body is not None else None,
                headers={"Content-Type": "application/yaml", "Accept": "application/json, */*;q=0.5"},
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
            )
        except (requests.RequestException, OSError) as error:
            raise unreachable(
                error, self._target, system=SYSTEM, name="the Image Factory", doing=doing, facts=self._facts
            ) from None
        if answer.ok:
            return answer
        status, text = answer.status_code, answer.text.strip()
        kind = NotFound if status == HTTPStatus.NOT_FOUND else Rejected
        raise (kind if status < HTTPStatus.INTERNAL_SERVER_ERROR else OutsideError)(
            f"the Image Factory refused to {doing}: {text.splitlines()[0] if text else status}",
            system=SYSTEM,
            detail=f"{status} {text}",
            code=str(status),
            facts=self._facts,
        )
