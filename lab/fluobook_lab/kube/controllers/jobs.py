"""Jobs: pods that run once and are done. CronJobs only tell that they are there; nothing runs on a schedule here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.controllers.workloads import RETRY_SECONDS, create_pod, living, new_pod, owned, owner_key, ready
from fluobook_lab.kube.objects import is_true, timestamp, with_condition

if TYPE_CHECKING:
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

BATCH = "batch/v1"


class Jobs:
    """Runs each Job to its end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {("batch", "jobs"): own_key, ("", "pods"): owner_key("Job")}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        job = self._store.find(BATCH, "Job", key[1], key[0])
        if job is None or job["metadata"].get("deletionTimestamp") or is_true(job, "Complete"):
            return None
        pods = owned(self._store, job, "v1", "Pod")
        done = sum((pod.get("status") or {}).get("phase") == "Succeeded" for pod in pods)
        spec = job["spec"]
        wanted = spec.get("completions", 1)
        running = [pod for pod in living(pods) if (pod.get("status") or {}).get("phase") != "Succeeded"]
        failure = ""
        if not spec.get("suspend"):
            for _ in range(min(spec.get("parallelism", 1), wanted - done) - len(running)):
                failure = failure or create_pod(self._store, job, new_pod(job))
        self._tell(job, running, done, complete=done >= wanted)
        return RETRY_SECONDS if failure else None

    def _tell(self, job: Obj, running: list[Obj], done: int, *, complete: bool) -> None:
        status = dict(job.get("status") or {})
        status.setdefault("startTime", timestamp())
        status |= {"active": len(running), "ready": len(ready(running)), "succeeded": done}
        if complete:
            status.setdefault("completionTime", timestamp())
            for kind in ("SuccessCriteriaMet", "Complete"):
                told = (kind, "True", "CompletionsReached", "Reached expected number of succeeded pods")
                status["conditions"] = with_condition(status.get("conditions") or [], *told)
        self._store.set_status(job, {key: value for key, value in status.items() if value != 0})
