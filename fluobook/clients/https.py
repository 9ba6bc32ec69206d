"""HTTP calls to one server: verified TLS, a total deadline, limited answers, no redirect elsewhere, typed errors.

The URL keeps the real host, so that certificates, the Host header and messages name it, while the connection may go to
the address that the params map it to: a bastion, a port-forward, the lab.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from certifi import where
from cryptography import x509
from urllib3.connection import HTTPConnection, HTTPSConnection

from fluobook.clients import answers
from fluobook.errors import AccessDenied, FluobookError, InvalidAnswer, OutsideError, Unreachable
from fluobook.machine.pki import KeyPair, load_identity
from fluobook.redact import Redactor
from fluobook.waiting import retry

CONNECT_TIMEOUT = 5.0
DEADLINE = 30.0
"""Seconds for a whole call, repetitions included: connection, TLS, headers and body."""
LARGEST = 64 << 20
"""Bytes of an answer."""
RETRY_AFTER = (0.2, 0.5, 1.0)
"""Seconds before each repetition of a call that may be made twice."""
MOST_REDIRECTS = 5
PORTS = {"https": 443, "http": 80}
CHUNK = 1 << 16

LOST, OVERDUE, TIMED_OUT, DNS = "CONNECTION_LOST", "DEADLINE_EXCEEDED", "ETIMEDOUT", "DNS"
CERTIFICATE, NOT_TLS, PROXY = "CERTIFICATE", "NOT_TLS", "PROXY"
TLS_ALERT, TLS_ALERT_EXPIRED = "TLS_ALERT", "TLS_ALERT_EXPIRED"
"""Codes of `Unreachable`; other errors of the operating system have the name of their errno."""
NO_CONNECTION = frozenset({LOST, TIMED_OUT, DNS, "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"})
"""Nothing answers: the server may be down or starting."""
UNTRUSTED = {
    "CERTIFICATE": "it is signed by an unknown authority",
    "CERTIFICATE_EXPIRED": "it has expired, or this machine's clock is ahead",
    "CERTIFICATE_NOT_YET_VALID": "it is not valid yet, or this machine's clock is behind",
    "CERTIFICATE_WRONG_HOST": "it is for another host",
    "CERTIFICATE_NOT_PINNED": "it is not the pinned one",
}
"""Codes of certificates that are not trusted, and the reason of each."""
_VERIFY = {9: "_NOT_YET_VALID", 10: "_EXPIRED", 62: "_WRONG_HOST", 63: "_WRONG_HOST", 64: "_WRONG_HOST"}
"""OpenSSL's numbers."""
_ENDS: ContextVar[float | None] = ContextVar("ends", default=None)
"""When the present call must have ended, on the monotonic clock."""

urllib3.disable_warnings(urllib3.exceptions.SystemTimeWarning)  # the error names the clock


@dataclass(frozen=True)
class Target:
    """Where to connect, and how the server is verified.

    Args:
        host: the real host, name or address, which the certificate must be for.
        port: the real port.
        address: the (host, port) to connect to instead, or None.
        ca_file: a PEM file of the authorities to trust instead of the system's, or None.
        fingerprint: the SHA-256 of the certificate, hex with or without colons, or None; replaces the CA.
        ca: PEM text of the only authority to trust, or "".
        identity: our client certificate and its key, or None.
        server_name: the name in the certificate, if it is not `host`.
        scheme: "https", or "http" for a server without TLS.
    """

    host: str
    port: int
    address: tuple[str, int] | None = None
    ca_file: str | None = None
    fingerprint: str | None = None
    ca: str = field(default="", repr=False)
    identity: KeyPair | None = field(default=None, repr=False)
    server_name: str = ""
    scheme: str = "https"

    @property
    def name(self) -> str:
        """The real host and port, and the address if it is another."""
        real = f"{self.host}:{self.port}"
        reached = "{}:{}".format(*self.address) if self.address else real
        return real if reached == real else f"{real} (at {reached})"

    @property
    def endpoint(self) -> str:
        """The host and port to connect to."""
        host, port = self.address or (self.host, self.port)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def url(self) -> str:
        """The real URL, without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == PORTS[self.scheme] else f":{self.port}")

    def context(self) -> ssl.SSLContext:
        """A TLS client context; with a pinned fingerprint the chain is not verified, because the pin is stricter.

        Raises:
            OSError: the CA file cannot be read (`ssl.SSLError` if it, the CA or the identity is no certificate).
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = _TlsSocket
        if self.ca or self.ca_file:
            context.load_verify_locations(cafile=self.ca_file, cadata=self.ca or None)
        else:
            context.load_default_certs()
            context.load_verify_locations(where())  # beside the system's, which may be empty
        if self.identity:
            load_identity(context, self.identity)
        if self.fingerprint:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # urllib3 compares the fingerprint before a byte is sent
        return context


@dataclass(frozen=True)
class Answer:
    """An answer that was read completely."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text, bytes that are not UTF-8 replaced."""
        return self.body.decode(errors="replace").strip()


Refusal = Callable[[Answer, str], OutsideError]
"""The error for an answer and for what was tried."""


class HttpClient:
    """One server. Blocking and thread-safe.

    Args:
        target: where it is.
        system: as in `OutsideError`.
        name: the server's name in messages, such as "the Image Factory".
        headers: sent with every request.
        secrets: values that no error may show, since a server may repeat what it received.
        facts: values for the catalogue's commands.
        threads: connections that are kept.
        proxies: use the proxy of the environment, if the address is not mapped and no certificate is pinned.
        deadline: seconds for a whole call; `DEADLINE` by default.
        follows: whether a redirect needs a target; a service that has none in its redirects refuses by them.

    Raises:
        Unreachable: the CA file cannot be read.
    """

    def __init__(
        self,
        target: Target,
        *,
        system: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        secrets: Iterable[str] = (),
        facts: Mapping[str, str] | None = None,
        threads: int = 8,
        proxies: bool = True,
        deadline: float | None = None,
        follows: bool = True,
    ) -> None:
        self.target, self.system, self.name, self._follows = target, system, name, follows
        self.facts = {"endpoint": target.endpoint, "url": target.url, **(facts or {})}
        self._headers = {
            "User-Agent": "fluobook",
            "Host": target.url.partition("//")[2],
            "Accept": "application/json, */*;q=0.5",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        self._redactor = Redactor()
        self._redactor.add(*filter(None, secrets))
        self._deadline, self._threads, self._proxies = deadline, threads, proxies
        _ = self._pool

    @cached_property
    def _pool(self) -> urllib3.HTTPConnectionPool:
        target = self.target
        host, port = target.address or (target.host, target.port)
        options: dict[str, Any] = {"maxsize": self._threads}
        if target.scheme == "https":
            try:
                options["ssl_context"] = target.context()
            except OSError as error:
                raise Unreachable(
                    f"the CA file {target.ca_file} of {self.name} cannot be read: {error.strerror or error}",
                    system=self.system,
                    code="CA_FILE",
                    facts={"file": target.ca_file or ""},
                ) from None
            options |= {"server_hostname": target.server_name or target.host, "assert_fingerprint": target.fingerprint}
        is_direct = target.address or target.fingerprint or not self._proxies or proxy_bypass(target.host)
        proxy = "" if is_direct else getproxies().get(target.scheme, "")
        manager = urllib3.PoolManager(**options)
        if proxy:
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
            headers = urllib3.make_headers(proxy_basic_auth=login)
            manager = urllib3.ProxyManager(parts.geturl(), proxy_headers=headers, **options)
        manager.pool_classes_by_scheme = {"https": _TlsPool, "http": _PlainPool}
        return manager.connection_from_host(host, port, target.scheme)

    def close(self) -> None:
        """Close idle connections; a later call opens new ones."""
        self._pool.close()
        del self._pool

    def json(self, method: str, path: str, *, doing: str, shape: answers.Shape = None, **more: Any) -> Any:
        """The JSON of an answer, of the expected types.

        Args:
            method: as in `send`.
            path: as in `send`.
            doing: as in `send`.
            shape: the types, see `answers.mismatch`.
            more: as in `send`.

        Raises:
            OutsideError: as in `send`; InvalidAnswer also if it is not JSON or of other types.
        """
        return self.read(self.send(method, path, doing=doing, **more), doing, shape)

    def read(
        self,
        answer: Answer,
        doing: str,
        shape: answers.Shape = None,
        parse: Callable[[bytes], Any] = answers.parse_json,
    ) -> Any:
        """The data in an answer, of the expected types.

        Raises:
            InvalidAnswer: it is no such data.
        """
        try:
            value = parse(b"" if answers.is_html(answer.body) else answer.body)
        except ValueError as error:
            raise self.unparsable(answer.body, doing, error) from None
        if wrong := answers.mismatch(value, shape):
            raise self.invalid(answers.UNEXPECTED, f"is not of the expected form: {wrong}", doing, body=answer.body)
        return value

    def send(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeat_if: Callable[[FluobookError], bool] | None = None,
        largest: int = 0,
        refusal: Refusal | None = None,
    ) -> Answer:
        """A request and its answer, with a status below 400; redirects on the same host are followed for GET.

        Args:
            method: GET, POST, PUT, PATCH or DELETE.
            path: below the target's URL, with the query.
            doing: what is tried, for messages, as an infinitive: "read the version".
            body: what is sent.
            headers: beside those of the client.
            repeat_if: the request may be made twice, so it is repeated while this is true of its error.
            largest: bytes that the answer may have; `LARGEST` by default.
            refusal: makes the error for a status of 400 or more; `refused` by default.

        Raises:
            Unreachable: no connection, no complete answer within the deadline, or a certificate that is not trusted.
            InvalidAnswer: it is too large, truncated, or leads to another host.
            OutsideError: the server refuses, as `refusal` says.
        """

        def once() -> Answer:
            with closing(self._open(method, path, doing, body, headers)) as response:
                return self._accepted(response, doing, largest or LARGEST, refusal or self.refused)

        with self._limited():
            return retry(
                once,
                if_error=repeat_if or (lambda _: False),
                pauses=RETRY_AFTER if repeat_if else (),
                seconds=self.deadline,
            )

    def stream(
        self, path: str, *, doing: str, silence: float, longest: float, refusal: Refusal
    ) -> urllib3.BaseHTTPResponse:
        """An open answer to a GET, for the caller to read and close.

        Args:
            path: as in `send`.
            doing: as in `send`.
            silence: seconds without data after which the connection is given up.
            longest: seconds for the whole of it.
            refusal: as in `send`.
        """
        with self._limited():
            response = self._open("GET", path, doing, None, None)
            if response.status >= 300:  # noqa: PLR2004
                self._accepted(response, doing, LARGEST, refusal)
        sock = getattr(response.connection, "sock", None)
        if isinstance(sock, _Timed):
            sock.silence, sock.ends = silence, time.monotonic() + longest
        return response

    def lines(self, response: urllib3.BaseHTTPResponse, doing: str, silence: float) -> Iterator[bytes]:
        """The lines of an open answer, as they come; empty ones are left out."""
        rest = b""
        with self.translated(doing, silence):
            chunks = (
                response.read_chunked(decode_content=False)
                if response.chunked
                else iter(lambda: response.read1(CHUNK, decode_content=False), b"")
            )
            for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                yield from filter(None, lines)
                if len(rest) > LARGEST:
                    raise self.invalid(answers.TOO_LARGE, f"has a line of more than {LARGEST >> 20} MiB", doing)
        if rest.strip():
            yield rest

    @property
    def deadline(self) -> float:
        """Seconds for a whole call."""
        return DEADLINE if self._deadline is None else self._deadline

    @contextmanager
    def _limited(self) -> Iterator[None]:
        ends = _ENDS.set(time.monotonic() + self.deadline)
        try:
            yield
        finally:
            _ENDS.reset(ends)

    def _open(
        self, method: str, path: str, doing: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> urllib3.BaseHTTPResponse:
        """The answer's head; redirects on the same host are followed."""
        for _ in range(MOST_REDIRECTS):
            left = max(0.001, (_ENDS.get() or 0) - time.monotonic())
            with self.translated(doing):
                response = self._pool.urlopen(
                    method,
                    self.target.url + path if self._pool.proxy and self.target.scheme == "http" else path,
                    body=body,
                    headers={**self._headers, **(headers or {})},
                    timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT, left), read=left),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
            if not self._follows and "Location" not in response.headers:
                return response
            if response.status not in (301, 302, 303, 307, 308):
                return response
            response.close()
            path = self._redirected(response, path, doing, follows=method == "GET")
        raise self.invalid(answers.REDIRECT, f"redirects more than {MOST_REDIRECTS} times", doing)

    def _redirected(self, response: urllib3.BaseHTTPResponse, path: str, doing: str, *, follows: bool) -> str:
        here = self.target.url
        try:
            location = response.headers.get("Location") or ""
            there = urljoin(here + path, location)
            parts = urlsplit(there)
            port = parts.port or PORTS.get(parts.scheme)
        except ValueError:
            there, parts, port = "an invalid URL", urlsplit(""), None
        same = (parts.scheme, parts.hostname, port) == (self.target.scheme, self.target.host.lower(), self.target.port)
        if same and follows and there != here + path:
            return there.removeprefix(f"{parts.scheme}://{parts.netloc}").partition("#")[0] or "/"
        to = f"to {answers.public_url(there)}" if location else "without a target"
        cause = ""
        if not location or there == here + path:
            to, cause = to if not location else "to itself", "the server, or a proxy before it, is configured wrongly"
        error = self.invalid(answers.REDIRECT, f"is a redirect ({response.status}) {to}", doing)
        error.cause, error.location = cause, there
        raise error

    def _content(self, response: urllib3.BaseHTTPResponse, doing: str, largest: int) -> bytes:
        """The body, read within the deadline and the limit."""
        parts, size = [], 0
        with self.translated(doing):
            for part in response.stream(CHUNK, decode_content=False):
                parts.append(part)
                size += len(part)
                if size > largest:
                    break
        content = b"".join(parts)
        if size <= largest and response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            unpacker = zlib.decompressobj(wbits=47)
            try:
                content = unpacker.decompress(content, largest + 1)
            except zlib.error:
                raise self.invalid(answers.MALFORMED, "cannot be unpacked", doing) from None
            if not unpacker.eof and len(content) <= largest:
                raise self.invalid(answers.TRUNCATED, "is incomplete", doing)
        if len(content) > largest:
            raise self.invalid(answers.TOO_LARGE, f"is larger than {largest >> 20} MiB", doing)
        return content

    def _accepted(self, response: urllib3.BaseHTTPResponse, doing: str, largest: int, refusal: Refusal) -> Answer:
        """The complete answer, if its status is below 300; the caller closes the response."""
        content = self._content(response, doing, largest)
        answer = Answer(response.status, response.reason or "", response.headers, content)
        if answer.status == 206:  # noqa: PLR2004
            raise self.invalid(answers.TRUNCATED, "is only a part (206)", doing, body=answer.body)
        if answer.status < 300:  # noqa: PLR2004
            return answer
        if not (400 if self._follows else 300) <= answer.status < 600:  # noqa: PLR2004
            raise self.invalid(answers.UNEXPECTED, f"has status {answer.status}", doing, body=answer.body)
        error = refusal(answer, doing)
        if answer.status in (429, 503):
            error.retry_after = answers.retry_after(answer.headers.get("Retry-After"))
        raise error

    def refused(self, answer: Answer, doing: str) -> OutsideError:
        """The error for a status of 400 or more."""
        kind = answers.error_of(answer.status)
        is_page, shown = answers.is_html(answer.body), self.shown(answer.body)
        reason = f"with {answers.page_of(answer.body)}" if is_page else shown or answer.reason
        return kind(
            self._redactor.text(f"{self.name} refused to {doing}: {answer.status} {reason}".strip()),
            system=self.system,
            detail=self._redactor.text(f"{answer.status} {answer.reason}\n{shown if is_page else answer.text}")[:2000],
            code=str(answer.status),
            cause=f"{answers.page_of(answer.body)} answers: a proxy or a login service stands before {self.name}"
            if is_page and kind is AccessDenied
            else "",
            facts={**self.facts, "status": str(answer.status)},
        )

    def refused_by_page(self, answer: Answer, doing: str) -> OutsideError:
        """The error for a web page from a server that has none; with 404 it says nothing about what was asked for."""
        if answer.status == 404:  # noqa: PLR2004
            return self.invalid(answers.HTML, f"is {answers.page_of(answer.body)} (404)", doing, body=answer.body)
        return self.refused(answer, doing)

    def unparsable(self, body: bytes, doing: str, error: Exception) -> InvalidAnswer:
        """The error for an answer, or a line of one, that is not in the expected format."""
        code, reason = answers.MALFORMED, f"cannot be parsed ({answers.reason_of(error)})"
        if not body.strip():
            code, reason = answers.EMPTY, "is empty"
        elif answers.is_html(body):
            code, reason = answers.HTML, f"is {answers.page_of(body)}"
        elif answers.is_incomplete(error):
            code, reason = answers.TRUNCATED, f"is incomplete ({answers.reason_of(error)})"
        return self.invalid(code, reason, doing, body=body)

    def shown(self, body: bytes) -> str:
        """The beginning of an answer, for messages."""
        clean = self._redactor.text(body[: 1 << 14].decode(errors="surrogateescape"))
        return answers.first_bytes(clean.encode(errors="surrogateescape"))

    def invalid(
        self, code: str, reason: str, doing: str, *, body: bytes = b"", facts: Mapping[str, str] | None = None
    ) -> InvalidAnswer:
        """The error for an answer that cannot be used; `reason` is a clause without its subject."""
        message = f"the answer of {self.name} at {self.target.name} {reason}; could not {doing}"
        return InvalidAnswer(
            self._redactor.text(message),
            system=self.system,
            detail=f"it begins with: {self.shown(body)}" if body.strip() else "",
            code=code,
            facts={**self.facts, **(facts or {})},
        )

    @contextmanager
    def translated(self, doing: str, seconds: float | None = None) -> Iterator[None]:
        """Turn exceptions of the connection into ours; `seconds` is the deadline that a message names.

        Raises:
            Unreachable: there is no connection, or it ended.
            InvalidAnswer: what came is not HTTP, or incomplete.
        """
        try:
            yield
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._broken(error, doing, seconds or self.deadline) from None

    def _broken(self, error: Exception, doing: str, seconds: float) -> OutsideError:
        code = code_of(error)
        if code in (answers.MALFORMED, answers.TRUNCATED):
            reason = "is incomplete" if code == answers.TRUNCATED else "is not HTTP"
            return self.invalid(code, f"{reason} ({reason_of(error)})", doing)
        at, text = f"{self.name} at {self.target.name}", reason_of(error)
        message = f"{self.name} does not answer at {self.target.name}; could not {doing}"
        if code in UNTRUSTED:
            message = f"the certificate of {at} is not trusted: {UNTRUSTED[code]}"
            text += f"\n{presented(self.target)}"
        elif code == OVERDUE:
            message = f"{at} did not answer completely within {seconds:g} s; could not {doing}"
        elif code in (NOT_TLS, TLS_ALERT, TLS_ALERT_EXPIRED):
            message = f"{at} " + ("does not speak TLS" if code == NOT_TLS else "refuses the TLS connection")
            message += f"; could not {doing}"
        elif code in (PROXY, "407"):
            message = f"the proxy does not connect to {at}; could not {doing}"
        text = self._redactor.text(text)
        kind = AccessDenied if code == "407" else Unreachable
        return kind(self._redactor.text(message), system=self.system, detail=text, code=code, facts=self.facts)


def is_passing(error: FluobookError) -> bool:
    """Whether the same call may succeed a moment later: no connection, no complete answer, or a 5xx.

    Says nothing about whether a call that changes something was carried out.
    """
    if isinstance(error, Unreachable):
        return error.code in NO_CONNECTION - {TIMED_OUT} or error.code.isdigit()
    if isinstance(error, InvalidAnswer):
        return error.code == answers.TRUNCATED
    return type(error) is OutsideError and error.code.startswith("5")


_CODES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((ssl.SSLEOFError, ConnectionResetError, BrokenPipeError), LOST),
    ((ConnectionRefusedError,), "ECONNREFUSED"),
    ((socket.gaierror, urllib3.exceptions.NameResolutionError, UnicodeError), DNS),
    ((urllib3.exceptions.NewConnectionError,), ""),
    ((urllib3.exceptions.ConnectTimeoutError,), TIMED_OUT),
    ((TimeoutError, urllib3.exceptions.TimeoutError), OVERDUE),
    ((http.client.IncompleteRead, urllib3.exceptions.IncompleteRead), answers.TRUNCATED),
    ((urllib3.exceptions.InvalidChunkLength,), answers.TRUNCATED),
    ((http.client.HTTPException, urllib3.exceptions.InvalidHeader, ValueError), answers.MALFORMED),
)


def code_of(error: BaseException) -> str:
    """The code of a connection's error: one of this module's, TRUNCATED or MALFORMED, or the name of an errno."""
    links = list(_links(error))
    text = " ".join(str(link) for link in links)
    if any(isinstance(link, urllib3.exceptions.ProxyError) for link in links):
        return "407" if " 407 " in text else PROXY
    verification = next((link for link in links if isinstance(link, ssl.SSLCertVerificationError)), None)
    if verification or "Fingerprint" in text:
        return CERTIFICATE + (_VERIFY.get(verification.verify_code, "") if verification else "_NOT_PINNED")
    if code := next((code for kinds, code in _CODES if any(isinstance(link, kinds) for link in links)), ""):
        return code
    if tls := next((link for link in links if isinstance(link, ssl.SSLError)), None):
        reason = getattr(tls, "reason", "") or ""
        alert = TLS_ALERT_EXPIRED if "CERTIFICATE_EXPIRED" in reason else TLS_ALERT
        return LOST if "EOF" in reason else alert if "ALERT" in reason else NOT_TLS
    return next((errno.errorcode[link.errno] for link in links if isinstance(link, OSError) and link.errno), LOST)


_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((http.client.RemoteDisconnected,), "the server closed the connection without an answer"),
    ((http.client.BadStatusLine,), "its first line has no status"),
    ((http.client.LineTooLong,), "a line of its head is too long"),
    ((urllib3.exceptions.InvalidChunkLength,), "the length of a chunk is no number"),
    ((http.client.IncompleteRead, urllib3.exceptions.IncompleteRead), "it is shorter than announced"),
    ((TimeoutError, urllib3.exceptions.TimeoutError), "nothing came in time"),
)


def reason_of(error: BaseException) -> str:
    """Why a connection failed, as the server's or the system's own words, or in ours where a library has none."""
    links = list(_links(error))
    if words := next((words for kinds, words in _REASONS if any(isinstance(link, kinds) for link in links)), ""):
        return words
    system = next((link for link in reversed(links) if isinstance(link, OSError) and link.strerror), None)
    return str(getattr(system, "verify_message", "") or getattr(system, "strerror", "") or links[-1])


def _links(error: BaseException) -> Iterator[BaseException]:
    """The error and those inside it: urllib3 wraps what the system raised."""
    pending, visited = [error], set[int]()
    while pending:
        link = pending.pop(0)
        if id(link) not in visited:
            visited.add(id(link))
            yield link
            inner = [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]
            pending += [part for part in inner if isinstance(part, BaseException)]


def shown_certificate(target: Target) -> bytes:
    """The certificate (DER) that the target shows, whether it is trusted or not; nothing is sent to it.

    Raises:
        OSError: nothing answers, or it shows none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        closing(socket.create_connection(target.address or (target.host, target.port), CONNECT_TIMEOUT)) as sock,
        context.wrap_socket(sock, server_hostname=target.server_name or target.host) as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


def presented(target: Target) -> str:
    """The certificate that the target shows, for messages."""
    try:
        der = shown_certificate(target)
    except OSError:
        return "SHA-256 fingerprint seen: none"
    lines = [f"SHA-256 fingerprint seen: {hashlib.sha256(der).digest().hex(':').upper()}"]
    try:
        certificate = x509.load_der_x509_certificate(der)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        lines += [f"subject {certificate.subject.rfc4514_string()}, issuer {certificate.issuer.rfc4514_string()}"]
        lines += [f"valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"]
        lines += [time.strftime("this machine's clock shows %Y-%m-%d %H:%M UTC", time.gmtime())]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        lines += ["names " + ", ".join(str(name.value) for name in names)]
    except (ValueError, x509.ExtensionNotFound):
        pass  # the fingerprint is enough
    return "\n".join(lines)


class _Timed:
    """A socket whose every operation ends by the deadline of the call, or by its own if it has one."""

    ends: float | None = None
    silence = float("inf")

    def recv_into(self, *args: Any, **options: Any) -> int:
        """As of a socket."""
        self._limit()
        return super().recv_into(*args, **options)  # type: ignore[misc]

    def send(self, *args: Any, **options: Any) -> int:
        """As of a socket."""
        self._limit()
        return super().send(*args, **options)  # type: ignore[misc]

    def _limit(self) -> None:
        ends = _ENDS.get() if self.ends is None else self.ends
        if ends is not None:
            left = min(self.silence, ends - time.monotonic())
            if left <= 0:
                raise TimeoutError("the deadline of the call is over")
            self.settimeout(left)  # type: ignore[attr-defined]


class _PlainSocket(_Timed, socket.socket):
    pass


class _TlsSocket(_Timed, ssl.SSLSocket):
    pass


class _Connection:
    """Wraps the new socket; TLS wraps it once more."""

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        timeout = sock.gettimeout()
        timed = _PlainSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        timed.settimeout(timeout)
        return timed


class _PlainConnection(_Connection, HTTPConnection):
    pass


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
