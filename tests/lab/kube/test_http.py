"""The API over plain HTTP requests: what clients rely on below kubectl."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import requests

from fluobook.machine.pki import issue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.lab

TIMEOUT = 60
JSON = "application/json"


class Http:
    """Requests as one user."""

    def __init__(self, port: int, ca_file: Path, identity: Path | None = None) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(ca_file)
        self._session.cert = str(identity) if identity else None
        self._url = f"https://127.0.0.1:{port}"

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        all_headers = {"Accept": JSON, **{key.replace("_", "-"): value for key, value in headers.items()}}
        data = json.dumps(body) if body is not None else None
        if data and "Content-Type" not in all_headers:
            all_headers["Content-Type"] = JSON
        return self._session.request(
            method, self._url + path, data=data, headers=all_headers, timeout=TIMEOUT, stream=False
        )

    def lines(self, path: str) -> Iterator[dict[str, Any]]:
        with self._session.get(self._url + path, stream=True, timeout=TIMEOUT) as answer:
            for line in answer.iter_lines(chunk_size=1):
                yield json.loads(line)


@pytest.fixture
def rig(kubernetes: Callable[..., Any]) -> Any:
    return kubernetes(controllers=False)


@pytest.fixture
def http(rig: Any, ca_file: Path, tmp_path: Path) -> Http:
    pair = issue(rig.authority, common_name="admin", organizations=("system:masters",), client=True)
    identity = tmp_path / "admin.pem"
    identity.write_text(pair.key + pair.crt)
    return Http(rig.port, ca_file, identity)


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.mark.parametrize("path", ["/api/v1/nodes", "/readyz", "/version", "/apis"])
def test_nobody_gets_nothing(rig: Any, ca_file: Path, path: str) -> None:
    answer = Http(rig.port, ca_file)("GET", path)
    assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")


def test_a_wrong_token_is_nobody(rig: Any, ca_file: Path) -> None:
    assert Http(rig.port, ca_file)("GET", "/api", Authorization="Bearer a.b").status_code == 401


def test_a_service_account_has_the_rights_that_rbac_gives_it(rig: Any, ca_file: Path, http: Http) -> None:
    http("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "robot"}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    token = http("POST", "/api/v1/namespaces/default/serviceaccounts/robot/token", request).json()["status"]["token"]
    robot, bearer = Http(rig.port, ca_file), {"Authorization": f"Bearer {token}"}
    refusal = robot("GET", CONFIG_MAPS, **bearer)
    assert refusal.status_code == 403
    assert 'User "system:serviceaccount:default:robot" cannot list resource "configmaps"' in refusal.json()["message"]
    role = {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]}
    http("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", role)
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": "default"}
    binding = {"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [subject]}
    http("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding)
    assert robot("GET", CONFIG_MAPS, **bearer).status_code == 200
    assert robot("POST", CONFIG_MAPS, config_map("a"), **bearer).status_code == 403


def test_discovery_in_both_forms_names_the_same_resources(http: Http) -> None:
    accept = "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io"
    aggregated = http("GET", "/apis", Accept=accept)
    assert "as=APIGroupDiscoveryList" in aggregated.headers["Content-Type"]
    aggregated = {
        (item["metadata"]["name"], version["version"], resource["resource"])
        for item in aggregated.json()["items"]
        for version in item["versions"]
        for resource in version["resources"]
    }
    listed = set()
    for group in http("GET", "/apis").json()["groups"]:
        for version in group["versions"]:
            for entry in http("GET", f"/apis/{version['groupVersion']}").json()["resources"]:
                if "/" not in entry["name"]:
                    listed.add((group["name"], version["version"], entry["name"]))
    assert aggregated == listed
    assert ("apps", "v1", "deployments") in aggregated


def test_unknown_paths_and_objects_are_told_apart(http: Http) -> None:
    assert http("GET", "/apis/nowhere/v1/things").text == "404 page not found\n"
    assert http("GET", "/apis/apps/v1/things").json()["message"].startswith("the server could not find")
    missing = http("GET", f"{CONFIG_MAPS}/none")
    assert missing.status_code == 404
    assert missing.json()["details"] == {"name": "none", "kind": "configmaps"}


def test_lists_come_in_pages(http: Http) -> None:
    for number in range(5):
        http("POST", CONFIG_MAPS, config_map(f"c{number}"))
    first = http("GET", f"{CONFIG_MAPS}?limit=2").json()
    assert first["metadata"]["remainingItemCount"] == 3
    names, token = [item["metadata"]["name"] for item in first["items"]], first["metadata"]["continue"]
    while token:
        more = http("GET", f"{CONFIG_MAPS}?limit=2&continue={token}").json()
        names += [item["metadata"]["name"] for item in more["items"]]
        token = more["metadata"].get("continue")
    assert names == ["c0", "c1", "c2", "c3", "c4"]


def test_an_old_page_token_is_gone(rig: Any, http: Http) -> None:
    for number in range(3):
        http("POST", CONFIG_MAPS, config_map(f"c{number}"))
    token = http("GET", f"{CONFIG_MAPS}?limit=1").json()["metadata"]["continue"]
    http("POST", CONFIG_MAPS, config_map("c9"))
    rig.background.call(rig.lab.api.store.storage.compact, ("", "configmaps"))
    answer = http("GET", f"{CONFIG_MAPS}?limit=1&continue={token}")
    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")


def test_a_watch_resumes_from_a_version(http: Http) -> None:
    version = http("POST", CONFIG_MAPS, config_map("a")).json()["metadata"]["resourceVersion"]
    http("POST", CONFIG_MAPS, config_map("b"))
    http("DELETE", f"{CONFIG_MAPS}/a")
    events = list(http.lines(f"{CONFIG_MAPS}?watch=true&resourceVersion={version}&timeoutSeconds=1"))
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]


def test_a_watch_from_a_forgotten_version_gets_410(rig: Any, http: Http) -> None:
    version = http("POST", CONFIG_MAPS, config_map("a")).json()["metadata"]["resourceVersion"]
    http("POST", CONFIG_MAPS, config_map("b"))
    rig.background.call(rig.lab.api.store.storage.compact, ("", "configmaps"))
    events = list(http.lines(f"{CONFIG_MAPS}?watch=true&resourceVersion={version}&timeoutSeconds=5"))
    assert [(event["type"], event["object"]["code"]) for event in events] == [("ERROR", 410)]


def test_initial_events_end_with_a_bookmark(http: Http) -> None:
    http("POST", CONFIG_MAPS, config_map("a"))
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    events = list(http.lines(f"{CONFIG_MAPS}?{query}&timeoutSeconds=1"))
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_an_object_leaves_a_selected_watch_when_its_labels_change(http: Http) -> None:
    labelled = config_map("a")
    labelled["metadata"]["labels"] = {"tier": "front"}
    version = http("POST", CONFIG_MAPS, labelled).json()["metadata"]["resourceVersion"]
    labelled["metadata"]["labels"] = {"tier": "back"}
    http("PUT", f"{CONFIG_MAPS}/a", labelled)
    path = f"{CONFIG_MAPS}?watch=true&labelSelector=tier%3Dfront&resourceVersion={version}&timeoutSeconds=1"
    assert [event["type"] for event in http.lines(path)] == ["DELETED"]


def test_a_stale_update_is_refused(http: Http) -> None:
    old = http("POST", CONFIG_MAPS, config_map("a", x="1")).json()
    http("PUT", f"{CONFIG_MAPS}/a", config_map("a", x="2"))
    answer = http("PUT", f"{CONFIG_MAPS}/a", {**old, "data": {"x": "3"}})
    assert answer.status_code == 409
    assert "the object has been modified" in answer.json()["message"]


def test_a_dry_run_changes_nothing(rig: Any, http: Http) -> None:
    answer = http("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a"))
    assert (answer.status_code, answer.json()["metadata"]["name"]) == (201, "a")
    assert http("GET", f"{CONFIG_MAPS}/a").status_code == 404
    assert not any(request.mutating for request in rig.lab.api.requests)


@pytest.mark.parametrize(
    ("query", "status", "warning"),
    [("fieldValidation=Strict", 400, ""), ("fieldValidation=Warn", 201, 'unknown field "dat"'), ("", 201, "dat")],
)
def test_unknown_fields(http: Http, query: str, status: int, warning: str) -> None:
    answer = http("POST", f"{CONFIG_MAPS}?{query}", {**config_map("a"), "dat": {}})
    assert answer.status_code == status
    assert warning in answer.headers.get("Warning", "").replace("\\", "")
    assert "dat" not in answer.json()


@pytest.mark.parametrize(
    ("media_type", "patch"),
    [
        (
            "application/merge-patch+json",
            {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "b"}]}}}},
        ),
        ("application/json-patch+json", [{"op": "remove", "path": "/spec/template/spec/containers/0"}]),
    ],
)
def test_these_patches_replace_lists(http: Http, deployment: dict[str, Any], media_type: str, patch: Any) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    deployment["spec"]["template"]["spec"]["containers"].append({"name": "b", "image": "b"})
    http("POST", path, deployment)
    patched = http("PATCH", f"{path}/web", patch, Content_Type=media_type).json()
    assert [container["name"] for container in patched["spec"]["template"]["spec"]["containers"]] == ["b"]


def test_a_strategic_patch_merges_lists_by_key(http: Http, deployment: dict[str, Any]) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    http("POST", path, deployment)
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "b"}]}}}}
    patched = http("PATCH", f"{path}/web", patch, Content_Type="application/strategic-merge-patch+json").json()
    assert [container["name"] for container in patched["spec"]["template"]["spec"]["containers"]] == ["b", "main"]


def test_the_request_log_tells_reading_from_changing(rig: Any, http: Http) -> None:
    http("GET", CONFIG_MAPS)
    http("POST", CONFIG_MAPS, config_map("a"))
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
    answer = http("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert answer.json()["status"] == {"allowed": True}
    assert [(request.method, request.status, request.mutating) for request in rig.lab.api.requests] == [
        ("GET", 200, False),
        ("POST", 201, True),
        ("POST", 201, False),
    ]


@pytest.mark.parametrize(("fault", "status"), [("kube.api-500", 500), ("kube.api-429", 429)])
def test_faults_happen_as_often_as_asked(rig: Any, http: Http, fault: str, status: int) -> None:
    rig.faults.add(fault)
    assert [http("GET", CONFIG_MAPS).status_code for _ in range(2)] == [status, 200]
