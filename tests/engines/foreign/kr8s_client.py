"""kr8s at work on a cluster. Tells what it saw as JSON.

Usage: kr8s_client.py KUBECONFIG NAMESPACE
"""

import json
import sys

import kr8s
from kr8s.objects import ConfigMap, Namespace, new_class

kubeconfig, namespace = sys.argv[1:]
api, observations = kr8s.api(kubeconfig=kubeconfig), []


def record(name, value):
    observations.append([name, value])


def config_map(name, **data):
    metadata = {"name": name, "namespace": namespace, "labels": {"of": "us"}}
    return ConfigMap({"metadata": metadata, "data": data}, api=api)


Namespace({"metadata": {"name": namespace}}, api=api).create()
first = config_map("one", a="1")
first.create()
record("exists", [first.exists(), config_map("missing").exists()])
first.patch({"data": {"b": "2"}})
record("patched", dict(first.data))
first.label({"more": "yes"})
first.annotate({"why": "test"})
first.refresh()
record("labelled", [dict(first.labels), dict(first.annotations)])
config_map("two").create()
record("listed", sorted(item.name for item in api.get("configmaps", namespace=namespace, label_selector="of=us")))
events = []
for event, item in api.watch("configmaps", namespace=namespace, label_selector="of=us"):
    events.append([event, item.name])
    if event == "DELETED":
        break
    if len(events) == 2:
        first.delete()
record("watched", [sorted(events[:2]), events[2:]])
leases = new_class(kind="Lease", version="coordination.k8s.io/v1", namespaced=True, plural="leases")
lease = leases({"metadata": {"name": "mine", "namespace": namespace}, "spec": {"holderIdentity": "ann"}}, api=api)
lease.create()
record("any kind", lease.raw["spec"])
try:
    config_map("two").create()
except kr8s.ServerError as error:
    record("again", str(error))
try:
    config_map("missing").refresh()
except kr8s.NotFoundError as error:
    record("missing", str(error))
record("nodes", sorted(node.name for node in api.get("nodes")))
record("kinds", sorted({kind["name"] for kind in api.api_resources()} & {"pods", "leases", "nodes", "deployments"}))
Namespace.get(namespace, api=api).delete()
sys.stdout.write(json.dumps(observations))
