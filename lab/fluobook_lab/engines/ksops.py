"""Stands for KSOPS as kustomize's exec function: decrypts the files that a generator lists, with the real sops.

Run by kustomize as `ksops` in the folder of the kustomization, with a ResourceList on standard input. sops finds its
key by its own environment (SOPS_AGE_KEY_FILE).
"""

import subprocess
import sys

import yaml

LIST = {"apiVersion": "config.kubernetes.io/v1", "kind": "ResourceList"}


def main() -> int:
    """Print a ResourceList of every document in the listed files; the exit code."""
    asked = yaml.safe_load(sys.stdin)
    items = []
    for listed in asked["functionConfig"].get("files") or ():
        done = subprocess.run(["sops", "decrypt", "--output-type", "yaml", listed], capture_output=True, check=False)
        if done.returncode:
            sys.stderr.write(f"error decrypting file {listed!r}: {done.stderr.decode()}")
            return 1
        items += [document for document in yaml.safe_load_all(done.stdout) if document]
    yaml.safe_dump({**LIST, "items": items}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
