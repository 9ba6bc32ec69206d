"""kr8s at work on a cluster. Tells what it saw as JSON.

Usage: kr8s_client.py KUBECONFIG NAMESPACE
"""

import json
import sys

import kr8s
from kr8s.objects import ConfigMap, Namespace, new_class

kubeconfig, namespace = sys.argv[1:]
api, told = kr8s.api(kubeconfig=kubeconfig), []


def tell(name, seen):
    told.append([name, seen])


def config_map(name, **data):
    metadata = {"name": name, "namespace": namespace, "labels": {"of": "us"}}
    return ConfigMap({"metadata": metadata, "data": data}, api=api)


Namespace({"metadata": {"name": namespace}}, api=api).create()
one = config_map("one", a="1")
one.create()
tell("exists", [one.exists(), config_map("missing").exists()])
one.patch({"data": {"b": "2"}})
tell("patched", dict(one.data))
one.label({"more": "yes"})
one.annotate({"why": "test"})
one.refresh()
tell("labelled", [dict(one.labels), dict(one.annotations)])
config_map("two").create()
tell("listed", sorted(found.name for found in api.get("configmaps", namespace=namespace, label_selector="of=us")))
seen = []
for event, found in api.watch("configmaps", namespace=namespace, label_selector="of=us"):
    seen.append([event, found.name])
    if event == "DELETED":
        break
    if len(seen) == 2:
        one.delete()
tell("watched", [sorted(seen[:2]), seen[2:]])
leases = new_class(kind="Lease", version="coordination.k8s.io/v1", namespaced=True, plural="leases")
lease = leases({"metadata": {"name": "mine", "namespace": namespace}, "spec": {"holderIdentity": "ann"}}, api=api)
lease.create()
tell("any kind", lease.raw["spec"])
try:
    config_map("two").create()
except kr8s.ServerError as error:
    tell("again", str(error))
try:
    config_map("missing").refresh()
except kr8s.NotFoundError as error:
    tell("missing", str(error))
tell("nodes", sorted(node.name for node in api.get("nodes")))
tell("kinds", sorted({kind["name"] for kind in api.api_resources()} & {"pods", "leases", "nodes", "deployments"}))
Namespace.get(namespace, api=api).delete()
sys.stdout.write(json.dumps(told))
