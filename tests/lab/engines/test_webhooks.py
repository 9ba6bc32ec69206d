"""The lab's answer to admission webhooks: over TLS that the configuration trusts, once the Service has a ready pod."""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import Any

import aiohttp
import pytest
from fluobook_lab.clock import Clock
from fluobook_lab.engines.webhooks import API, Webhooks
from fluobook_lab.kube.store import Store

KEY = ("ValidatingWebhookConfiguration", "checks")
NAME = "checker.default.svc"
LABELS = {"app": "checker"}
REVIEW = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "7"}}


@pytest.fixture
def store() -> Store:
    store = Store(seed=1)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "checker", "namespace": "default"}}
    store.create({**service, "spec": {"clusterIP": "10.96.0.9", "selector": LABELS, "ports": [{"port": 443}]}})
    clients: list[dict[str, Any]] = [{"service": {"name": "checker", "namespace": "default"}}]
    clients.append({"url": "https://elsewhere.example.org"})
    hooks = [{"name": f"{number}.example.org", "clientConfig": client} for number, client in enumerate(clients)]
    common = {"sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": []}
    head = {"apiVersion": API, "kind": KEY[0], "metadata": {"name": KEY[1]}}
    store.create({**head, "webhooks": [{**hook, **common} for hook in hooks]})
    return store


@pytest.fixture
def ready(store: Store) -> None:
    metadata = {"name": "checker-0", "namespace": "default", "labels": LABELS}
    spec = {"containers": [{"name": "main", "image": "lab.invalid/main:1"}]}
    pod = store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    store.set_status(pod, {"conditions": [{"type": "Ready", "status": "True"}]})


def test_without_a_ready_pod_the_service_leads_nowhere(store: Store) -> None:
    ports = {"10.96.0.9:443": 4}
    Webhooks(store, Clock(60), ports).reconcile(KEY)
    assert ports == {}


@pytest.mark.usefixtures("ready")
def test_only_webhooks_of_services_get_the_labs_authority(store: Store) -> None:
    Webhooks(store, Clock(60), {}).reconcile(KEY)
    hooks = store.get(API, *KEY)["webhooks"]
    assert ["caBundle" in hook["clientConfig"] for hook in hooks] == [True, False]


@pytest.mark.usefixtures("ready")
def test_a_review_is_admitted_under_the_name_of_the_service(store: Store) -> None:
    async def ask() -> Any:
        ports: dict[str, int] = {}
        webhooks = Webhooks(store, Clock(60), ports)
        await webhooks.start()
        try:
            webhooks.reconcile(KEY)
            bundle = store.get(API, *KEY)["webhooks"][0]["clientConfig"]["caBundle"]
            trust = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
            url = f"https://127.0.0.1:{ports['10.96.0.9:443']}/validate?timeout=10s"
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, json=REVIEW, ssl=trust, server_hostname=NAME) as response,
            ):
                return await response.json()
        finally:
            await webhooks.stop()

    answer = asyncio.run(ask())
    assert (answer["kind"], answer["response"]) == ("AdmissionReview", {"uid": "7", "allowed": True})
