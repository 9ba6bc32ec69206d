"""WireGuard's public keys; this is a program too, which stands in for `wg pubkey`."""

import base64
import sys

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


def public_key(private: str) -> str:
    """The public key of a private one, both in base64."""
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private)).public_key()
    return base64.b64encode(key.public_bytes_raw()).decode()


if __name__ == "__main__":
    sys.stdout.write(public_key(sys.stdin.read()) + "\n")
