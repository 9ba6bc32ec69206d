"""A TLS server whose every answer is broken, as the table in broken_answers.yaml says; and certificates that are."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import ipaddress
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from fluobook.machine.pki import KeyPair, key_pem, load_identity, new_key, private_key

if TYPE_CHECKING:
    from conftest import Background

TABLE: dict[str, dict[str, Any]] = {
    str(name): row for name, row in yaml.safe_load(Path(__file__).with_name("broken_answers.yaml").read_text()).items()
}
DAY = dt.timedelta(days=1)


class BrokenServer:
    """Gives every request the answer `row`, and counts the requests."""

    def __init__(self, background: Background, context: ssl.SSLContext | None) -> None:
        self.row: dict[str, Any] = {}
        self.requests = 0
        self.head = b""
        self._background, self._tls = background, context is not None
        self._server = background.run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context))
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        self._background.call(self._server.close)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.head = await (reader.readuntil(b"\r\n\r\n") if self._tls else reader.read(1))
            self.requests += 1
            row = self.row["answers"].pop(0) if self.row.get("answers") else self.row
            writer.write(answer(row))
            await writer.drain()
            if then := row.get("then"):
                await self._continue(reader, writer, then)
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _continue(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, then: str) -> None:
        if then == "reset":
            writer.transport.abort()
        while then == "hang" and await reader.read(1 << 16):
            pass
        while then in ("drip", "flood") and not writer.transport.is_closing():
            writer.write(b"1" if then == "drip" else b"1," * (1 << 15))
            await writer.drain()
            await asyncio.sleep(0.02 if then == "drip" else 0)


def answer(row: dict[str, Any]) -> bytes:
    """The bytes of a row."""
    if "send" in row:
        return row["send"].encode("latin-1") + b"x" * row.get("flood_header", 0)
    body = row.get("body", "").encode("latin-1")
    if "repeat" in row:
        body = row["repeat"][0].encode() * row["repeat"][1]
    if "gzip" in row:
        body = gzip.compress(row["gzip"].encode())[: row["cut"]]
    if "bomb" in row:
        body = gzip.compress(b" " * row["bomb"])
    headers = {"Content-Length": str(len(body)), "Connection": "close", **row.get("headers", {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {row.get('status', '200 OK')}\r\n{head}\r\n".encode() + body


def certified(authority: KeyPair, *, begin: int = -1, end: int = 30, host: str = "127.0.0.1") -> ssl.SSLContext:
    """The TLS context of a server with a certificate for a host, valid from `begin` to `end` days from now."""
    now, key = dt.datetime.now(dt.UTC), new_key("ecdsa")
    issuer = x509.load_pem_x509_certificate(authority.crt.encode())
    try:
        name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin * DAY)
        .not_valid_after(now + end * DAY)
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .sign(private_key(authority.key), hashes.SHA256())  # type: ignore[arg-type]
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_identity(context, KeyPair(certificate.public_bytes(Encoding.PEM).decode(), key_pem(key)))
    return context
