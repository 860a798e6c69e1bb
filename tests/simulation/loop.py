"""An event loop in which many processes live in one thread, on a clock that jumps from timer to timer.

Everything that happens is decided by the loop's ``chance``, so a run can be repeated exactly. A process is whatever
runs in its context: its tasks and all that they start. Callbacks of one process keep their order, as asyncio promises;
those of different processes are interleaved by chance. A process that doesn't run (`Process.running`) makes no
progress while time goes on: SIGSTOP, or, for ever, SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

Result = TypeVar("Result")
_Args = TypeVarTuple("_Args")

_PROCESS: Final[contextvars.ContextVar[Process]] = contextvars.ContextVar("process")
_STEPS_IN_NO_TIME: Final = 50_000
"""Callbacks at one moment after which something must be going in circles."""


class Process:
    """What runs in ``context`` belongs to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = True
        self.context = contextvars.Context()
        self.context.run(_PROCESS.set, self)
        self.ready: deque[asyncio.Handle] = deque()


class VirtualLoop(asyncio.AbstractEventLoop):
    """See the module. A process's timer is late by up to ``late_s``."""

    def __init__(self, chance: random.Random, late_s: float = 0.002) -> None:
        self.world = Process("world")
        """Whatever belongs to no other process: servers, network, and the tests' own code."""
        self.failure: BaseException | None = None
        """What ends the run, and why."""
        self.steps = 0
        self.ahead_ms: dict[str, int] = {}
        """By how much the wall clocks of machines and servers are wrong, by the name of the process."""
        self.log: Callable[[str, str], None] = lambda _process, _line: None
        """Given the lines that processes log."""
        self._chance = chance
        self._late_s = late_s
        self._now_s = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Process]] = []
        self._numbers = 0
        self._processes = [self.world]
        self._dead: list[Process] = []
        self._tasks: list[asyncio.Task[Any]] = []  # asyncio itself keeps only weak references
        self._closing = False

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, Result]) -> Result:
        """Run until ``main`` ends, or a failure ends all."""
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main, context=self.world.context)
            self._run(task.done)
            return task.result()
        finally:
            self._close()
            asyncio._set_running_loop(None)

    def _run(self, ended: Callable[[], bool]) -> None:
        at_once = 0
        while not ended():
            runnable = [process for process in self._processes if process.ready and process.running]
            if runnable:
                at_once += 1
                assert at_once < _STEPS_IN_NO_TIME, f"time stands still at {self._now_s}"
                self._step(runnable[0] if len(runnable) == 1 else self._chance.choice(runnable))
            else:
                assert self._timers, "nothing will ever happen again"
                at_once = 0
                self._advance()
            if self.failure is not None and not self._closing:
                raise self.failure

    def _step(self, process: Process) -> None:
        handle = process.ready.popleft()
        if not handle.cancelled():
            self.steps += 1
            handle._run()

    def _advance(self) -> None:
        self._now_s = max(self._now_s, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now_s:
            _, _, handle, process = heapq.heappop(self._timers)
            if not handle.cancelled():
                process.ready.append(handle)

    def _close(self) -> None:
        """Let every task end, those of dead processes too: what they do now concerns nobody."""
        self._closing = True
        self._processes += self._dead
        for process in self._processes:
            process.running = True
        while left := [task for task in self._tasks if not task.done()]:
            for task in left:
                task.cancel()
            self._run(lambda left=left: all(task.done() for task in left) or not self._pending())  # type: ignore[misc]

    def _pending(self) -> bool:
        return bool(self._timers) or any(process.ready for process in self._processes)

    def fail(self, failure: BaseException) -> None:
        """End the run with this; the first failure is the one that counts."""
        self.failure = self.failure or failure

    # -- processes --------------------------------------------------------------------------------------------------

    def process(self, name: str) -> Process:
        """A new process."""
        process = Process(name)
        self._processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        """Nothing of it runs any more: no handler, no ``finally``."""
        process.running = False
        self._processes.remove(process)
        self._dead.append(process)

    def spawn(self, work: Coroutine[Any, Any, None], process: Process) -> asyncio.Task[None]:
        """Let a process do something until it is cancelled; what it raises ends the run."""
        task = self.create_task(work, context=process.context)
        task.add_done_callback(self._ended, context=self.world.context)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def later(self, delay_s: float, act: Callable[[Unpack[_Args]], object], *args: *_Args) -> None:
        """Do something outside of every process."""
        self.call_later(delay_s, act, *args, context=self.world.context)

    def current(self) -> Process:
        """The process that is running."""
        return _PROCESS.get(self.world)

    # -- what asyncio asks of a loop --------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now_s

    def call_soon(
        self,
        callback: Callable[[Unpack[_Args]], object],
        *args: *_Args,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        context = context or contextvars.copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        context.get(_PROCESS, self.world).ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Args]], object],
        *args: *_Args,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Args]], object],
        *args: *_Args,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        context = context or contextvars.copy_context()
        process = context.get(_PROCESS, self.world)
        if process is not self.world:
            when += self._chance.random() * self._late_s
        self._numbers += 1
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, self._numbers, handle, process))
        return handle

    def run_in_executor(  # type: ignore[override] # as asyncio.to_thread calls it
        self, executor: None, func: Callable[[Unpack[_Args]], Result], *args: *_Args
    ) -> asyncio.Future[Result]:
        """The thread's work is done in one go, a little later."""
        future: asyncio.Future[Result] = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - whoever waits for the future handles it
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(self._chance.random() ** 4 * 0.05, work)
        return future

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Result],  # type: ignore[override] # no generator-based ones
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Result]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) % 1024 == 0:
            self._tasks = [task for task in self._tasks if not task.done()]
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nobody caught it: that ends the run."""
        error = context.get("exception")
        self.fail(error if isinstance(error, BaseException) else AssertionError(context["message"]))

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays until its time and does nothing then."""
