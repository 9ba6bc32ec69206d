"""The loop of a controller, and the events that controllers record."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Protocol

from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import is_true, labels_of, name_of, namespace_of, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Event, Key
    from fluobook_lab.kube.store import Store

    KeysOf = Callable[[Obj], Iterable[Key]]
    Sources = dict[Key, KeysOf]


_log = logging.getLogger(__name__)


class Controller(Protocol):
    """Something that reconciles keys.

    Attributes:
        sources: which changes concern it: (group, plural) → the keys that an object of that resource touches.
    """

    sources: Sources

    def reconcile(self, key: Key) -> float | None:
        """Reconcile one key; return the lab seconds until the next attempt, None if events suffice."""


def own_key(obj: Obj) -> list[Key]:
    """An object concerns itself."""
    return [(namespace_of(obj), name_of(obj))]


def draw(seed: int, subject: str, low: float, high: float) -> float:
    """A number between two, always the same for one seed and name."""
    return random.Random(f"{seed}/{subject}").uniform(low, high)


class Delays:
    """How long work still takes that began when it was first asked for; the same in every run for one seed.

    Args:
        clock: the lab's clock.
        seed: of the random delays.
    """

    def __init__(self, clock: Clock, seed: int) -> None:
        self._clock, self._seed = clock, seed
        self._due: dict[str, float] = {}

    def left(self, work: str, subject: str, bounds: tuple[float, float]) -> float:
        """The lab seconds until a piece of work is done, 0 or less once it is; drawn for the subject."""
        now = self._clock.now()
        return self._due.setdefault(work, now + draw(self._seed, subject, *bounds)) - now


def running(store: Store, name: str) -> list[Obj]:
    """The available Deployments of an operator, by their label app.kubernetes.io/name."""
    deployments = store.view("apps/v1", "Deployment")
    return [item for item in deployments if is_named(item, name) and is_true(item, "Available")]


def is_named(obj: Obj, name: str) -> bool:
    """Whether an object's label app.kubernetes.io/name is the name."""
    return labels_of(obj).get("app.kubernetes.io/name") == name


async def run(store: Store, clock: Clock, controller: Controller) -> None:
    """Reconcile all there is, then whatever changes, until cancelled."""
    await _Loop(store, clock, controller).run()


class _Loop:
    def __init__(self, store: Store, clock: Clock, controller: Controller) -> None:
        self._store = store
        self._clock = clock
        self._controller = controller
        self._waiting: dict[Key, None] = {}  # in order of arrival, each once
        self._changed = asyncio.Event()
        self._timers: dict[Key, asyncio.Task[None]] = {}

    async def run(self) -> None:
        storage = self._store.storage
        queues = {resource: storage.subscribe(resource) for resource in self._controller.sources}
        for resource in queues:
            for _, obj in storage.scan(resource):
                self._touch(resource, obj)
        try:
            async with asyncio.TaskGroup() as group:
                for resource, queue in queues.items():
                    group.create_task(self._listen(resource, queue))
                group.create_task(self._work())
        finally:
            for resource, queue in queues.items():
                storage.unsubscribe(resource, queue)
            for timer in self._timers.values():
                timer.cancel()

    async def _listen(self, resource: Key, queue: asyncio.Queue[Event]) -> None:
        while True:
            event = await queue.get()
            if event.type != "GONE":
                self._touch(resource, event.object)

    def _touch(self, resource: Key, obj: Obj) -> None:
        for key in self._controller.sources[resource](obj):
            self._waiting.setdefault(key)
        self._changed.set()

    async def _work(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                key = next(iter(self._waiting))
                del self._waiting[key]
                self._reconcile(key)
                await asyncio.sleep(0)

    def _reconcile(self, key: Key) -> None:
        try:
            delay = self._controller.reconcile(key)
        except ApiError as error:
            # A conflicting write, or an object that is not admitted: retry, as the real controllers do.
            _log.debug("%s %s: %s", type(self._controller).__name__, key, error)
            delay = 1.0
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if delay is not None:
            self._timers[key] = asyncio.create_task(self._later(key, delay))

    async def _later(self, key: Key, delay: float) -> None:
        await self._clock.sleep(delay)
        self._timers.pop(key, None)
        self._waiting.setdefault(key)
        self._changed.set()


def record(store: Store, about: Obj, reason: str, message: str, *, source: str, warning: bool = False) -> None:
    """Record an event about an object; a repeated event increments its count."""
    namespace = namespace_of(about) or "default"
    name = f"{name_of(about)}.{reason.lower()}"[:250]
    now = timestamp()
    old = store.find("v1", "Event", name, namespace)
    if old is not None:
        if old["message"] != message:
            store.update({**old, "message": message, "lastTimestamp": now, "count": old["count"] + 1})
        return
    involved = {key: about[key] for key in ("apiVersion", "kind")}
    involved |= {"name": name_of(about), "namespace": namespace_of(about), "uid": about["metadata"]["uid"]}
    event: Obj = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace}}
    event |= {"involvedObject": involved, "reason": reason, "message": message, "source": {"component": source}}
    event |= {"type": "Warning" if warning else "Normal", "count": 1, "firstTimestamp": now, "lastTimestamp": now}
    store.create(event)
