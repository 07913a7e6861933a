"""A loaded bundle at work for many requests: its threads, its limits and its figures."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lesion_edge.selftest import SelfTest, self_test
from lesion_serve.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lesion_edge.classifier import Classifier

Result = TypeVar("Result")

HELD_BODIES = 4
"""Largest requests whose bodies may be held at once."""


@dataclass(frozen=True)
class Limits:
    """Limits of the service; those of an image are the command's own."""

    max_body: int
    """Largest request, bytes."""
    queue: int
    """Requests in work or waiting."""
    timeout: float
    """Time for a request, that of its body included, s."""


class RequestError(Exception):
    """A request that gets no answer to its images: an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


@dataclass(frozen=True)
class Timed(Generic[Result]):
    """What a thread of the service gave, and how long that took."""

    result: Result
    queued: float
    """Time until a thread was free, s."""
    took: float
    """Time of the thread, s."""


class Service:
    """A classifier behind a queue. All but the work itself runs in the thread of the event loop.

    Images go to the network one at a time, as `lesion-infer` has them on the CPU: an answer depends on nothing but
    its image, and waits for no other's.
    """

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        self.classifier = classifier
        self.limits = limits
        self.metrics = Metrics(classifier, lambda: len(self._waiting), lambda: self._admitted)
        self.is_proven = False
        """Whether the self-test passed."""
        self.is_draining = False
        """Whether the service ends, and takes no new connection."""
        self._pool = ThreadPoolExecutor(classifier.threads, "lesion-serve")
        self._waiting: set[object] = set()
        self._admitted = self._held = 0
        self._mean = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether it answers, and goes on doing so."""
        return self.is_proven and not self.is_draining

    async def prove(self) -> SelfTest:
        """Run the self-test; requests are answered once it has passed.

        Raises:
            LesionEdgeError: the bundle has none.
        """
        outcome = await asyncio.to_thread(self_test, self.classifier)
        self.is_proven = outcome.passed
        return outcome

    @contextlib.contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """Hold a place for a request, before its body is read.

        Args:
            size: of its body, bytes; the limit where nobody knows.

        Raises:
            RequestError: there is no self-test yet, or no place.
        """
        if not self.is_proven:
            raise RequestError(503, "not ready: the self-test has not passed yet", retry_after=1)
        if self._admitted >= self.limits.queue or self._held + size > HELD_BODIES * self.limits.max_body:
            raise RequestError(429, "too many requests are waiting", retry_after=self.seconds_to_wait())
        self._admitted += 1
        self._held += size
        try:
            yield
        finally:
            self._admitted -= 1
            self._held -= size

    def seconds_to_wait(self) -> int:
        """When a request that was turned away may try again, s."""
        return max(1, math.ceil(self._admitted * self._mean / self.classifier.threads))

    async def call(self, function: Callable[..., Result], *arguments: Any) -> Timed[Result]:
        """Call a function in one of the threads; a call that is cancelled before its turn is never made."""
        token, submitted = object(), time.perf_counter()

        def work() -> Timed[Result]:
            self._waiting.discard(token)
            started = time.perf_counter()
            result = function(*arguments)
            return Timed(result, started - submitted, time.perf_counter() - started)

        self._waiting.add(token)
        try:
            timed = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting.discard(token)
        self._mean += (timed.took - self._mean) / 16
        self.metrics.queue_seconds.observe(timed.queued)
        self.metrics.image_seconds.observe(timed.took)
        return timed

    async def call_each(self, function: Callable[..., Result], items: Iterable[Any]) -> list[Result]:
        """Call a function for each item of a request, in order; a long request leaves room for short ones."""
        room = asyncio.Semaphore(2 * self.classifier.threads)

        async def call(item: Any) -> Result:
            async with room:
                return (await self.call(function, item)).result

        tasks = [asyncio.create_task(call(item)) for item in items]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        """End the threads, once what they are at is done."""
        self._pool.shutdown(cancel_futures=True)
