"""A bucket of an S3 service: list, read, write and delete objects, with requests signed by AWS' Signature Version 4.

Addresses have the path style, which every service knows. An object is sent in one request, so it has 5 GiB at most.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import html
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlencode, urlsplit

from fluobook.clients.https import Answer, HttpClient, Target, is_passing
from fluobook.errors import AccessDenied, NotFound, OutsideError, Rejected

SYSTEM = "s3"
SERVICE, ALGORITHM = "s3", "AWS4-HMAC-SHA256"
LARGEST = 5 << 30
"""Bytes of an object: what S3 takes in one request."""
PORTS = {"https": 443, "http": 80}
DENIED = {
    "InvalidAccessKeyId": "the service does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "AccessDenied": "the keys have no right to this bucket, or to this object",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token does not belong to the keys",
    "RequestTimeTooSkewed": "this machine's clock differs from that of the service",
}
"""Why the service refuses a request, by its code."""
ELSEWHERE = frozenset({"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"})
ELSEWHERE |= {"IllegalLocationConstraintException"}
"""Codes that say that the bucket is in another region."""


def signature(
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    region: str,
    key_id: str,
    secret: str,
    service: str = SERVICE,
) -> str:
    """The header Authorization of a request.

    Args:
        method: the HTTP method.
        path: as it is sent, encoded.
        query: the parameters, not encoded.
        headers: those that are signed; `x-amz-date` and `x-amz-content-sha256` among them.
        region: of the bucket.
        key_id: the access key.
        secret: the secret key.
        service: what is called.
    """
    lower = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    names, when = ";".join(sorted(lower)), lower["x-amz-date"]
    lines = [method, path, encoded(query), *(f"{name}:{lower[name]}" for name in sorted(lower)), "", names]
    request = "\n".join([*lines, lower.get("x-amz-content-sha256") or hashlib.sha256(b"").hexdigest()])
    scope = f"{when[:8]}/{region}/{service}/aws4_request"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join([ALGORITHM, when, scope, hashlib.sha256(request.encode()).hexdigest()])
    signed = hmac.digest(key, text.encode(), "sha256").hex()
    return f"{ALGORITHM} Credential={key_id}/{scope},SignedHeaders={names},Signature={signed}"


def encoded(query: Mapping[str, str]) -> str:
    """Parameters as they are sent and signed: by name, with every character encoded that is not unreserved."""
    return urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")


def _field(text: str, name: str) -> str:
    """The text of the first element of that name."""
    match = re.search(f"<{name}>([^<]*)</{name}>", text)
    return html.unescape(match[1]) if match else ""


def _listing(content: bytes) -> tuple[list[str], str]:
    """The keys in a list of objects, and where the next part begins."""
    text = content.decode()
    if not re.search(r"<ListBucketResult\b.*</ListBucketResult>", text, re.DOTALL):
        raise ValueError("it is no list of objects")
    return [html.unescape(key) for key in re.findall("<Key>([^<]*)</Key>", text)], _field(text, "NextContinuationToken")


class Bucket:
    """One bucket. Blocking and thread-safe; every call may be made twice.

    Every method raises Unreachable, InvalidAnswer, AccessDenied, NotFound, Rejected or OutsideError.

    Args:
        name: of the bucket.
        endpoint: URL of the service.
        region: of the bucket.
        key_id: the access key.
        secret: the secret key.
        token: the session token of temporary keys, or "".
        address: the (host, port) to connect to instead, or None.
        ca_file: PEM file of the authorities to trust instead of the system's, or None.
        deadline: seconds for a whole call.
    """

    def __init__(
        self,
        name: str,
        *,
        endpoint: str,
        region: str,
        key_id: str,
        secret: str,
        token: str = "",
        address: tuple[str, int] | None = None,
        ca_file: str | None = None,
        deadline: float | None = None,
    ) -> None:
        parts = urlsplit(endpoint)
        port = parts.port or PORTS[parts.scheme]
        target = Target(parts.hostname or "", port, address=address, ca_file=ca_file, scheme=parts.scheme)
        self.name, self._region, self._key_id, self._secret, self._token = name, region, key_id, secret, token
        self._http = HttpClient(
            target,
            system=SYSTEM,
            name=f"the bucket {name}",
            secrets=(secret, token),
            facts={"bucket": name},
            deadline=deadline,
            follows=False,
        )
        self.close = self._http.close

    def list(self, prefix: str) -> list[str]:
        """The keys of the objects that begin with a prefix."""
        doing, keys, after = "list its objects", list[str](), ""
        while True:
            query = {"list-type": "2", "prefix": prefix, **({"continuation-token": after} if after else {})}
            answer = self._send("GET", "", doing, query=query)
            more, after = self._http.read(answer, doing, parse=_listing)
            keys += more
            if not after:
                return keys

    def read(self, key: str) -> bytes:
        """An object.

        Raises:
            NotFound: there is none of that key, or no such bucket.
        """
        return self._send("GET", key, f"read {key}").body

    def write(self, key: str, data: bytes) -> None:
        """Write an object; the service compares what it receives with its SHA-256, which is signed."""
        self._send("PUT", key, f"write {key}", body=data)

    def delete(self, key: str) -> None:
        """Delete an object; one that is gone is fine."""
        self._send("DELETE", key, f"delete {key}")

    def _send(
        self, method: str, key: str, doing: str, *, query: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        path = quote(f"/{self.name}/{key}" if key else f"/{self.name}", safe="/-_.~")
        headers = {
            "Host": self._http.target.url.partition("//")[2],
            "x-amz-content-sha256": hashlib.sha256(body or b"").hexdigest(),
            "x-amz-date": f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}",
            **({"x-amz-security-token": self._token} if self._token else {}),
        }
        headers["Authorization"] = signature(
            method, path, query or {}, headers, region=self._region, key_id=self._key_id, secret=self._secret
        )
        return self._http.send(
            method,
            f"{path}?{encoded(query)}" if query else path,
            doing=doing,
            body=body,
            headers=headers,
            repeat_if=is_passing,
            largest=LARGEST,
            refusal=self._refused,
        )

    def _refused(self, answer: Answer, doing: str) -> OutsideError:
        """The error for the service's code; one that has none comes from something before it."""
        error = self._http.refused(answer, doing)
        code = _field(answer.text, "Code")
        region = answer.headers.get("x-amz-bucket-region") or _field(answer.text, "Region")
        kind: type[OutsideError]
        if code in ELSEWHERE or answer.status < 400:  # noqa: PLR2004
            place = f"in {region}" if region else "in another region"
            kind, cause = Rejected, f"the bucket is {place}, and the params say {self._region}"
            remedy = f"set etcd_snapshots.bucket.region to {region or 'that of the bucket'}"
        elif code in DENIED:
            kind, cause, remedy = AccessDenied, DENIED[code], "check the keys in the environment, and their policy"
            if code == "RequestTimeTooSkewed":
                cause, remedy = f"{cause}{_skew(answer)}", "set this machine's clock (chrony, systemd-timesyncd)"
        elif code == "NoSuchBucket":
            kind, cause, remedy = NotFound, "there is no bucket of that name", "create it, or correct its name"
        elif code == "NoSuchKey":
            kind, cause, remedy = NotFound, "", ""
        elif code in ("BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest"):
            kind, cause, remedy = Rejected, "what arrived is not what was sent", "run it again"
        else:
            return error
        message = f"{self._http.name} refused to {doing}: {code or answer.status} {_field(answer.text, 'Message')}"
        return kind(
            message.strip(),
            system=SYSTEM,
            detail=error.detail,
            code=code or str(answer.status),
            cause=cause,
            remedy=remedy,
            facts=error.facts,
        )


def _skew(answer: Answer) -> str:
    """By how much the clocks differ, if the service tells its time."""
    try:
        there = parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError):
        return ""
    return f" by {abs((dt.datetime.now(dt.UTC) - there).total_seconds()) / 60:.0f} minutes"
