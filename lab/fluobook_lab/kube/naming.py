"""Names and uids that the server makes up: from the seed and the object's place, so each run has the same."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from typing import TYPE_CHECKING

from fluobook_lab.kube.errors import invalid

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Key

_LONGEST = 58
"""Of a prefix; what is made up has room after it in a DNS label."""
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


class Names:
    """Makes names and uids.

    Args:
        seed: other seeds give others.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._born: Counter[str] = Counter()

    def complete(self, resource: Resource, metadata: Obj) -> None:
        """Give an object its name, if it asks for one by `generateName`.

        Raises:
            ApiError: 422, it has neither.
        """
        prefix = metadata.get("generateName")
        if not metadata.get("name") and prefix:
            where = f"{resource.qualified}/{metadata.get('namespace', '')}/{prefix}"
            self._born[where] += 1
            chosen = random.Random(f"{self._seed}/{where}/{self._born[where]}")
            metadata["name"] = prefix[:_LONGEST] + "".join(chosen.choices(_SUFFIX, k=5))
        if not metadata.get("name"):
            what = "Required value: name or generateName is required"
            raise invalid(resource, "", [("metadata.name", what)])

    def uid(self, resource: Resource, key: Key) -> str:
        """The uid of a new object; one that comes again under the same name gets another."""
        where = f"{resource.qualified}/{key[0]}/{key[1]}"
        self._born[where] += 1
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._seed}/{where}/{self._born[where]}"))
