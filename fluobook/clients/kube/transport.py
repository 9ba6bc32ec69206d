"""Requests to the Kubernetes API: JSON in and out, of the expected types, with typed errors.

A kubeconfig gives the endpoint and the identity, whose key is never written to a file. Which path a kind has is asked
from the API.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from fluobook.clients import answers
from fluobook.clients.https import DNS, TIMED_OUT, Answer, HttpClient, Target
from fluobook.errors import PHASE, Conflict, FluobookError, NotFound, OutsideError, Unreachable, may_be_starting
from fluobook.machine.pki import KeyPair

Obj = dict[str, Any]
"""A Kubernetes object as JSON."""
Objs = list[Obj]

SYSTEM = "kubernetes"
CONNECTIONS = 16
"""Connections kept open; further threads open more, which are closed after use."""
PAGE = 500
MOST_PAGES = 2000
EXPIRED = ("Expired", "Gone")
"""The list or the version to watch from is too old; the list must be read again from its beginning."""
MOST_EXPIRED = 3
"""Times that a list is read again."""
LIST_DEADLINES = 10
"""Deadlines of one request that all pages of a list may take together."""

KUBELET_UNREACHABLE = "error trying to reach service"

VERSION = {"gitVersion": re.compile(r"v?\d+\.\d+.*")}
WRITTEN = {"metadata": {"name?": str, "uid?": str, "resourceVersion?": str}}
OBJECT = {
    "metadata": {
        "name": str,
        "namespace?": str,
        "uid?": str,
        "resourceVersion?": str,
        "labels?": {},
        "annotations?": {},
    },
    "spec?": {},
    "data?": {},
    "status?": {"conditions?": [{"type": str, "status?": str}]},
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_SPECS: dict[str, dict[str, Any]] = {
    "Service": {"ports?": [{"port": int, "targetPort?": (int, str)}], "selector?": {"*": str}},
    "Pod": {"containers": [{"ports?": [{"name?": str, "containerPort": int}]}]},
    "Lease": {"holderIdentity?": str, "leaseDurationSeconds?": int, "leaseTransitions?": int}
    | {"acquireTime?": _TIME, "renewTime?": _TIME},
}
_OBJECT = re.compile(r"\w+ (?P<kind>[A-Z]\w+) ((?P<namespace>[^/\s]+)/)?(?P<name>[^/\s]+)")
"""What is tried with an object, in messages: "apply Deployment web/shop"."""
_KINDS = {"resources": [{"name": str, "kind": str, "namespaced": bool}]}
"""The types of what is read."""


def shape_of(kind: str) -> dict[str, Any]:
    """The types of an object of a kind."""
    return {**OBJECT, "spec": _SPECS[kind]} if kind in _SPECS else OBJECT


def endpoint(kubeconfig: Mapping[str, Any], *, address: tuple[str, int] | None = None) -> tuple[Target, str]:
    """Where the current context of a kubeconfig leads, and its bearer token ("" for a certificate).

    Args:
        kubeconfig: its content.
        address: where to connect to instead of `server`; the certificate is still verified for the real name.

    Raises:
        FluobookError: it has no current context, or lacks the CA or the user's identity.
    """
    remedy = f"delete it, then: fluobook run {PHASE} --only bootstrap-kubernetes"
    try:
        context = _named(kubeconfig, "contexts", "context", kubeconfig["current-context"])
        cluster = _named(kubeconfig, "clusters", "cluster", context["cluster"])
        user = _named(kubeconfig, "users", "user", context["user"])
        server = urlsplit(cluster["server"])
        host, port = server.hostname or "", server.port or 443
        ca = base64.b64decode(cluster["certificate-authority-data"], validate=True).decode()
        token = str(user.get("token") or "")
        pair = {} if token else {"crt": user["client-certificate-data"], "key": user["client-key-data"]}
        target = Target(
            host,
            port,
            address=None if address == (host, port) else address,
            ca=ca,
            identity=KeyPair.from_base64(pair) if pair else None,
            server_name=cluster.get("tls-server-name") or host,
        )
    except (KeyError, StopIteration, TypeError, AttributeError, ValueError) as error:
        problem = f"no {error.args[0]!r}" if isinstance(error, KeyError) else "a part that cannot be read"
        raise FluobookError(f"the kubeconfig has {problem}", cause="fluobook did not write it", remedy=remedy) from None
    try:
        target.context()
    except ssl.SSLError as error:
        message = f"the certificates in the kubeconfig cannot be used: {error.reason}"
        raise FluobookError(message, remedy=remedy) from None
    return target, token


def _named(kubeconfig: Mapping[str, Any], section: str, part: str, name: str) -> dict[str, Any]:
    return next(entry[part] for entry in kubeconfig[section] if entry["name"] == name)


class Kind(NamedTuple):
    """One kind in one version, and where its objects are."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, name: str = "", namespace: str = "", subresource: str = "") -> str:
        """The path of an object, or of the collection if no name is given."""
        root = "/apis/" if "/" in self.api_version else "/api/"
        place = ["namespaces", namespace] if self.namespaced and namespace else []
        return root + "/".join(filter(None, [self.api_version, *place, self.plural, name, subresource]))


class Transport:
    """One cluster, as one user: requests, kinds and reads; safe for threads.

    Args:
        at: the endpoint and the identity.
        token: a bearer token; "" for the identity's certificate.
        deadline: seconds for a request.
    """

    def __init__(self, at: Target, token: str = "", *, deadline: float | None = None) -> None:
        self._deadline = deadline
        self._connect(at, token)
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._lock = threading.Lock()

    def identify(self, kubeconfig: Mapping[str, Any]) -> None:
        """Use the identity and the authorities of another kubeconfig from now on; what is in progress ends as it began.

        Raises:
            FluobookError: it is not a usable kubeconfig.
        """
        before = self.http
        self._connect(*endpoint(kubeconfig))
        before.close()

    def _connect(self, at: Target, token: str) -> None:
        self.at = at
        self.http = HttpClient(
            at,
            system=SYSTEM,
            name="the Kubernetes API",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            secrets=(token,),
            threads=CONNECTIONS,
            proxies=False,
            deadline=self._deadline,
        )
        self.close = self.http.close

    def kind(self, api_version: str, kind: str) -> Kind:
        """The kind as the API serves it; asked again while it is unknown, since its CRD may be installed later.

        Raises:
            NotFound: the API does not serve it.
            OutsideError: no answer, or a refusal.
        """
        with self._lock:
            if (api_version, kind) not in self._kinds:
                self._discover(api_version)
            if served := self._kinds.get((api_version, kind)):
                return served
        raise NotFound(
            f"the Kubernetes API does not serve {kind} in {api_version}",
            system=SYSTEM,
            code="NoMatch",
            facts={"group": api_version.rpartition("/")[0], "kind": kind},
        )

    def _discover(self, api_version: str) -> None:
        root = "/apis/" if "/" in api_version else "/api/"
        try:
            resources = self.call("GET", root + api_version, what="list the kinds", shape=_KINDS)["resources"]
        except NotFound:
            if api_version == "v1":  # every Kubernetes API serves it
                raise
            return
        for entry in resources:
            if "/" not in entry["name"]:
                served = Kind(api_version, entry["kind"], entry["name"], entry["namespaced"])
                self._kinds[(api_version, entry["kind"])] = served

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        shape: answers.Shape = None,
        **more: Any,
    ) -> dict[str, Any]:
        """A request and the JSON object of its answer; `more` as in `raw`.

        Args:
            method: as in `raw`.
            path: as in `raw`.
            query: as in `raw`.
            shape: the expected types.
            more: as in `raw`.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        data: dict[str, Any] = self.http.read(self.raw(method, path, query, **more), more["what"], shape or {})
        return data

    def raw(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        what: str,
        body: dict[str, Any] | None = None,
        media_type: str = "application/json",
    ) -> Answer:
        """A request and its answer; a read is repeated while the server is busy, a write never.

        Args:
            method: of HTTP.
            path: begins with "/".
            query: parameters; empty ones are left out.
            what: what is tried, as an infinitive, for messages.
            body: sent as JSON.
            media_type: of the body.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        return self.http.send(
            method,
            with_query(path, query),
            doing=what,
            body=json.dumps(body).encode() if body is not None else None,
            headers={"Accept": "application/json", "Content-Type": media_type},
            repeat_if=is_busy if method == "GET" else None,
            refusal=self.refusal,
        )

    def refusal(self, answer: Answer, what: str) -> OutsideError:
        """The error for an answer with status 400 or more."""
        if answers.is_html(answer.body):
            return self.http.refused_by_page(answer, what)
        try:
            status = answers.parse_json(answer.body)
        except ValueError:
            status = {}
        shown = self.http.shown(answer.body) or answer.reason
        error = refused(what, answer.status, status if isinstance(status, dict) else {}, shown)
        error.facts = {**self.http.facts, **error.facts}
        return error

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Obj:
        """One object.

        Raises:
            NotFound: no such object or kind.
            OutsideError: no answer, or a refusal.
        """
        path, what = self.kind(api_version, kind).path(name, namespace), f"read {title(kind, name, namespace)}"
        shape = {"apiVersion": str, "kind": str, **shape_of(kind)}
        return self.call("GET", path, what=what, shape=shape)

    def find(self, api_version: str, kind: str, name: str, namespace: str = "") -> Obj | None:
        """One object, None if it or its kind does not exist.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        try:
            return self.get(api_version, kind, name, namespace)
        except NotFound:
            return None

    def list(self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> Objs:
        """All objects of a kind (of one namespace, if it is named) that fit the selectors.

        Raises:
            NotFound: no such kind.
            OutsideError: no answer, or a refusal.
        """
        return self.snapshot(api_version, kind, namespace, labels=labels, fields=fields)[0]

    def snapshot(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> tuple[Objs, str]:
        """As `list`, with the resourceVersion to watch from."""
        collection = self.kind(api_version, kind)
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        items: Objs = []
        what = f"list {collection.plural}"
        shape = {"items": [shape_of(kind)], "metadata": {"continue?": str, "resourceVersion?": str}}
        tokens, ends, expired = {""}, time.monotonic() + self.http.deadline * LIST_DEADLINES, 0
        while len(tokens) <= MOST_PAGES and time.monotonic() < ends:
            try:
                answer = self.call("GET", collection.path(namespace=namespace), query, what=what, shape=shape)
            except Conflict as error:
                expired += 1
                if error.code not in EXPIRED or expired > MOST_EXPIRED:
                    raise
                items, tokens, query["continue"] = [], {""}, ""  # the history was compacted between two pages
                continue
            # Items of a list have no kind of their own.
            items += [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]
            query["continue"] = token = answer["metadata"].get("continue") or ""
            if not token:
                return items, answer["metadata"].get("resourceVersion") or ""
            if token in tokens:
                raise self.http.invalid(answers.UNEXPECTED, "has the same `continue` twice, and would never end", what)
            tokens.add(token)
        limit = f"{MOST_PAGES} pages, or takes longer than {self.http.deadline * LIST_DEADLINES:g} s"
        raise self.http.invalid(answers.TOO_LARGE, f"has more than {limit}", what)


def with_query(path: str, query: Mapping[str, str] | None) -> str:
    """A path with parameters; empty ones are left out."""
    given = {key: value for key, value in (query or {}).items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def title(kind: str, name: str, namespace: str) -> str:
    """How messages name an object."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def refused(what: str, code: int, status: Mapping[str, Any], shown: str = "") -> OutsideError:
    """The error for a refusal of the API.

    Args:
        what: what was tried, as an infinitive: "apply Deployment web".
        code: HTTP status.
        status: the answer's Status object, or an empty one.
        shown: the answer if it is no Status.
    """
    message = str(status.get("message") or shown or f"HTTP {code}")
    names = _OBJECT.match(what)
    is_invalid_read = code in (400, 422) and what.startswith(("read ", "list ", "watch "))  # no object was sent
    return answers.error_of(code)(
        f"cannot {what}: {message.splitlines()[0]}",
        system=SYSTEM,
        detail=message if "\n" in message else "",
        code=str(code) if is_invalid_read else str(status.get("reason") or code),
        facts={**(names.groupdict(default="") if names else {}), "status": str(code)},
    )


def is_busy(error: FluobookError) -> bool:
    """Whether a read may be repeated: the server is busy, or the connection ended."""
    if not isinstance(error, Unreachable) or not may_be_starting(error):
        return False
    if KUBELET_UNREACHABLE in error.message:
        return False  # the server is not busy: it reports that a kubelet does not serve yet
    return error.code not in (DNS, TIMED_OUT, "ECONNREFUSED")
