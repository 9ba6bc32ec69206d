"""Answers of Talos that lack fields or have other types are ours to report, never a foreign exception."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.clients.rpc import Address, Connection
from fluobook.clients.talos.node import Node, TalosNode
from fluobook.clients.talos.resources import MEMBERS
from fluobook.errors import InvalidAnswer
from fluobook.failures import present
from fluobook.wire.generated import common_pb2, cosi_pb2, machine_pb2

if TYPE_CHECKING:
    from collections.abc import Callable


class Answering(Connection):
    """A connection whose every call has the same answers."""

    def __init__(self, *replies: Any) -> None:
        super().__init__(Address("10.10.0.10", 50000), system="talos")
        self._replies = replies

    def call(self, *_: Any, **__: Any) -> Any:
        return self._replies[0]

    def stream(self, *_: Any, **__: Any) -> Any:
        return iter(self._replies)

    follow = stream


def resource(spec: str) -> Any:
    return cosi_pb2.GetResponse(resource={"metadata": {"id": "x"}, "spec": {"yaml_spec": spec}})


def listed(spec: str) -> Any:
    return cosi_pb2.ListResponse(resource={"metadata": {"id": "x"}, "spec": {"yaml_spec": spec}})


def archive(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


STAGES = [
    "",
    "null",
    "[]",
    "42",
    "stage: [",
    "a: 1",
    "{stage: running, status: 7}",
    "{stage: x, status: {unmetConditions: [1]}}",
]
READS: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "stage": (Node.machine_stage, [resource(spec) for spec in STAGES]),
    "identity": (Node.identity, [resource(spec) for spec in ("[]", "42", "null")]),
    "list": (
        lambda node: node.list(MEMBERS),
        [listed("a: ["), listed("\t- x"), listed("!!python/object:os.system {}")],
    ),
    "version": (Node.version, [machine_pb2.VersionResponse()]),
    "services": (TalosNode.services, [machine_pb2.ServiceListResponse()]),
    "members": (TalosNode.etcd_members, [machine_pb2.EtcdMemberListResponse()]),
    "kubeconfig": (
        TalosNode.kubeconfig,
        [
            common_pb2.Data(bytes=content)
            for content in (
                b"",
                b"<html>login</html>",
                b"\x1f\x8b\x08\x00",
                gzip.compress(b"no archive"),
                archive("kubeconfig", b"apiVersion: v1")[:40],
                archive("elsewhere", b"apiVersion: v1"),
                archive("kubeconfig", b"\xff\xfe"),
            )
        ],
    ),
}


@pytest.mark.parametrize(
    ("read", "reply"),
    [pytest.param(read, reply, id=f"{n}-{i}") for n, (read, rs) in READS.items() for i, reply in enumerate(rs)],
)
def test_an_answer_of_another_form_is_named(read: Callable[[Any], Any], reply: Any) -> None:
    with pytest.raises(InvalidAnswer) as caught:
        read(TalosNode(Answering(reply)))
    assert "talos at 10.10.0.10:50000" in caught.value.message
    assert present(caught.value).failure[:4] in ("F75 ", "F111", "F112")


def test_a_log_without_end_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluobook.clients.talos.node.MOST_BYTES", 100)
    replies = [common_pb2.Data(bytes=b"x" * 60)] * 2
    with pytest.raises(InvalidAnswer, match="larger"):
        TalosNode(Answering(*replies)).logs("kubelet")
