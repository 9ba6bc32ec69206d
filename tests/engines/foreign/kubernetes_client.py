"""The official Python client at work on a cluster: typed, dynamic, watching. Tells what it saw as JSON.

Usage: kubernetes_client.py KUBECONFIG NAMESPACE
"""

import json
import sys

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException

kubeconfig, namespace = sys.argv[1:]
api = config.new_client_from_config(kubeconfig)
core, observations = client.CoreV1Api(api), []


def record(name, value):
    observations.append([name, value])


def refused(work):
    try:
        work()
    except ApiException as error:
        said = json.loads(error.body)
        return [error.status, said["reason"], said["message"]]
    return None


def config_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": "us"}}, "data": data}


core.create_namespace({"metadata": {"name": namespace}})
first = core.create_namespaced_config_map(namespace, config_map("one", a="1"))
record("created", [first.metadata.name, first.data])
record("again", refused(lambda: core.create_namespaced_config_map(namespace, config_map("one"))))
record("missing", refused(lambda: core.read_namespaced_config_map("missing", namespace)))
record("patched", core.patch_namespaced_config_map("one", namespace, {"data": {"b": "2"}}).data)
listed = core.list_namespaced_config_map(namespace, label_selector="of=us")
record("listed", [item.metadata.name for item in listed.items])

events = []
follow, since = watch.Watch(), listed.metadata.resource_version
core.create_namespaced_config_map(namespace, config_map("two"))
core.delete_namespaced_config_map("one", namespace)
for event in follow.stream(
    core.list_namespaced_config_map, namespace, label_selector="of=us", resource_version=since, timeout_seconds=60
):
    events.append([event["type"], event["object"].metadata.name])
    if event["type"] == "DELETED":
        follow.stop()
record("watched", events)

kinds = dynamic.DynamicClient(api)
maps = kinds.resources.get(api_version="v1", kind="ConfigMap")
record("kind", [maps.name, maps.namespaced, sorted(maps.verbs)])
applied = maps.server_side_apply(
    body=config_map("three", c="3"), name="three", namespace=namespace, field_manager="ours"
)
record("applied", [applied.metadata.name, applied.data.to_dict(), applied.metadata.managedFields[0].manager])
conflict = refused(
    lambda: maps.server_side_apply(
        body=config_map("three", c="4"), name="three", namespace=namespace, field_manager="theirs"
    )
)
record("conflict", conflict)
record("sorted", sorted(item.metadata.name for item in maps.get(namespace=namespace, label_selector="of=us").items))
pages, more = [], None
while more != "":
    page = core.list_namespaced_config_map(namespace, label_selector="of=us", limit=1, _continue=more)
    pages.append([item.metadata.name for item in page.items])
    more = page.metadata._continue or ""
record("pages", pages)
review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}, "user": "nobody"}}
record("access", client.AuthorizationV1Api(api).create_subject_access_review(review).status.allowed)
record("groups", sorted({group.name for group in client.ApisApi(api).get_api_versions().groups} & {"apps", "batch"}))
core.delete_namespace(namespace)
sys.stdout.write(json.dumps(observations))
