"""Writes one object of a sync to the cluster, in the way that its sync options say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fluobook_lab.argocd.ignoring import paths, respecting
from fluobook_lab.argocd.names import MANAGER, options_of
from fluobook_lab.kube.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook_lab.argocd.cluster import Cluster
    from fluobook_lab.argocd.targets import Target
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.objects import Obj

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
WEBHOOK = (
    'Internal error occurred: failed calling webhook "validate.lab.invalid": failed to call webhook: '
    'Post "https://webhook.lab.invalid:443/validate?timeout=10s": dial tcp 10.96.0.9:443: connect: connection refused'
)
LARGEST_ANNOTATIONS = 262144


class Applier:
    """Applies for one Application.

    Args:
        cluster: where to.
        options: the Application's `syncOptions`.
        ignored: its `ignoreDifferences`.
        faults: what goes wrong on purpose.
    """

    def __init__(
        self, cluster: Cluster, options: Iterable[str], ignored: Iterable[Mapping[str, Any]], faults: Faults
    ) -> None:
        self._cluster = cluster
        self._faults = faults
        self._options = frozenset(options)
        self._ignored = tuple(ignored)

    def apply(self, target: Target, *, dry_run: bool = False) -> str:
        """Write it, and say in kubectl's words what happened.

        Raises:
            ApiError: the server refused.
        """
        live = self._cluster.live(target.obj)
        obj = target.obj
        if live is not None and "RespectIgnoreDifferences=true" in self._options:
            obj = respecting(obj, live, paths(target.key, self._ignored))
        server_side = self._wants(target, "ServerSideApply")
        if not server_side:
            obj = _client_side(obj)
        if target.is_hook and live is not None and "BeforeHookCreation" in target.delete_policies and not dry_run:
            self.delete(live)
        if not dry_run and self._faults.take("argocd.webhook-refuses-once"):
            raise ApiError(500, "InternalError", WEBHOOK)
        then = self._cluster.store.apply(obj, manager=MANAGER, force=True, dry_run=dry_run)
        name = f"{target.key.kind.lower()}{'.' + target.key.group if target.key.group else ''}/{target.key.name}"
        if server_side:
            return f"{name} serverside-applied"
        same = live is not None and then["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
        return f"{name} {'created' if live is None else 'unchanged' if same else 'configured'}"

    def delete(self, live: Obj) -> None:
        """Take an object out of the cluster; no harm if it is gone."""
        metadata = live["metadata"]
        try:
            self._cluster.store.delete(
                live["apiVersion"], live["kind"], metadata["name"], metadata.get("namespace", "")
            )
        except ApiError as error:
            if error.code != 404:  # noqa: PLR2004
                raise

    def create_namespace(self, name: str, metadata: Mapping[str, Any] | None) -> None:
        """Make the destination's namespace, or give it the labels and annotations that the Application manages."""
        exists = self._cluster.store.find("v1", "Namespace", name)
        if exists and metadata is None:
            return
        wanted = {key: (metadata or {})[key] for key in ("labels", "annotations") if (metadata or {}).get(key)}
        obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **wanted}}
        self._cluster.store.apply(obj, manager=MANAGER, force=True)

    def _wants(self, target: Target, option: str) -> bool:
        """Whether a sync option holds for an object; its own annotation wins."""
        own = options_of(target.obj)
        if f"{option}=false" in own:
            return False
        return f"{option}=true" in own or f"{option}=true" in self._options


def _client_side(obj: Obj) -> Obj:
    """The object with the annotation that `kubectl apply` keeps; for a large one there is no room.

    Raises:
        ApiError: 422.
    """
    text = json.dumps(obj, separators=(",", ":")) + "\n"
    annotations = obj["metadata"].get("annotations") or {}
    if len(text) + sum(len(key) + len(value) for key, value in annotations.items()) > LARGEST_ANNOTATIONS:
        group = obj["apiVersion"].rpartition("/")[0]
        kind = f"{obj['kind']}.{group}" if group else obj["kind"]
        what = f"metadata.annotations: Too long: must have at most {LARGEST_ANNOTATIONS} bytes"
        raise ApiError(422, "Invalid", f'{kind} "{obj["metadata"]["name"]}" is invalid: {what}')
    return {**obj, "metadata": {**obj["metadata"], "annotations": {**annotations, LAST_APPLIED: text}}}
