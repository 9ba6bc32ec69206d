"""A bucket of an S3 service, with path-style addresses; it verifies signatures (AWS Signature Version 4) and hashes."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote
from xml.sax.saxutils import escape

from aiohttp import web

from fluobook_lab.http import HttpServer

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock

SKEW = dt.timedelta(minutes=15)
"""How much a client's clock may differ."""
LARGEST = 1 << 30
STATUS = {
    "AccessDenied": 403,
    "InvalidAccessKeyId": 403,
    "SignatureDoesNotMatch": 403,
    "RequestTimeTooSkewed": 403,
    "AuthorizationHeaderMalformed": 400,
    "XAmzContentSHA256Mismatch": 400,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NotImplemented": 501,
}


class _Refusal(Exception):
    """Why a request is refused: the code, the message, and further elements of the answer."""

    def __init__(self, code: str, message: str, **more: str) -> None:
        super().__init__(message)
        self.code, self.message, self.more = code, message, more


class BucketServer(HttpServer):
    """One bucket; its objects last as long as the lab.

    Args:
        name: of the bucket.
        clock: the lab's clock.
        region: of the bucket.
        keys: the secret key of each access key.
        page: objects that one answer lists at most.

    Attributes:
        objects: the content by key.
    """

    def __init__(self, name: str, clock: Clock, *, region: str, keys: dict[str, str], page: int = 1000) -> None:
        app = web.Application(client_max_size=LARGEST)
        app.router.add_route("*", "/{bucket}", self._serve)
        app.router.add_route("*", "/{bucket}/{key:.*}", self._serve)
        super().__init__(app, clock)
        self.objects: dict[str, bytes] = {}
        self._name, self._region, self._keys, self._page = name, region, keys, page

    async def _serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            self._verify(request, body)
            return self._answer(request, body)
        except _Refusal as refusal:
            fields = {"Code": refusal.code, "Message": refusal.message, **refusal.more}
            text = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
            return _xml(f"<Error>{text}</Error>", STATUS[refusal.code])

    # ---- signatures -----------------------------------------------------------------------------------------------

    def _verify(self, request: web.Request, body: bytes) -> None:
        """Refuse what is not signed by a known key, for this region, now, with this content."""
        kind, _, rest = request.headers.get("Authorization", "").partition(" ")
        if kind != "AWS4-HMAC-SHA256":
            raise _Refusal("AccessDenied", "Access Denied")
        fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        key_id, day, region, service, _ = f"{fields.get('Credential', '')}////".split("/")[:5]
        if key_id not in self._keys:
            raise _Refusal("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
        if (region, service) != (self._region, "s3"):
            why = f"the region '{region}' is wrong; expecting '{self._region}'"
            raise _Refusal("AuthorizationHeaderMalformed", why, Region=self._region)
        when = request.headers.get("x-amz-date", "")
        self._on_time(when)
        claimed = request.headers.get("x-amz-content-sha256", "")
        if claimed.startswith("STREAMING-"):
            raise _Refusal("NotImplemented", "A header you provided implies functionality that is not implemented")
        signed = fields.get("SignedHeaders", "").split(";")
        canonical = [request.method, _encoded(request.rel_url.raw_path), _query(request.rel_url.raw_query_string)]
        canonical += [f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in signed]
        canonical += ["", ";".join(signed), claimed]
        scope = f"{day}/{region}/{service}/aws4_request"
        digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{digest}"
        key = f"AWS4{self._keys[key_id]}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        if not when.startswith(day) or not hmac.compare_digest(expected, fields.get("Signature", "")):
            why = "The request signature we calculated does not match the signature you provided."
            raise _Refusal("SignatureDoesNotMatch", why)
        if claimed not in ("UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()):
            why = "The provided 'x-amz-content-sha256' header does not match what was computed."
            raise _Refusal("XAmzContentSHA256Mismatch", why)

    def _on_time(self, when: str) -> None:
        try:
            at = dt.datetime.strptime(when, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
        except ValueError:
            raise _Refusal("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None
        if abs(dt.datetime.now(dt.UTC) - at) > SKEW:
            why = "The difference between the request time and the current time is too large."
            raise _Refusal("RequestTimeTooSkewed", why)

    def _answer(self, request: web.Request, body: bytes) -> web.Response:
        if request.match_info["bucket"] != self._name:
            raise _Refusal("NoSuchBucket", "The specified bucket does not exist")
        key = request.match_info.get("key", "")
        return self._object(request.method, key, body) if key else self._bucket(request)

    # ---- objects --------------------------------------------------------------------------------------------------

    def _object(self, method: str, key: str, body: bytes) -> web.Response:
        if method == "PUT":
            self.objects[key] = body
            return web.Response(headers=_tag(body))
        if method == "DELETE":
            self.objects.pop(key, None)
            return web.Response(status=204)
        if method not in ("GET", "HEAD"):
            raise _Refusal("NotImplemented", f"{method} of an object is not implemented")
        if key not in self.objects:
            raise _Refusal("NoSuchKey", "The specified key does not exist.", Key=key)
        content = self.objects[key]
        return web.Response(body=content, content_type="application/octet-stream", headers=_tag(content))

    def _bucket(self, request: web.Request) -> web.Response:
        query = request.query
        if request.method == "HEAD":
            return web.Response()
        if request.method == "GET" and "location" in query:
            return _xml(f"<LocationConstraint>{self._region}</LocationConstraint>")
        if request.method != "GET" or query.get("list-type") != "2":
            raise _Refusal("NotImplemented", "this operation of a bucket is not implemented")
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        page = keys[: min(self._page, int(query.get("max-keys", self._page)))]
        parts = [
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified>{_etag(self.objects[key])}</Contents>"
            for key in page
        ]
        cut = len(page) < len(keys)
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if cut and page else ""
        head = f"<Name>{self._name}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        head += f"<IsTruncated>{str(cut).lower()}</IsTruncated>{more}"
        return _xml(f"<ListBucketResult>{head}{''.join(parts)}</ListBucketResult>")


def _encoded(raw_path: str) -> str:
    return quote(raw_path, safe="/-_.~%")


def _query(raw: str) -> str:
    pairs = parse_qsl(raw, keep_blank_values=True)
    return "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs))


def _etag(content: bytes) -> str:
    return f"<ETag>&quot;{_md5(content)}&quot;</ETag>"


def _tag(content: bytes) -> dict[str, str]:
    return {"ETag": f'"{_md5(content)}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _xml(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=f'<?xml version="1.0"?>\n{text}', content_type="application/xml")
