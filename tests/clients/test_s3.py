"""A bucket: signatures against AWS' published examples, what is read and written, and what a service refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.clock import Clock
from fluobook_lab.faults import ANSWERS
from fluobook_lab.s3 import BucketServer

from fluobook.clients.s3 import Bucket, signature
from fluobook.errors import AccessDenied, InvalidAnswer, NotFound, OutsideError, Rejected, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
PUT = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
S3 = {"region": "us-east-1", "key_id": "AKIAIOSFODNN7EXAMPLE", "secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
SUITE = {"region": "us-east-1", "key_id": "AKIDEXAMPLE", "secret": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
HEADERS = {"host": "examplebucket.s3.amazonaws.com", "x-amz-date": "20130524T000000Z", "x-amz-content-sha256": EMPTY}
PUBLISHED: dict[str, tuple[str, str, dict[str, str], dict[str, str], str]] = {
    "read a part of an object": (
        "GET",
        "/test.txt",
        {},
        {"range": "bytes=0-9"},
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "write an object": (
        "PUT",
        "/test%24file.text",
        {},
        {
            "date": "Fri, 24 May 2013 00:00:00 GMT",
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "x-amz-content-sha256": PUT,
        },
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "read a setting of a bucket": (
        "GET",
        "/",
        {"lifecycle": ""},
        {},
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "list objects": (
        "GET",
        "/",
        {"prefix": "J", "max-keys": "2"},
        {},
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}
"""The examples in Amazon S3's API reference ("Signature Calculations for the Authorization Header")."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_request_is_signed_as_in_the_published_example(name: str) -> None:
    method, path, query, headers, expected = PUBLISHED[name]
    assert signature(method, path, query, {**HEADERS, **headers}, **S3).endswith(f"Signature={expected}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("value2,value2,value1", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"),
        ("value1,value2,value3", "ba17b383a53190154eb5fa66a1b836cc297cc0a3d70a5d00705980573d8ff790"),
    ],
)
def test_a_request_is_signed_as_in_the_test_suite_of_signature_version_4(value: str, expected: str) -> None:
    headers = {"Host": "example.amazonaws.com", "My-Header1": value, "X-Amz-Date": "20150830T123600Z"}
    assert signature("GET", "/", {}, headers, service="service", **SUITE).endswith(expected)


@pytest.fixture
def served(background: Any) -> Iterator[tuple[BucketServer, Callable[..., Bucket]]]:
    """A bucket that lists two objects at a time, and clients of it."""
    server = BucketServer("snapshots", Clock(1), region="eu-central-1", keys={"AKID": "the secret"}, page=2)
    background.run(server.start())
    made: list[Bucket] = []

    def client(**changes: Any) -> Bucket:
        given = {"name": "snapshots", "region": "eu-central-1", "key_id": "AKID", "secret": "the secret"}
        made.append(Bucket(endpoint=f"http://127.0.0.1:{server.port}", **{**given, **changes}))
        return made[-1]

    yield server, client
    for bucket in made:
        bucket.close()
    background.run(server.stop())


def test_objects_are_listed_in_parts_read_and_deleted(served: Any) -> None:
    _, client = served
    bucket = client()
    names = ["fluodata/a.json", "fluodata/b ü&+%.age", "fluodata/c", "other/d"]
    for name in names:
        bucket.write(name, name.encode() * 1000)
    assert bucket.list("fluodata/") == names[:3]
    assert all(bucket.read(name) == name.encode() * 1000 for name in names)
    for _ in range(2):
        bucket.delete(names[0])
    assert bucket.list("") == names[1:]
    with pytest.raises(NotFound, match="NoSuchKey"):
        bucket.read(names[0])


@pytest.mark.parametrize(
    ("changes", "kind", "code", "cause"),
    [
        ({"secret": "another"}, AccessDenied, "SignatureDoesNotMatch", "the secret key does not belong to"),
        ({"key_id": "another"}, AccessDenied, "InvalidAccessKeyId", "does not know the access key"),
        ({"name": "another"}, NotFound, "NoSuchBucket", "no bucket of that name"),
        (
            {"region": "us-east-1"},
            Rejected,
            "AuthorizationHeaderMalformed",
            "in eu-central-1, and the params say us-east-1",
        ),
    ],
)
def test_wrong_settings_are_named(
    served: Any, changes: dict[str, str], kind: type[OutsideError], code: str, cause: str
) -> None:
    _, client = served
    with pytest.raises(kind) as raised:
        client(**changes).list("")
    assert (raised.value.code, cause in raised.value.cause) == (code, True)
    assert "the secret" not in raised.value.detail


@pytest.mark.parametrize(
    ("fault", "kind", "cause"),
    [
        ("s3.access-denied", AccessDenied, "the keys have no right"),
        ("s3.no-such-bucket", NotFound, "no bucket of that name"),
        ("s3.other-region", Rejected, "the bucket is in eu-west-1, and the params say eu-central-1"),
        ("s3.clock-skewed", AccessDenied, r"this machine's clock differs from that of the service by \d+ minutes"),
        ("s3.truncated", InvalidAnswer, ""),
        ("s3.slow-down", Unreachable, ""),
    ],
)
def test_what_a_service_refuses_has_a_cause(
    served: Any, monkeypatch: pytest.MonkeyPatch, fault: str, kind: type[OutsideError], cause: str
) -> None:
    monkeypatch.setattr("fluobook.clients.https.RETRY_AFTER", (0.0,))
    server, client = served
    client().write("fluodata/a.age", b"x")
    server.inject = lambda _: ANSWERS[fault]
    with pytest.raises(kind) as raised:
        client().read("fluodata/a.age")
    assert type(raised.value) is kind
    assert re.search(cause, raised.value.cause)


def test_a_part_of_a_second_of_trouble_is_repeated(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluobook.clients.https.RETRY_AFTER", (0.0,))
    server, client = served
    troubles = [ANSWERS["s3.slow-down"]]
    server.inject = lambda _: troubles.pop() if troubles else None
    client().write("fluodata/a.age", b"x")
    assert server.objects == {"fluodata/a.age": b"x"}


def test_content_that_was_changed_on_its_way_is_refused(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = served
    bucket = client()
    send = bucket._http.send
    monkeypatch.setattr(bucket._http, "send", lambda *a, **k: send(*a, **{**k, "body": b"y"}))
    with pytest.raises(Rejected) as raised:
        bucket.write("a", b"x")
    assert (raised.value.code, server.objects) == ("XAmzContentSHA256Mismatch", {})


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_server_of_the_lab_accepts_what_curl_signs_and_nothing_else(served: Any) -> None:
    server, client = served
    client().write("fluodata/a", b"content")

    def curl(user: str, region: str = "eu-central-1") -> str:
        signed = ["--aws-sigv4", f"aws:amz:{region}:s3", "--user", user, "-H", f"x-amz-content-sha256: {EMPTY}"]
        command = ["curl", "-sS", "--noproxy", "*", *signed, f"http://127.0.0.1:{server.port}/snapshots/fluodata/a"]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout

    assert curl("AKID:the secret") == "content"
    assert "<Code>SignatureDoesNotMatch</Code>" in curl("AKID:another")
    assert "<Code>InvalidAccessKeyId</Code>" in curl("other:the secret")
    assert "<Region>eu-central-1</Region>" in curl("AKID:the secret", "us-east-1")
