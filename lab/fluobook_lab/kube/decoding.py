"""From a request's body to an object that may be stored: its head, types, unknown fields, defaults and rules."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import rules, schemas
from fluobook_lab.kube.errors import ApiError, bad_request, invalid
from fluobook_lab.kube.objects import clone, data_file
from fluobook_lab.kube.schemas import (
    WORKLOADS,
    broken_rules,
    defaulted,
    pruned,
    repeated_items,
    unknown_fields,
    workload_problems,
    wrong_types,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fluobook_lab.kube.access import Write
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.schemas import Problem


_KINDS = data_file("kinds.yaml")


def fill(resource: Resource, obj: Obj) -> None:
    """Set the defaults of a built-in object in place: those of kinds.yaml, and what depends on other fields."""
    _set_defaults(obj, _KINDS["defaults"].get(resource.qualified, {}))
    if filler := _FILLERS.get(resource.plural):
        filler(obj)
    spec = obj.get("spec") or {}
    if resource.plural != "pods":
        holder = spec.get("jobTemplate", {}).get("spec", spec)
        spec = (holder.get("template") or {}).get("spec", {})
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        image, _, tag = container.get("image", "").rpartition(":")
        container.setdefault("imagePullPolicy", "IfNotPresent" if image and tag != "latest" else "Always")


def _set_defaults(obj: Obj, defaults: Obj) -> None:
    for key, value in defaults.items():
        name = key.rstrip("[]?!")
        if key.endswith("[]"):
            for item in obj.get(name) or []:
                _set_defaults(item, value)
        elif key.endswith("?"):
            _set_defaults(obj[name] if isinstance(obj.get(name), dict) else {}, value)
        elif key.endswith("!"):
            obj[name] = obj.get(name) or clone(value)
        elif isinstance(value, dict):
            _set_defaults(obj.setdefault(name, {}), value)
        else:
            obj.setdefault(name, clone(value))


def _namespace(obj: Obj) -> None:
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]


def _secret(obj: Obj) -> None:
    plaintext = obj.pop("stringData", None) or {}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plaintext.items()}
    if encoded:
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _service(obj: Obj) -> None:
    spec = obj["spec"]
    defaults: Obj = {}
    if spec["type"] != "ExternalName":
        defaults |= {"internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
    if spec["type"] in ("LoadBalancer", "NodePort"):
        defaults["externalTrafficPolicy"] = "Cluster"
    if spec["type"] == "LoadBalancer":
        defaults["allocateLoadBalancerNodePorts"] = True
    _set_defaults(spec, defaults)
    for port in spec.get("ports") or []:
        port.setdefault("targetPort", port.get("port"))


def _pod(obj: Obj) -> None:
    spec = obj["spec"]
    if not spec.get("nodeName", "chosen"):
        del spec["nodeName"]
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    listed = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(
            item.get("key") in (key, None) and item.get("effect", "NoExecute") == "NoExecute" for item in listed
        ):
            listed.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})


def _deployment(obj: Obj) -> None:
    if not obj["spec"].get("paused", True):
        del obj["spec"]["paused"]


def _job(obj: Obj) -> None:
    spec = obj["spec"]
    if "selector" not in spec:  # as the real server does, so that a Job finds its own pods only
        label = {"batch.kubernetes.io/job-name": obj["metadata"].get("name", "")}
        spec["selector"] = {"matchLabels": label}
        metadata = spec["template"].setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), **label}


def _role_binding(obj: Obj) -> None:
    for subject in obj.get("subjects") or []:
        if subject.get("kind") != "ServiceAccount":
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


_FILLERS: dict[str, Callable[[Obj], None]] = {
    "namespaces": _namespace,
    "secrets": _secret,
    "services": _service,
    "pods": _pod,
    "deployments": _deployment,
    "jobs": _job,
    "rolebindings": _role_binding,
    "clusterrolebindings": _role_binding,
}


_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=\n\r]")
_HEAD = {"properties": {"metadata": {"$ref": schemas.REF + schemas.OBJECT_META}}}
_OMITTED = ("data", "binaryData")
"""Members that are not kept while they are empty."""


def check_head(resource: Resource, namespace: str, obj: Obj) -> None:
    """Compare the head of an object with the path it was sent to, and complete it.

    Raises:
        ApiError: 400, they do not match.
    """
    obj.setdefault("apiVersion", resource.api_version)
    obj.setdefault("kind", resource.kind)
    if (obj["apiVersion"], obj["kind"]) != (resource.api_version, resource.kind):
        raise bad_request(f"{obj['apiVersion']} {obj['kind']} cannot be handled as a {resource.kind}")
    if obj.get("metadata") is None:
        obj["metadata"] = {}
    metadata = obj["metadata"]
    _check_types({"metadata": metadata}, _HEAD, resource)
    if resource.namespaced:
        metadata["namespace"] = metadata.get("namespace") or namespace
        same_namespace(resource, obj, namespace)
    else:
        metadata.pop("namespace", None)


def same_name(obj: Obj, name: str) -> None:
    """Refuse an object under another name than the URL's.

    Raises:
        ApiError: 400.
    """
    given = obj["metadata"].get("name", name)
    if given != name:
        raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")


def same_namespace(resource: Resource, obj: Obj, namespace: str) -> None:
    """Refuse an object of another namespace than the URL's.

    Raises:
        ApiError: 400.
    """
    if resource.namespaced and obj["metadata"].get("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")


def typed(resource: Resource, obj: Obj, write: Write) -> Obj:
    """The object without what its kind does not know.

    Raises:
        ApiError: 400, values of wrong types, or unknown fields with validation "Strict".
    """
    problems = [] if write.validation == "Ignore" else _unknown(resource, obj)
    if problems and write.validation == "Strict":
        raise bad_request(f"{resource.kind}: strict decoding error: {', '.join(problems)}")
    write.warnings.extend(problems)
    obj = pruned(obj, resource.schema)
    if resource.store_key in (("", "secrets"), ("", "configmaps")):
        _check_base64(obj.get("data" if resource.kind == "Secret" else "binaryData") or {})
    if not resource.custom:
        _check_types(obj, resource.schema, resource)
    return obj


def _unknown(resource: Resource, obj: Obj) -> list[str]:
    return [f'unknown field "{path}"' for path in unknown_fields(obj, resource.schema)]


def _check_types(obj: Obj, schema: Obj, resource: Resource) -> None:
    if problem := next(wrong_types(obj, schema), None):
        raise bad_request(f"{resource.kind} cannot be decoded: {problem[1]}")


def check_patched(resource: Resource, obj: Obj, write: Write) -> None:
    """Refuse a patched object that is no object of its kind any more; a patch is refused with 422, not 400.

    Raises:
        ApiError: 422.
    """
    problem = ""
    if obj.get("kind") != resource.kind or obj.get("apiVersion") != resource.api_version:
        problem = f"a {resource.kind} cannot become {obj.get('apiVersion')} {obj.get('kind')}"
    elif not resource.custom:
        strict = _unknown(resource, obj) if write.validation == "Strict" else []
        problem = ", ".join(strict) or next((wrong for _, wrong in wrong_types(obj, resource.schema)), "")
    if problem:
        cause = {"reason": "FieldValueInvalid", "message": problem, "field": "patch"}
        raise ApiError(422, "Invalid", f' "" is invalid: patch: {problem}', {"causes": [cause]})


def check_applied(resource: Resource, intent: Any) -> Obj:
    """Refuse an applied configuration without its own apiVersion and kind.

    Raises:
        ApiError: 400.
    """
    obj = intent if isinstance(intent, dict) else {}
    if (obj.get("apiVersion"), obj.get("kind")) != (resource.api_version, resource.kind):
        raise bad_request(f"an applied configuration must be {resource.api_version} {resource.kind}")
    return obj


def check_applied_fields(resource: Resource, obj: Obj) -> None:
    """Refuse an applied configuration that the kind's schema does not know.

    Raises:
        ApiError: 500 (the code is the real server's).
    """
    if resource.custom:
        return
    problem = next((f".{path}: field not declared in schema" for path in unknown_fields(obj, resource.schema)), "")
    body = _body(obj)
    for problems in (wrong_types(body, resource.schema), repeated_items(body, resource.schema)):
        problem = problem or next((f".{path}: {wrong}" for path, wrong in problems), "")
    if problem:
        raise ApiError(500, "", f"failed to create typed patch object ({resource.kind}): {problem}")


def completed(resource: Resource, obj: Obj) -> Obj:
    """The object with the server's defaults."""
    if not resource.custom:
        fill(resource, obj)
        return {key: value for key, value in obj.items() if value != {} or key not in _OMITTED}
    return {**defaulted(_body(obj), resource.schema), "metadata": obj["metadata"]}


def validated(resource: Resource, obj: Obj, changes: Iterable[Problem] = ()) -> None:
    """Refuse an object that breaks its kind's rules; `changes` are problems with how it was changed.

    Raises:
        ApiError: 422.
    """
    name = obj["metadata"].get("name", "")
    if problems := [*rules.metadata_problems(resource, obj["metadata"]), *rules.kind_problems(resource, obj)]:
        raise invalid(resource, name, problems)
    if resource.custom:
        body = {**obj, "metadata": {}}  # it is checked above; a schema may require it
        problems = list(wrong_types(body, resource.schema)) or list(
            broken_rules(body, resource.schema, missing=(None,))
        )
    else:
        problems = list(broken_rules(obj.get("spec"), schemas.child(resource.schema, "spec"), "spec"))
        problems += workload_problems(obj["spec"]) if resource.store_key in WORKLOADS and not problems else []
    problems += changes
    if problems:
        raise invalid(resource, name, problems)


def _check_base64(data: Obj) -> None:
    for value in data.values():
        if isinstance(value, str) and (wrong := _NOT_BASE64.search(value)):
            raise bad_request(f"illegal base64 data at input byte {wrong.start()}")


def _body(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key != "metadata"}
