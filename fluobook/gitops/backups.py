"""Longhorn's backups, from the params: where they go, when, and the Secret whose credentials open the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluobook.params import Platform

SECRET = "longhorn-backup"  # noqa: S105 (its name)
NAMESPACE = "longhorn-system"
FILE = f"infrastructure/monitoring/secrets/{SECRET}"
"""The file of the Secret as notebook 10_secrets names it."""
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""The keys that Longhorn needs; AWS_ENDPOINTS names a service other than AWS, AWS_CERT its authority."""


def values_of(platform: Platform) -> dict[str, Any]:
    """The values that the templates of longhorn-config name. Without a bucket the job is for no volume."""
    wanted = platform.backups
    return {
        "backups.target": f"s3://{wanted.bucket}@{wanted.region}/longhorn/" if wanted.bucket else "",
        "backups.secret": SECRET if wanted.bucket else "",
        "backups.groups": ["default"] if wanted.bucket else [],
        "backups.schedule": wanted.schedule,
        "backups.keep": wanted.keep,
    }
