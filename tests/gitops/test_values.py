"""Values that the API server refuses beyond the structure of an object, each with what may be there instead."""

from __future__ import annotations

import pytest
import yaml

from fluobook.gitops.rules import files
from fluobook.gitops.schemas import checked

WORKLOAD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop, labels: {app: shop}}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      volumes: [{name: data, emptyDir: {}}]
      containers:
        - name: shop
          image: shop/shop:1.2.3
          ports: [{name: http, containerPort: 8080}]
          resources: {requests: {cpu: 10m, memory: 32Mi}}
          livenessProbe: {httpGet: {path: /, port: http}}
          volumeMounts: [{name: data, mountPath: /data}]
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: shop}
spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: http}]}
"""
INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: shop}
spec:
  ingressClassName: nginx
  rules:
    - host: shop.example.org
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {name: http}}}}]}
"""
HPA = """\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop, namespace: shop}
spec: {minReplicas: 2, maxReplicas: 4, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}}
"""
CRON = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: tidy, namespace: shop}
spec:
  schedule: "15 3 * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: tidy, image: "busybox:1.37.0"}]}}}}
"""


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (WORKLOAD, "", "", ""),
        (WORKLOAD, "replicas: 2", "replicas: -1", "spec.replicas is -1, less than 0"),
        (WORKLOAD, "replicas: 2", "replicas: 99999999999999999999999", "more than 2147483647"),
        (WORKLOAD, "cpu: 10m", "cpu: 10 m", "cpu is '10 m'; a quantity is 500m"),
        (WORKLOAD, "memory: 32Mi", "memory: 32mb", "a quantity is 500m"),
        (WORKLOAD, "cpu: 10m", "cpu: -1", "cpu is -1, less than 0"),
        (WORKLOAD, "cpu: 10m", "cpu: 0.5", ""),
        (WORKLOAD, "containerPort: 8080", "containerPort: 80800", "more than 65535"),
        (WORKLOAD, "port: http}", 'port: "8080"}', "a port is a number"),
        (WORKLOAD, "name: http,", "name: http_metrics,", "a port's name has at most 15"),
        (WORKLOAD, "image: shop/shop:1.2.3", "image: shop/Shop:1.2.3", "an image is registry/name:tag in lower case"),
        (
            WORKLOAD,
            "image: shop",
            "imagePullPolicy: Allways\n          image: shop",
            "none of Always, IfNotPresent, Never",
        ),
        (WORKLOAD, "volumes:", "restartPolicy: Never\n      volumes:", "its pods are always restarted"),
        (WORKLOAD, "httpGet: {path: /, port: http}", "", "a probe has one of httpGet"),
        (WORKLOAD, "emptyDir: {}", "emptyDir: {}, configMap: {name: a}", "a volume has one source"),
        (WORKLOAD, "replicas: 2", "strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}", "Recreate has no"),
        (
            WORKLOAD,
            "{name: http, containerPort: 8080}",
            "{containerPort: 1}, {containerPort: 1}",
            "containerPort 1 twice",
        ),
        (WORKLOAD, "name: shop, namespace", "name: Shop, namespace", "name is 'Shop'; lower case letters"),
        (WORKLOAD, "namespace: shop", "namespace: Shop", "namespace is 'Shop'; a name has at most 63"),
        (WORKLOAD, "labels: {app: shop}}\nspec", "labels: {app: the shop}}\nspec", "app is 'the shop'; 63 letters"),
        (WORKLOAD, "labels: {app: shop}}\nspec", "labels: {the app: x}}\nspec", "a key is name or example.org/name"),
        (WORKLOAD, "- name: shop", "- nam: shop", "nam is unknown; did you mean 'name'?"),
        (SERVICE, "port: 80", "port: 0", "less than 1"),
        (SERVICE, "ports: [", "type: Loadbalancer, ports: [", "none of ClusterIP, NodePort, LoadBalancer"),
        (SERVICE, "ports: [", "ports: [{port: 81}, ", "ports.0 has no name"),
        (SERVICE, "{name: shop,", "{name: 1shop,", "a letter first"),
        (
            SERVICE,
            "selector: {app: shop}, ports: [{name: http, port: 80, targetPort: http}]",
            "type: ExternalName",
            "no ext",
        ),
        (SERVICE, "ports: [", "ports: [{name: web, port: 80}, ", "has port 80 twice"),
        (WORKLOAD, "memory: 32Mi", "mem: 32Mi", "cpu, memory, ephemeral-storage"),
        (INGRESS, "", "", ""),
        (INGRESS, "path: /,", "path: /shop(/|$),", "only the pathType ImplementationSpecific"),
        (INGRESS, "path: /, pathType: Prefix", "path: /shop(/|$), pathType: ImplementationSpecific", ""),
        (HPA, "", "", ""),
        (HPA, "maxReplicas: 4", "maxReplicas: 1", "minReplicas is more than maxReplicas 1"),
        (CRON, "", "", ""),
        (CRON, "15 3 * * *", "61 3 * * *", "a schedule is minute"),
        (CRON, "15 3 * * *", "15 3 * *", "a schedule is minute"),
        (CRON, "15 3 * * *", "0 3 * * MON-FRI", ""),
        (CRON, "15 3 * * *", "@dayly", "a schedule is minute"),
        (CRON, "restartPolicy: Never", "restartPolicy: Always", "none of OnFailure, Never"),
    ],
)
def test_a_value_that_the_api_refuses_is_one_mismatch(text: str, old: str, new: str, message: str):
    assert old in text
    _, mismatches, _ = checked(yaml.safe_load(text.replace(old, new, 1)), "shop.yaml")
    assert len(mismatches) == bool(message)
    assert message in "".join(text for _, text in mismatches)


@pytest.mark.parametrize(
    ("key", "meant"),
    [("replcas", "replicas"), ("replica", "replicas"), ("nodeSelector", ""), ("nameOverride", ""), ("replicas", "")],
)
def test_only_a_key_that_resembles_a_known_one_is_misspelt(key: str, meant: str) -> None:
    """The stand-ins have what the tree sets; a chart has many more values."""
    reported = list(files._value_defects({key: 3}, {"replicas": 2, "fullnameOverride": ""}))
    assert reported == ([((key,), f"has no value {key}", f"did you mean {meant!r}?")] if meant else [])
