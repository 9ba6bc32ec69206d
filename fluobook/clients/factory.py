"""The Image Factory: builds Talos images from schematics, and lists versions and extensions."""

from __future__ import annotations

import re
from typing import Any

from fluobook.clients import answers
from fluobook.clients.https import HttpClient, Target, is_passing
from fluobook.errors import NotFound

SYSTEM = "factory"
LARGEST = 8 << 20
"""Bytes of an answer."""
_ID = re.compile("[0-9a-f]{64}")


class FactoryClient:
    """An Image Factory. Blocking and thread-safe; every call may be made twice.

    Every method raises Unreachable, InvalidAnswer, AccessDenied, NotFound, Rejected or OutsideError.

    Args:
        host: factory.talos.dev, or a mirror of it.
        port: its port.
        address: the (host, port) to connect to instead, or None.
        ca_file: PEM file of the authorities to trust instead of the system's, or None.
        deadline: seconds for a whole call.
    """

    def __init__(
        self,
        host: str = "factory.talos.dev",
        port: int = 443,
        *,
        address: tuple[str, int] | None = None,
        ca_file: str | None = None,
        deadline: float | None = None,
    ) -> None:
        target = Target(host, port, address=address, ca_file=ca_file)
        self._http = HttpClient(target, system=SYSTEM, name="the Image Factory", deadline=deadline)
        self.close = self._http.close

    def schematic(self, text: str) -> str:
        """Register a schematic (YAML), so that the factory builds images of it; returns its id, a SHA-256.

        A repetition changes nothing, since the id depends only on the schematic.

        Raises:
            Rejected: the text is not a schematic.
        """
        answer = self._json(
            "POST",
            "/schematics",
            doing="register the schematic",
            shape={"id": _ID},
            body=text.encode(),
            headers={"Content-Type": "application/yaml"},
        )
        return str(answer["id"])

    def known(self, schematic_id: str) -> str | None:
        """The schematic of that id as YAML, or None if it is not registered."""
        doing = "read the schematic"
        try:
            answer = self._http.send(
                "GET", f"/schematics/{schematic_id}", doing=doing, repeat_if=is_passing, largest=LARGEST
            )
        except NotFound:
            return None
        self._http.read(answer, doing, {}, answers.parse_yaml)
        return answer.text

    def versions(self) -> tuple[str, ...]:
        """The Talos versions that it builds images of, such as v1.13.9."""
        return tuple(self._json("GET", "/versions", doing="list the Talos versions", shape=[str]))

    def extensions(self, version: str) -> tuple[str, ...]:
        """The official extensions for a Talos version, such as siderolabs/iscsi-tools.

        Raises:
            NotFound: it does not know the version.
        """
        path = f"/version/v{version.removeprefix('v')}/extensions/official"
        listed = self._json("GET", path, doing=f"list the extensions for {version}", shape=[{"name": str}])
        return tuple(extension["name"] for extension in listed)

    def _json(self, method: str, path: str, **more: Any) -> Any:
        return self._http.json(method, path, repeat_if=is_passing, largest=LARGEST, **more)
