"""Which path a kind has, asked from the API once for each group and version and kept in memory.

The discoverers of the `kubernetes` package keep their cache in a file in the common temporary folder, named after the
host: two clusters behind one bastion would share it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from fluobook.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable


class Kind(NamedTuple):
    """One kind in one version, and where its objects are."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, name: str = "", namespace: str = "", subresource: str = "") -> str:
        """The path of an object, or of the collection if no name is given."""
        root = "/apis/" if "/" in self.api_version else "/api/"
        place = ["namespaces", namespace] if self.namespaced and namespace else []
        return root + "/".join(filter(None, [self.api_version, *place, self.plural, name, subresource]))


class Discovery:
    """Finds kinds; safe for threads.

    Args:
        fetch: GETs a path and gives its JSON; raises `NotFound`.
    """

    def __init__(self, fetch: Callable[[str], dict[str, Any]]) -> None:
        self._fetch = fetch
        self._known: dict[tuple[str, str], Kind] = {}
        self._lock = threading.Lock()

    def kind(self, api_version: str, kind: str) -> Kind:
        """The kind; asked for anew if it is not known yet, as a CustomResourceDefinition may have come.

        Raises:
            NotFound: the API does not serve it.
        """
        with self._lock:
            if (api_version, kind) not in self._known:
                self._learn(api_version)
            found = self._known.get((api_version, kind))
        if found is None:
            raise _unknown(api_version, kind)
        return found

    def _learn(self, api_version: str) -> None:
        root = "/apis/" if "/" in api_version else "/api/"
        try:
            listed = self._fetch(root + api_version)["resources"]
        except NotFound:
            return
        for entry in listed:
            if "/" not in entry["name"]:
                found = Kind(api_version, entry["kind"], entry["name"], entry["namespaced"])
                self._known[(api_version, entry["kind"])] = found


def _unknown(api_version: str, kind: str) -> NotFound:
    return NotFound(
        f"the Kubernetes API does not know {kind} in {api_version}",
        system="kubernetes",
        code="NoMatch",
        cause="its CustomResourceDefinition is not installed (yet), or serves other versions",
        remedy=f"kubectl api-resources --api-group={api_version.rpartition('/')[0]}",
    )
