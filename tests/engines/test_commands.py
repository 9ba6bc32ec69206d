"""kubectl and helm, typed as people type them, on both engines: the same words and the same exit codes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.engines.cases import config_map, deployment
from tests.engines.environments import go_program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engines.engine import Engine

_CHANCE = (
    (re.compile(r'Invalid value: "(\{|map\[).*(?=: strict)', re.DOTALL), "OBJECT"),
    (re.compile(r"\b\d+(\.\d+)?(ms|s|m|h|d)\d*s?\b"), "AGE"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b"), "UID"),
    (re.compile(r"\bweb-[0-9a-f]+(-[0-9a-z]+)?\b"), "web-POD"),
    (re.compile(r"\b10\.\d+\.\d+\.\d+\b"), "ADDRESS"),
    (re.compile(r"/tmp/\S+"), "FILE"),  # noqa: S108 (what diff prints)
    (re.compile(r"resourceVersion: \S+"), "resourceVersion: VERSION"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\S+( [+-]\d{4})?"), "TIME"),
    (re.compile(r"[ \t]+"), " "),
)


def web(replicas: int) -> str:
    """A Deployment that its controller works on."""
    made = deployment("web", replicas=replicas)
    del made["spec"]["paused"]
    return json.dumps(made)


WEB, MORE = web(1), web(2)
TYPO = json.dumps(deployment("web", replica=2))
SCRIPTS: dict[str, list[tuple[str, str]]] = {
    "things are created, shown and removed": [
        ("create namespace shop", ""),
        ("create namespace shop", ""),
        ("create configmap settings -n shop --from-literal=a=b", ""),
        ("create secret generic key -n shop --from-literal=a=b", ""),
        ("create serviceaccount robot -n shop", ""),
        ("create role reader -n shop --verb=get --resource=pods", ""),
        ("create rolebinding reads -n shop --role=reader --user=ann", ""),
        ("get configmap settings -n shop", ""),
        ("get configmap settings -n shop -o jsonpath={.data}", ""),
        ("get secret,sa,role,rolebinding -n shop -o name", ""),
        ("auth can-i get pods -n shop --as ann", ""),
        ("auth can-i delete pods -n shop --as ann", ""),
        ("get configmap missing -n shop", ""),
        ("get nonsense", ""),
        ("delete configmap settings -n shop", ""),
        ("delete configmap settings -n shop", ""),
        ("label namespace shop tier=front", ""),
        ("label namespace shop tier=back", ""),
        ("annotate namespace shop why=test", ""),
        ("delete namespace shop", ""),
    ],
    "a workload is applied, watched, changed and removed": [
        ("apply -f -", WEB),
        ("apply -f -", WEB),
        ("apply -f -", TYPO),
        ("rollout status deployment/web --timeout=120s", ""),
        ("get deployment web", ""),
        ("wait --for=condition=Available deployment/web --timeout=120s", ""),
        ("diff -f -", WEB),
        ("apply -f -", MORE),
        ("rollout status deployment/web --timeout=120s", ""),
        ("scale deployment web --replicas=1", ""),
        ("wait --for=jsonpath={.status.readyReplicas}=1 deployment/web --timeout=120s", ""),
        ("set image deployment/web main=lab.invalid/main:2", ""),
        ("rollout status deployment/web --timeout=120s", ""),
        ("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}", ""),
        ('patch deployment web -p {"spec":{"paused":true}}', ""),
        ("get deploy -l app=web -o custom-columns=N:.metadata.name,R:.spec.replicas", ""),
        ("delete deployment web --wait=true", ""),
        ("wait --for=delete deployment/web --timeout=60s", ""),
    ],
    "server-side apply tells of conflicts": [
        ("apply --server-side --field-manager=one -f -", json.dumps(config_map("shared", a="1"))),
        ("apply --server-side --field-manager=two -f -", json.dumps(config_map("shared", a="2"))),
        ("apply --server-side --field-manager=two --force-conflicts -f -", json.dumps(config_map("shared", a="2"))),
        ("apply --server-side --dry-run=server --field-manager=one -f -", json.dumps(config_map("shared", a="2"))),
        ("delete configmap shared", ""),
    ],
    "the cluster explains itself": [
        ("api-versions", ""),
        ("version -o json", ""),
        ("get csr nothing", ""),
        ("certificate approve nothing", ""),
        ("cordon worker-1", ""),
        ("uncordon worker-1", ""),
        ("auth can-i --list --as nobody -n default --no-headers=true", ""),
    ],
}

DIFFERENT = {
    "version -o json": "the build of the program",
    "auth can-i --list --as nobody -n default --no-headers=true": "the rules of everybody are told in short",
}
"""Commands whose output differs on purpose; that both succeed or fail is compared all the same, as for a refusal."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_kubectl_says_the_same(name: str, both: tuple[Engine, Engine]) -> None:
    for line, stdin in SCRIPTS[name]:
        ours, theirs = (said(engine, "kubectl", *line.split(" "), stdin=stdin) for engine in both)
        if line in DIFFERENT or stdin == TYPO:
            ours, theirs = ours[0], theirs[0]  # type: ignore[assignment]
        assert ours == theirs, line


@pytest.fixture(scope="module")
def helms() -> dict[int, str]:
    """The helm that is run here, and the one before, which many people still have."""
    return {4: "helm", 3: go_program("helm.sh/helm/v3/cmd/helm", "v3.20.0")}


@pytest.mark.parametrize("major", [4, 3])
def test_helm_installs_upgrades_rolls_back_and_removes_on_both(
    major: int, helms: dict[int, str], both: tuple[Engine, Engine], tmp_path: Path
) -> None:
    chart = tmp_path / "demo"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: demo\nversion: 0.1.0\nkubeVersion: '>=1.30.0-0'\n")
    (chart / "values.yaml").write_text("word: one\n")
    (chart / "templates" / "map.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: demo}\ndata: {word: {{ .Values.word }}}\n"
    )
    assert said(both[1], helms[major], "version", "--short")[1][0].startswith(f"v{major}.")
    for line in (
        f"install demo {chart} -n demo --create-namespace --wait",
        f"install demo {chart} -n demo",
        f"upgrade demo {chart} -n demo --set word=two --wait",
        "history demo -n demo --max 5",
        "rollback demo 1 -n demo --wait",
        "get values demo -n demo",
        "status demo -n demo",
        "list -n demo -o json",
        "uninstall demo -n demo --wait",
        "status demo -n demo",
    ):
        ours, theirs = (said(engine, helms[major], *line.split(" ")) for engine in both)
        assert ours == theirs, line


def said(engine: Engine, tool: str, *args: str, stdin: str = "") -> tuple[int, Any]:
    code, text = engine.run(tool, *args, stdin=stdin)
    text = re.sub(r"LAST DEPLOYED: .*|(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w+ +\d+ [\d:]+ \d+", "TIME", text)
    for pattern, word in _CHANCE:
        text = pattern.sub(word, text)
    lines = [line.strip() for line in text.splitlines() if not line.startswith("Waiting for deployment")]
    return code, [line for line in lines if not line.startswith("Warning: would violate PodSecurity")]
