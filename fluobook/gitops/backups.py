"""The backups of the params: where they go, when, and the Secrets whose credentials open the bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from fluobook.params import Platform

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""The keys that open the bucket."""
ENDPOINT = "AWS_ENDPOINTS"
"""The key with which Longhorn finds a service other than AWS; AWS_CERT is the service's authority."""
PLUGIN = "barman-cloud.cloudnative-pg.io"
"""The plugin of CloudNativePG that archives the log and makes backups."""


@dataclass(frozen=True)
class Credentials:
    """A Secret that opens the bucket: its namespace and name, and its file as notebook 10_secrets names it."""

    namespace: str
    name: str
    file: str


LONGHORN = Credentials("longhorn-system", "longhorn-backup", "infrastructure/monitoring/secrets/longhorn-backup")
DATA = Credentials("fluodata", "fluodata-backup", "apps/secrets/fluodata-backup")
"""For PostgreSQL and RabbitMQ."""


def credentials_of(platform: Platform, namespaces: Collection[str]) -> dict[Credentials, tuple[str, ...]]:
    """The Secrets that open the bucket, each with its keys; none without a bucket.

    Args:
        platform: with the bucket.
        namespaces: those of the Applications that a bucket brings.
    """
    if not platform.backups.bucket:
        return {}
    own = (ENDPOINT,) if platform.backups.endpoint else ()
    return {LONGHORN: (*KEYS, *own), **({DATA: KEYS} if DATA.namespace in namespaces else {})}


def values_of(platform: Platform) -> dict[str, Any]:
    """The values that the templates of the tree name. Without a bucket Longhorn's job is for no volume."""
    wanted = platform.backups
    return {
        "backups.bucket": wanted.bucket or "",
        "backups.endpoint": wanted.endpoint or "",
        "backups.region": wanted.region,
        "backups.target": f"s3://{wanted.bucket}@{wanted.region}/longhorn/" if wanted.bucket else "",
        "backups.secret": LONGHORN.name if wanted.bucket else "",
        "backups.groups": ["default"] if wanted.bucket else [],
        "backups.schedule": wanted.schedule,
        "backups.keep": wanted.keep,
        "backups.exports": str(wanted.keep),
    }
