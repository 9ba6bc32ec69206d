"""Who a request comes from: a client certificate, a bootstrap token or a service account's token."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.identity import BOOTSTRAPPERS, User

if TYPE_CHECKING:
    from fluobook_lab.kube.store import Store

_BASE = frozenset({"system:authenticated"})
TOKEN_SECONDS = 3600


class Authenticator:
    """Finds the user of a request.

    Args:
        store: where bootstrap tokens are (Secrets of type bootstrap.kubernetes.io/token in kube-system).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = secrets.token_bytes(32)

    def user(self, certificate: dict[str, Any] | None, authorization: str) -> User | None:
        """The user, None if nobody is proved.

        Args:
            certificate: the verified client certificate, as `ssl` gives it.
            authorization: the header of that name.
        """
        if certificate:
            return _certified(certificate)
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer":
            return None
        return self._bootstrapper(token) or self._service_account(token)

    def service_account_token(self, namespace: str, name: str, seconds: int = TOKEN_SECONDS) -> str:
        """A token that this server accepts as the service account's."""
        claims = {"sub": f"system:serviceaccount:{namespace}:{name}", "exp": int(time.time()) + seconds}
        body = ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        return f"{body}.{_encoded(self._signature(body))}"

    def _signature(self, body: str) -> bytes:
        return hmac.new(self._key, body.encode(), hashlib.sha256).digest()

    def _service_account(self, token: str) -> User | None:
        body, _, signature = token.rpartition(".")
        if not body or not hmac.compare_digest(_encoded(self._signature(body)), signature):
            return None
        claims = json.loads(_decoded(body.partition(".")[2]))
        if claims["exp"] < time.time():
            return None
        namespace = claims["sub"].split(":")[2]
        groups = {"system:serviceaccounts", f"system:serviceaccounts:{namespace}"}
        return User(claims["sub"], _BASE | groups)

    def _bootstrapper(self, token: str) -> User | None:
        identifier, _, secret = token.partition(".")
        found = self._store.find("v1", "Secret", f"bootstrap-token-{identifier}", "kube-system")
        if not found or found.get("type") != "bootstrap.kubernetes.io/token":
            return None
        data = {key: _text(value) for key, value in (found.get("data") or {}).items()}
        if not hmac.compare_digest(data.get("token-secret", ""), secret):
            return None
        extra = {group for group in data.get("auth-extra-groups", "").split(",") if group}
        return User(f"system:bootstrap:{identifier}", _BASE | {BOOTSTRAPPERS} | extra)


def _certified(certificate: dict[str, Any]) -> User:
    pairs = [pair for name in certificate.get("subject", ()) for pair in name]
    name = next((value for key, value in pairs if key == "commonName"), "")
    return User(name, _BASE | {value for key, value in pairs if key == "organizationName"})


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(value: str) -> str:
    try:
        return base64.b64decode(value).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
