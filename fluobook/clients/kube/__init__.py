"""The Kubernetes API: objects, watches, the operators' lease, and a way to a Service's pods."""

from fluobook.clients.kube.client import Kube
from fluobook.clients.kube.forward import Forward
from fluobook.clients.kube.lease import Holder, OperatorLease
from fluobook.clients.kube.watching import Change

__all__ = ["Change", "Forward", "Holder", "Kube", "OperatorLease"]
