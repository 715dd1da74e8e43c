"""Runs an ASGI app in lockstep with the harness that started this process.

The harness plays the ASGI server.  It sends a batch of commands with the current time; this
process runs the event loop until nothing is left to do at that time, answers with all that
happened and with the time of the next timer, and blocks until the next batch comes.  The clock of
the loop is the harness's, so a sleep costs nothing and a run can be repeated exactly.

Messages are `marshal` version 2 with a 4-byte little-endian length in front, on the pipes that
were fd 0 and fd 1 at the start.

    first     harness: dict of settings                  shim: dict about the app, see `introduce`
    batch     harness: (now_ns, [command, ...])          shim: (next_timer_ns or None, [event, ...])

    commands  call id scope        give id event          raise id receive|send type message
              sent id              credit id bytes        cancel id    forget id    stop
    events    receive id           send id event          sent id event    returned id
              raised id type message frames module        left id task_names
              handled id type message frames module
              log id level logger message trace           unhandled id type message frames
              note text            fatal text

`give` and `raise ... receive` are kept for the next receive() if none waits; `sent` and
`raise ... send` without a waiting send() do nothing.  A call with credit need not wait for its
messages: as many bytes of them as the harness is sure to take are only told, as `sent`; the credit
ends with the answer.  On the real clock there is none, batches that come together share one answer,
more answers follow when something happens later, and timers are in nanoseconds of the monotonic
clock.
"""

import _thread
import ast
import asyncio
import atexit
import builtins
import concurrent.futures
import contextvars
import difflib
import faulthandler
import gc
import importlib
import importlib.machinery
import inspect
import json
import logging
import marshal
import math
import os
import pkgutil
import random
import re
import resource
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from urllib.parse import quote_plus

OWN_FILE = (lambda: 0).__code__.co_filename
FRAMES = 20  # of a traceback, the innermost
DEPTH = 50  # of nested values from the app
HEADER = 14  # bytes of a frame's header, at most
NEVER = 9e9  # seconds: a later timer is not reported, it would not fit 64 bits
FRAMEWORKS = ("fastapi", "starlette", "quart", "django", "channels", "litestar")
PACKAGES = ("starlette", "fastapi", "uvicorn", "anyio", "django", "channels", "quart", "litestar")

# The call in whose context the code runs; the tasks that a call starts inherit it.
current_call = contextvars.ContextVar("current_call", default=None)


class ClientDisconnected(OSError):
    """What uvicorn raises from send() once the client is gone."""


# ---------------------------------------------------------------- values and texts of the app

SCALARS = frozenset((str, bytes, int, bool, float, type(None)))
EXACT = (
    (str, str.__str__),
    (bytes, lambda value: memoryview(value).tobytes()),
    (int, int.__int__),
    (float, float.__float__),
)
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def render(how, value, limit=None):
    """`how(value)`, cut, without addresses of objects; "" if the app's own code for it raises."""
    token = current_raises.set(None)  # what is raised here is raised by us
    try:
        return ADDRESS.sub(" at 0x…", how(value))[:limit]
    except BaseException:
        return ""
    finally:
        current_raises.reset(token)


def plain(value, inside=()):
    """A copy of `value` in exact built-in types; `inside` has the ids of what it is nested in."""
    kind = type(value)
    if kind in SCALARS:
        return value
    # Not isinstance(): an object can lie about its class, as mocks do.
    for base, exact in EXACT:
        if issubclass(kind, base):
            return exact(value)
    if issubclass(kind, (dict, list, tuple)) and len(inside) < DEPTH and id(value) not in inside:
        inside += (id(value),)
        if issubclass(kind, dict):
            return {plain(k, inside): plain(v, inside) for k, v in dict.items(value)}
        base = list if issubclass(kind, list) else tuple
        return base([plain(item, inside) for item in base.__iter__(value)])
    return ("unmarshallable", kind.__name__, render(repr, value, 200))


def snapshot(event):
    """The event as it is now.  marshal itself would let buffers pass as bytes and sets as sets."""
    if type(event) is not dict:
        return plain(event)
    for key, value in event.items():
        if type(value) not in SCALARS or type(key) is not str:
            return plain(event)
    return event.copy()


def leaf(exc):
    """The only exception of a group, however deep: anyio's task groups wrap what they raise."""
    while any(base.__name__ == "BaseExceptionGroup" for base in type(exc).__mro__):
        if len(exc.exceptions) != 1:
            break
        exc = exc.exceptions[0]
    return exc


def failure(exc):
    """What events tell about an exception: type, message, frames, and the module of the type."""
    exc = leaf(exc)
    frames = [
        (frame.f_code.co_filename, line or 0, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(exc.__traceback__)
        if frame.f_code.co_filename != OWN_FILE
    ]
    kind = type(exc)
    return kind.__name__, render(str, exc, 2000), frames[-FRAMES:], kind.__module__


def is_foreign(filename):
    """True for a file that is neither this one nor a part of Python's import machinery."""
    hidden = filename.startswith("<frozen importlib") or filename == importlib.__file__
    return filename != OWN_FILE and not hidden


def format_trace(exc):
    """The traceback as Python prints it, without the frames that are not the app's."""
    report = traceback.TracebackException(type(exc), exc, exc.__traceback__)
    parts = [report]
    while parts:
        part = parts.pop()
        part.stack[:] = [frame for frame in part.stack if is_foreign(frame.filename)]
        parts += filter(None, (part.__cause__, part.__context__))
        parts += getattr(part, "exceptions", None) or ()
    return "".join(report.format())


# ---------------------------------------------------------------- exceptions that stay in the app

# The exceptions of the call in whose context the code runs.
current_raises = contextvars.ContextVar("relapse_raises", default=None)

RAISES = 16  # that one call has raised and not yet handled
HANDLED = 32  # different ones that are told of one call
CHAIN = 32  # exceptions that are looked at, from one to its context
TOOLS = (3, 4)  # numbers of sys.monitoring that are nobody's by its documentation
# How frameworks and servers say that the client is gone, and how an app asks for an answer.
FLOW = frozenset((
    "StopIteration", "StopAsyncIteration", "ClientDisconnected", "ClientDisconnect",
    "WebSocketDisconnect", "HTTPException", "WebSocketException", "Http404"))


class Own:
    """Tells the app's own files from libraries: they are in its directory and in no site-packages."""

    def __init__(self):
        self.known = {}
        self.start = None
        self.libraries = os.path.dirname(os.__file__) + os.sep

    def set_directory(self, directory):
        self.start = os.path.join(directory, "")
        self.known.clear()

    def has(self, filename):
        is_own = self.known.get(filename)
        if is_own is None:
            is_own = self.known[filename] = (
                self.start is not None and filename.startswith(self.start)
                and filename != OWN_FILE and not filename.startswith(self.libraries)
                and "site-packages" not in filename.split(os.sep))
        return is_own

    def has_frame_of(self, exc):
        return any(self.has(frame.f_code.co_filename)
                   for frame, _ in traceback.walk_tb(exc.__traceback__))


own = Own()


class Raises:
    """The exceptions that one call raises in the app's own code, told once they are handled.

    An exception is handled when the call sends, receives or ends while it is neither being handled
    nor on its way out.  Each place tells each type once.
    """

    __slots__ = ("tell", "pending", "told", "given", "over")

    def __init__(self, tell):
        self.tell = tell
        self.pending = []
        self.told = set()
        self.given = deque(maxlen=RAISES)  # by the server, in receive() and send()
        self.over = False  # what goes on without the call is told at once

    def add(self, exc):
        if len(self.pending) == RAISES or len(self.told) == HANDLED or is_flow(exc):
            return
        if not any(exc is other for known in (self.pending, self.given) for other in known):
            self.pending.append(exc)
            if self.over:
                self.flush(over=True)

    def flush(self, left=None, over=False):
        """Tells what is handled by now; `left` is what has left a call that is over."""
        self.over = over
        current = left if over else sys.exc_info()[1]
        if not self.pending and (over or watcher.works or current is None):
            return
        active = related(current, chain=not over)
        if not over and not watcher.works:
            for exc in active:
                if own.has_frame_of(exc):
                    self.add(exc)
        # Threads may add to the list.
        pending = self.pending[:]
        del self.pending[:len(pending)]
        for exc in pending:
            if any(exc is other for other in active):
                if not over:
                    self.pending.append(exc)
                continue
            details = failure(exc)
            inside = [frame for frame in details[2] if own.has(frame[0])]
            key = (details[0], *(inside or details[2])[-1:])
            if key not in self.told:
                self.told.add(key)
                self.tell(*details)


def is_flow(exc):
    kind = type(exc)
    return not issubclass(kind, Exception) or any(base.__name__ in FLOW for base in kind.__mro__)


def related(exc, chain):
    """An exception with the members of groups, and with `chain` those it was raised in the handling of."""
    todo, seen = [exc], []
    while todo and len(seen) < CHAIN:
        exc = todo.pop()
        if exc is None or any(exc is other for other in seen):
            continue
        seen.append(exc)
        if any(base.__name__ == "BaseExceptionGroup" for base in type(exc).__mro__):
            todo += exc.exceptions
        if chain:
            todo.append(exc.__context__)
    return seen


class Watcher:
    """Sees every exception that passes the app's own code, from Python 3.12 on.

    sys.monitoring costs nothing where nothing is raised.  Before 3.12 those are seen that come to an
    `except` in the app's own code, those that are being handled when the app sends or receives,
    and those that are logged as errors.
    """

    def __init__(self):
        self.works = False

    def start(self, directory):
        """Begins, before the app is loaded."""
        own.set_directory(directory)
        monitoring = getattr(sys, "monitoring", None)
        for tool in TOOLS if monitoring else ():
            if monitoring.get_tool(tool) is None:
                monitoring.use_tool_id(tool, "relapse")
                monitoring.register_callback(tool, monitoring.events.RAISE, on_raise)
                monitoring.set_events(tool, monitoring.events.RAISE)
                self.works = True
                return
        builtins.__relapse_handles__ = on_handler
        load_plainly = importlib.machinery.SourceFileLoader.get_code
        importlib.machinery.SourceFileLoader.get_code = (
            lambda loader, name: load_watched(loader, name) or load_plainly(loader, name))


watcher = Watcher()


def load_watched(loader, name):
    """The code of a module of the app's own, whose `except` clauses tell that they are entered."""
    path = loader.get_filename(name)
    if not own.has(path):
        return None
    try:
        tree = ast.parse(loader.get_data(path), path)
    except (SyntaxError, ValueError):
        return None  # the plain way says what is wrong
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            call = ast.Call(ast.Name("__relapse_handles__", ast.Load()), [], [])
            line = ast.Expr(call)
            for new in ast.walk(line):
                ast.copy_location(new, node)
            node.body.insert(0, line)
    return compile(tree, path, "exec", dont_inherit=True)


def on_handler():
    raises = current_raises.get()
    if raises is not None:
        raises.add(leaf(sys.exc_info()[1]))


def on_raise(code, offset, exc):
    raises = current_raises.get()
    if raises is not None and own.has(code.co_filename):
        raises.add(exc)


# ---------------------------------------------------------------- the pipes


class Wire:
    """The two pipes to the harness.  Takes them away from fd 0 and fd 1, where the app prints."""

    def __init__(self):
        self.source, self.sink = self.pipes = [os.dup(0), os.dup(1)]
        os.set_blocking(self.source, True)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        if sys.stdout is not None:
            sys.stdout.reconfigure(line_buffering=True)
        # A forked child must not keep the pipes open when this process is gone.
        os.register_at_fork(after_in_child=self.close)
        self.buffer = bytearray()

    def close(self):
        while self.pipes:
            os.close(self.pipes.pop())

    def fill(self):
        """Reads what there is, and waits if there is nothing; the end of the harness is ours."""
        self.keep(os.read(self.source, 65536))

    def keep(self, chunk):
        if not chunk:
            os._exit(0)
        self.buffer += chunk

    def take(self):
        """The next message if all of it has come, else None."""
        buffer = self.buffer
        if len(buffer) < 4:
            return None
        end = 4 + int.from_bytes(buffer[:4], "little")
        if len(buffer) < end:
            return None
        message = marshal.loads(buffer[4:end])
        del buffer[:end]
        return message

    def read(self):
        """Waits for the next message."""
        if not self.buffer:
            # Almost always one read is one message.
            chunk = os.read(self.source, 65536)
            if len(chunk) >= 4 and len(chunk) == 4 + int.from_bytes(chunk[:4], "little"):
                return marshal.loads(memoryview(chunk)[4:])
            self.keep(chunk)
        message = self.take()
        while message is None:
            self.fill()
            message = self.take()
        return message

    def write(self, message):
        """Sends one message, in one piece if the pipe takes it."""
        try:
            body = marshal.dumps(message, 2)
        except ValueError:
            body = marshal.dumps(plain(message), 2)
        data = len(body).to_bytes(4, "little") + body
        try:
            sent = os.write(self.sink, data)
            while sent < len(data):
                sent += os.write(self.sink, memoryview(data)[sent:])
        except BrokenPipeError:
            os._exit(0)


# ---------------------------------------------------------------- the loop and its clock


class LockstepSelector(selectors.DefaultSelector):
    """Where the loop would wait for I/O, it hands over to the session."""

    poll = selectors.DefaultSelector.select
    turn = None  # the session's method

    def select(self, timeout=None):
        return self.turn(timeout)


class LockstepLoop(asyncio.SelectorEventLoop):
    """An event loop with the clock of the harness, which knows its jobs in worker threads."""

    def __init__(self, selector):
        super().__init__(selector)
        self.now_ns = 0
        self.now = 0.0
        self._clock_resolution = 1e-9
        self.jobs = set()
        self.executors = weakref.WeakSet()

    def time(self):
        return self.now

    def deadline(self):
        """The time of the next timer in nanoseconds.  The loop has just dropped cancelled heads."""
        timers = self._scheduled
        if timers and timers[0]._when < NEVER:
            return round(timers[0]._when * 1e9)
        return None

    def advance(self, now_ns):
        """Sets the clock; it never goes back."""
        if now_ns > self.now_ns:
            self.now_ns = now_ns
            self.now = max(self.now, now_ns / 1e9)
            self.catch_up(self.deadline())

    def catch_up(self, due):
        """True if the next timer is `due` in the present nanosecond; it will then really run.

        A float deadline can lie a hair behind the float of its nanosecond.  The clock goes to the
        deadline itself, so that code which compares the two never sees "not yet" again and again.
        """
        if due is None or due > self.now_ns:
            return False
        when = self._scheduled[0]._when
        self.now = max(self.now, when)
        # A clock of many months is coarser than the resolution.
        while self.now + self._clock_resolution <= when:
            self.now = math.nextafter(self.now, math.inf)
        return True

    def create_task(self, coro, **options):
        """As usual, and the task knows the call that it belongs to."""
        task = super().create_task(coro, **options)
        context = options.get("context")
        call = current_call.get() if context is None else context.get(current_call)
        if call is not None:
            call.tasks += 1
            task.lockstep_call = call
        return task

    def run_in_executor(self, executor, func, *args):
        """As usual, and the job is counted until its result is on the way to the loop."""
        self._check_closed()
        if executor is None:
            executor = self._default_executor
            if executor is None:
                executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="asyncio")
                self.set_default_executor(executor)
        job = executor.submit(func, *args)
        future = asyncio.wrap_future(job, loop=self)
        self.executors.add(executor)
        self.jobs.add(job)
        # After wrap_future, whose callback must run first: it wakes the loop.
        job.add_done_callback(self.jobs.discard)
        return future

    def busy(self, patient):
        """True while worker threads get on without the loop, so that time must stand still.

        A job in a thread can itself wait for the loop (anyio.from_thread, async_to_sync).  With
        such a job, a queued one may never start: it counts only as long as the caller is `patient`.
        """
        workers = [thread for thread in threading.enumerate() if has_anyio_job(thread)]
        jobs = list(self.jobs)
        running = len(workers) + sum(job.running() for job in jobs)
        queued = len(workers) + len(jobs) - running
        if not running and not queued:
            return False
        waiting = sum(map(waits_for_loop, workers + self.pool_threads()))
        return running > waiting or queued > 0 and (patient or not waiting)

    def pool_threads(self):
        """The threads of the executors that the app has used through the loop."""
        return [thread for pool in self.executors for thread in getattr(pool, "_threads", ())]


def is_anyio_worker(thread):
    return type(thread).__name__ == "WorkerThread" and type(thread).__module__.startswith("anyio.")


def has_anyio_job(thread):
    """True from the moment anyio queues a job for the thread until the loop has its result."""
    return is_anyio_worker(thread) and thread.queue.unfinished_tasks > 0


def stack(thread):
    """The frames of a thread, innermost first."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None:
        yield frame
        frame = frame.f_back


def waits_for_loop(thread):
    """How many calls on the thread's stack wait for a future that only the loop can finish.

    Such a future is neither done nor running: a job of an executor would be running.
    """
    count = 0
    for frame in stack(thread):
        name = {"result": "self", "run_until_future": "future"}.get(frame.f_code.co_name)
        future = frame.f_locals.get(name) if name else None
        if isinstance(future, concurrent.futures.Future):
            count += not future.done() and not future.running()
    return count


def is_own_thread(thread):
    """True for a thread that the app itself runs; a pool's thread only while it has a job."""
    if thread is threading.main_thread() or is_anyio_worker(thread):
        return False
    target = getattr(getattr(thread, "_target", None), "__module__", "")
    if target == "concurrent.futures.thread":
        job = concurrent.futures.thread._WorkItem.run.__code__
        return any(frame.f_code is job for frame in stack(thread))
    # The rest, but for the two threads of a process pool.
    kind = type(thread).__module__
    return target != "multiprocessing.queues" and kind != "concurrent.futures.process"


# ---------------------------------------------------------------- calls


def settle(future, item):
    """Ends the wait with `item`; an exception is raised there, even if nobody waits any more."""
    if isinstance(item, BaseException):
        future.set_exception(item)
        future.exception()  # asyncio would otherwise complain that nobody looked at it
    else:
        future.set_result(item)


def message_size(event):
    """How many bytes a message is on the wire, at most; 0 for what a server might not take."""
    if type(event) is dict and event.get("type") == "websocket.send" and len(event) == 2:
        data = event.get("text", event.get("bytes"))
        if type(data) is bytes if "bytes" in event else type(data) is str and data.isascii():
            return len(data) + HEADER
    return 0


def build_exception(name, message):
    """The built-in exception of that name, or RuntimeError("name: message")."""
    special = {"CancelledError": asyncio.CancelledError, "ClientDisconnected": ClientDisconnected}
    kind = special.get(name) or getattr(builtins, name, None)
    # A future refuses StopIteration.
    if isinstance(kind, type) and issubclass(kind, BaseException) and kind is not StopIteration:
        try:
            exc = kind(message)
        except TypeError:
            return RuntimeError(f"{name}: {message}")
        number, bracket, text = message.removeprefix("[Errno ").partition("] ")
        if isinstance(exc, OSError) and bracket and number.isdecimal() and message.startswith("[Errno "):
            exc.errno, exc.strerror = int(number), text  # as the operating system's own have it
        return exc
    return RuntimeError(f"{name}: {message}")


class Call:
    """One run of the app, with the receive and the send it was given."""

    __slots__ = ("id", "loop", "events", "task", "tasks", "receives", "sends", "inbox", "credit",
                 "started", "forgotten", "raises")

    def __init__(self, ident, session):
        self.id = ident
        self.loop = session.loop
        self.events = session.events
        self.task = None
        self.tasks = 0  # started in the context of this call, its own one too
        self.receives = deque()
        self.sends = deque()
        self.inbox = deque()  # events, or exceptions to raise, that no receive has taken
        self.credit = 0
        self.started = False
        self.forgotten = False
        self.raises = Raises(self.report_handled)

    def report(self, kind, *details):
        if not self.forgotten:
            self.events.append((kind, self.id) + details)

    def report_handled(self, *details):
        self.report("handled", *details)

    async def run(self, app, scope, finished):
        """Calls the app.  Whatever it raises is its result and never harms the loop."""
        self.started = True
        current_raises.set(self.raises)
        try:
            await app(scope, self.receive, self.send)
        except BaseException as exc:
            self.raises.flush(exc, over=True)
            self.report("raised", *failure(exc))
        else:
            self.raises.flush(over=True)
            self.report("returned")
        self.task = None  # the task refers to the call, too
        finished(self)

    def cancel(self):
        if self.started:
            self.task.cancel()
        else:
            # Cancelled now, `run` would not even begin, and nothing would be reported.
            self.loop.call_soon(self.task.cancel)

    async def receive(self):
        """ASGI receive()."""
        if self.forgotten:
            await self.loop.create_future()
        self.raises.flush()
        self.events.append(("receive", self.id))
        future = self.loop.create_future()
        self.receives.append(future)
        if self.inbox:
            self.serve()
        try:
            return await future
        except asyncio.CancelledError:
            # The event came together with the cancellation: the next receive gets it.
            if future.done() and not future.cancelled() and future.exception() is None:
                self.inbox.appendleft(future.result())
                self.serve()
            raise

    def give(self, item):
        if isinstance(item, BaseException):
            self.raises.given.append(item)
        self.inbox.append(item)
        self.serve()

    def serve(self):
        """Gives what has come to the receives that wait, the oldest first."""
        while self.inbox and self.receives:
            future = self.receives.popleft()
            if not future.done():
                settle(future, self.inbox.popleft())

    async def send(self, event):
        """ASGI send()."""
        if self.forgotten:
            await self.loop.create_future()
        event = snapshot(event)
        self.raises.flush()
        if self.credit:
            size = message_size(event)
            if size and size <= self.credit:
                self.credit -= size
                self.events.append(("sent", self.id, event))
                return
        self.events.append(("send", self.id, event))
        future = self.loop.create_future()
        self.sends.append(future)
        await future

    def release(self, item=None):
        """Ends the oldest send that waits, if there is one."""
        if item is not None:
            self.raises.given.append(item)
        while self.sends:
            future = self.sends.popleft()
            if not future.done():
                settle(future, item)
                break


# ---------------------------------------------------------------- the session


class LogTap(logging.Handler):
    """Turns log records into events of the call in whose context they were written."""

    def __init__(self, events, level):
        super().__init__(level)
        self.events = events

    def emit(self, record):
        call = current_call.get()
        if call is not None and call.forgotten:
            return
        # The arguments can be wrong for the format.
        message = render(logging.LogRecord.getMessage, record) or render(str, record.msg)
        exc = record.exc_info[1] if record.exc_info else None
        trace = record.exc_text if exc is None else render(format_trace, exc)
        if exc is not None and call is not None and record.levelno >= logging.ERROR:
            call.raises.add(leaf(exc))
        self.events.append(
            ("log", call and call.id, record.levelno, record.name, message, trace))

    def install(self):
        """Puts itself on the root logger, again if the app's own configuration took it off."""
        root = logging.getLogger()
        if self not in root.handlers:
            root.addHandler(self)
        if root.level > self.level:
            root.setLevel(self.level)


class Session:
    """Obeys the harness's commands and collects the events for the answers."""

    def __init__(self, wire, settings):
        self.wire = wire
        self.settings = settings
        self.real = settings.get("clock") == "real"
        self.events = []
        self.calls = {}
        self.ended = []  # calls that returned and had started tasks
        self.credited = []  # calls that may send without waiting, until the answer
        self.noted = set()
        self.state = {}
        self.owes_answer = False
        self.app = None
        self.selector = LockstepSelector()
        self.selector.turn = self.turn_real if self.real else self.turn_virtual
        self.loop = LockstepLoop(self.selector)
        self.loop.default_exception_handler = self.unhandled
        if self.real:
            self.loop.time = time.monotonic
            self.selector.register(wire.source, selectors.EVENT_READ)
        self.files = self.selector.get_map()
        self.own_files = len(self.files)
        self.stopping = False
        self.stopped = self.loop.create_future()
        self.tap = LogTap(self.events, settings.get("log_level", logging.INFO))

    # -- the loop

    def run(self):
        """Loads the app and obeys until the harness says stop."""
        self.tap.install()
        logging.captureWarnings(True)
        asyncio.set_event_loop(self.loop)
        main = self.loop.create_task(self.serve())
        while not main.done():
            try:
                # Not run_forever: anyio ties its worker threads to the task that is run here.
                self.loop.run_until_complete(main)
            except (KeyboardInterrupt, SystemExit) as exc:
                # asyncio lets these two out of a task of the app; the server would end here.
                self.events.append(("unhandled", None) + failure(exc)[:3])
        self.loop.close()
        self.wire.write((None, []))

    async def serve(self):
        watcher.start((*self.settings.get("path", ()), os.getcwd())[0])
        # Inside the running loop, as uvicorn does it.
        self.app, reply = introduce(self.settings)
        self.wire.write(reply)
        if self.app is None:
            leave()
        self.tap.install()
        gc.freeze()
        await self.stopped
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)

    def turn_virtual(self, timeout):
        """One select() of the loop.  With nothing left to do now, the harness has its turn."""
        has_files = len(self.files) > self.own_files
        if timeout == 0 or self.stopping:
            return self.selector.poll(0) if has_files else []
        next_timer = self.loop.deadline()
        if self.loop.catch_up(next_timer):
            return []
        has_threads = _thread._count() > 0
        if has_threads:
            ready = self.wait_for_threads()
        else:
            # Without threads nobody but the app's own files can wake the loop; one that has just
            # ended may have left something to do.
            ready = self.selector.poll(0) if has_files else []
        if not ready and not self.loop._ready:
            if self.owes_answer:
                if has_threads:
                    self.note_threads()
                if has_files:
                    self.note_files()
                self.answer(next_timer)
            self.obey(self.wire.read())
        return ready

    def wait_for_threads(self):
        """What is ready once the worker threads rest, or as soon as one of them wakes the loop."""
        pause = 0.0002
        while True:
            # In this order: a job that ends in between has already made the selector ready.
            busy = self.loop.busy(patient=pause < 0.05)
            ready = self.selector.poll(pause if busy else 0)
            if ready or not busy:
                return ready
            pause = min(2 * pause, 0.05)

    def turn_real(self, timeout):
        """One select() of the loop on the real clock, where batches come at any time."""
        ready = self.selector.poll(0)
        if not ready and timeout != 0 and not self.stopping:
            if self.owes_answer or self.events or self.ended:
                self.answer(self.loop.deadline())
            ready = self.selector.poll(timeout)
        batches = [item for item in ready if item[0].fd == self.wire.source]
        if batches:
            ready.remove(batches[0])
            self.wire.fill()
            message = self.wire.take()
            while message is not None:
                self.obey(message)
                message = self.wire.take()
        return ready

    # -- answers

    def answer(self, next_timer):
        """Sends the events.  The list stays the same object: threads may be adding to it."""
        if self.ended:
            self.look_for_left()
        events = self.events[:]
        self.wire.write((next_timer, events))
        del self.events[:len(events)]
        while self.credited:
            self.credited.pop().credit = 0
        self.owes_answer = False

    def note_threads(self):
        known = self.loop.pool_threads()
        for thread in threading.enumerate():
            if thread not in known and is_own_thread(thread):
                self.note(f"a thread of the app's own is running: {thread.name}")

    def note_files(self):
        for fd in list(self.files)[self.own_files:]:
            self.note(f"the app waits on {describe_file(fd)}")

    def look_for_left(self):
        """Reports the tasks that returned calls have left running."""
        for call in self.ended:
            names = [task.get_name() for task in asyncio.all_tasks(self.loop)
                     if getattr(task, "lockstep_call", None) is call]
            if names:
                # all_tasks() has no order; this one puts Task-9 before Task-10.
                call.report("left", sorted(names, key=lambda name: (len(name), name)))
        self.ended.clear()

    def note(self, text):
        if text not in self.noted:
            self.noted.add(text)
            self.events.append(("note", f"{text}; virtual time does not wait for it"))

    def unhandled(self, context):
        """An exception that nobody awaited, as asyncio reports it."""
        exc = context.get("exception")
        if isinstance(exc, (KeyboardInterrupt, SystemExit)):
            return  # `run` has reported it
        source = context.get("task") or context.get("future")
        call = getattr(source, "lockstep_call", None) or current_call.get()
        if call is None and "handle" in context:
            call = context["handle"]._context.get(current_call)
        if call is not None and call.forgotten:
            return
        if exc is None:
            name = f" ({source.get_name()})" if isinstance(source, asyncio.Task) else ""
            details = ("", render(str, context.get("message", ""), 2000) + name, [])
        else:
            details = failure(exc)[:3]
        self.events.append(("unhandled", call and call.id) + details)
        if exc is not None and call is not None:
            # It left a task, and no call.
            call.raises.add(leaf(exc))
            call.raises.flush()

    # -- commands

    def obey(self, batch):
        """Applies one batch.  The commands only schedule; the loop does the rest."""
        now_ns, commands = batch
        self.owes_answer = True
        if not self.real:
            self.loop.advance(now_ns)
        for command in commands:
            name = command[0]
            if name == "call":
                self.start(*command[1:])
            elif name == "stop":
                self.stopping = True
                self.stopped.set_result(None)
            else:
                call = self.calls.get(command[1])
                # On the real clock a call can end while a command for it is under way.
                if call is None:
                    continue
                if name == "credit":
                    # On the real clock the harness moves while the app does.
                    if not self.real:
                        call.credit = command[2]
                        self.credited.append(call)
                else:
                    OBEY[name](call, *command[2:])

    def start(self, ident, scope):
        """Starts the app on a scope."""
        self.tap.install()
        state = scope.get("state")
        if isinstance(state, dict):
            if scope.get("type") == "lifespan":
                self.state.update(state)
                scope["state"] = self.state
            else:
                scope["state"] = {**self.state, **state}
        call = self.calls[ident] = Call(ident, self)
        token = current_call.set(call)
        try:
            call.task = self.loop.create_task(call.run(self.app, scope, self.finished))
        finally:
            current_call.reset(token)

    def finished(self, call):
        if self.calls.get(call.id) is call:
            del self.calls[call.id]
        if call.tasks > 1:
            self.ended.append(call)


OBEY = {
    "give": Call.give,
    "sent": Call.release,
    "cancel": Call.cancel,
    "forget": lambda call: setattr(call, "forgotten", True),
    "raise": lambda call, on, name, message: (call.give if on == "receive" else call.release)(
        build_exception(name, message)),
}


def describe_file(fd):
    """A file descriptor with the address behind it, for a note."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return f"a file or pipe (fd {fd})"
    try:
        address = sock.getpeername()
    except OSError:
        address = sock.getsockname()
    finally:
        sock.detach()  # the file stays the app's
    return f"a socket (fd {fd}, {address})"


# ---------------------------------------------------------------- loading the app


class LoadError(Exception):
    """Why the app cannot be run, in the words of the reply."""

    def __init__(self, kind, message, exc=None, **details):
        super().__init__(message)
        self.reply = {
            "ok": False, "kind": kind, "message": message, "searched": [], "near": [],
            "traceback": render(format_trace, exc) if exc else "", **details,
        }


def introduce(settings):
    """The app, or None, and the reply to the settings."""
    reply = {"python": ".".join(map(str, sys.version_info[:3])), "pid": os.getpid()}
    if settings.get("seed") is not None:
        random.seed(settings["seed"])
    if sys.path and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(OWN_FILE)):
        del sys.path[0]  # where this file is, which is no place of the app's
    sys.path[:0] = settings.get("path", ())
    try:
        app = load(settings["app"], settings.get("factory", False))
    except LoadError as error:
        return None, {**reply, **error.reply}
    reply.update(ok=True, framework=framework(app), versions=versions(), routes=routes(app))
    reply["guesses"] = [] if reply["routes"] else guess_routes(app)
    return asgi3(app), reply


def load(target, factory):
    """The object that `package.module:attribute` names, called first if it is a factory."""
    name, _, attribute = target.partition(":")
    found = module = load_module(name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            near = [key for key, value in vars(module).items()
                    if callable(value) and framework(value)]
            near += difflib.get_close_matches(part, dir(found), 5, 0.5)
            near = list(dict.fromkeys(near))
            hint = f" Did you mean {name}:{near[0]}?" if near else ""
            what = f"has no attribute {part!r}." if part else "is only half of module:attribute."
            raise LoadError("no-attribute", f"{name} {what}{hint}", near=near) from exc
    if factory:
        found = call_factory(target, found)
    elif is_factory(found):
        raise LoadError("factory-needed", f"{target} is a function without arguments that makes "
                        "the app, not the app itself. Add --factory.")
    if not callable(found):
        raise LoadError("not-callable", f"{target} is no ASGI app: its type, "
                        f"{type(found).__name__}, cannot be called.")
    return found


def load_module(name):
    try:
        return importlib.import_module(name)
    except SystemExit as exc:
        raise LoadError("exited", f"{name} ended the process during its import, with exit code "
                        f"{exc.code}. Put such code under `if __name__ == \"__main__\":`.", exc)
    except BaseException as exc:
        raise explain_import(name, exc)


def explain_import(name, exc):
    """The LoadError for an import that failed."""
    missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
    if missing and f"{name}.".startswith(f"{missing}."):
        near = near_modules(missing)
        hint = f" Did you mean {near[0]}?" if near else " Is the working directory right?"
        return LoadError("module-not-found", f"There is no module {missing}.{hint}", exc,
                         searched=list(sys.path), near=near)
    frames = failure(exc)[2]
    if missing:
        message = (f"{name} needs the module {missing}, which {sys.executable} does not have. "
                   "Install it there, or use the Python of the app's environment.")
    elif isinstance(exc, KeyError) and frames and frames[-1][0] == os.getenv.__code__.co_filename:
        message = (f"{name} wants the environment variable {exc.args[0]}. "
                   f"Set it with --env {exc.args[0]}=VALUE.")
    else:
        message = f"The import of {name} failed: {type(exc).__name__}: {render(str, exc, 2000)}"
    return LoadError("import-error", message, exc)


def near_modules(missing):
    """Modules that are there, with a name like the missing one."""
    parent, _, last = missing.removesuffix(".py").replace("/", ".").rpartition(".")
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else sys.path
    names = [module.name for module in pkgutil.iter_modules(path)] if path else []
    near = difflib.get_close_matches(last, names, 5, 0.6)
    return [f"{parent}.{name}" if parent else name for name in near]


def call_factory(target, factory):
    try:
        app = factory()
    except SystemExit as exc:
        raise LoadError("exited", f"{target}() ended the process, exit code {exc.code}.", exc)
    except BaseException as exc:
        raise LoadError("factory-failed", f"The factory {target} failed: {type(exc).__name__}: "
                        f"{render(str, exc, 2000)}", exc)
    if inspect.iscoroutine(app):
        app.close()
        raise LoadError("not-callable", f"The factory {target} is async; it must be a plain def.")
    return app


def is_factory(found):
    """True for a plain function that takes nothing, which can only be there to make the app."""
    if not inspect.isfunction(found) or inspect.iscoroutinefunction(found):
        return False
    kinds = [parameter.kind for parameter in inspect.signature(found).parameters.values()]
    return takes(found, 0) and inspect.Parameter.VAR_POSITIONAL not in kinds


def takes(function, count):
    try:
        inspect.signature(function).bind(*range(count))
        return True
    except (TypeError, ValueError):
        return False


def asgi3(app):
    """The app with the interface of ASGI 3; an ASGI 2 app, by uvicorn's guess, is wrapped."""
    if inspect.isclass(app):
        double = not hasattr(app, "__await__")
    else:
        double = not inspect.iscoroutinefunction(app if inspect.isfunction(app) else app.__call__)
    # uvicorn's guess is wrong for a plain function that returns the coroutine of another one.
    if not double or takes(app, 3):
        return app

    async def single(scope, receive, send):
        await app(scope)(receive, send)

    return single


def framework(app):
    """The framework that made the app, by the modules of its classes."""
    tops = [str(base.__module__).partition(".")[0] for base in type(app).__mro__]
    return next((top for top in tops if top in FRAMEWORKS), None)


def versions():
    from importlib import metadata

    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    return found


def routes(app):
    """The routes of a Starlette or FastAPI app, also one that middleware is wrapped around.

    Of an app that has only an OpenAPI document they are what that says.
    """
    found = []
    for _ in range(10):
        try:
            if isinstance(getattr(app, "routes", None), list):
                collect_routes(app.routes, "", found)
                break
            if callable(getattr(app, "openapi", None)):
                collect_documented(app.openapi(), found)
                break
            app = app.app
        except Exception:
            break
    return found


def collect_routes(items, prefix, found):
    """Adds the routes to `found`; what cannot be read is left out."""
    for item in items:
        try:
            # Newer FastAPI keeps an included router as one item with its routes made on demand.
            if hasattr(item, "effective_candidates"):
                collect_routes(item.effective_candidates(), prefix, found)
            else:
                collect_route(getattr(item, "starlette_route", None) or item, prefix, found)
        except Exception:
            continue


def collect_route(route, prefix, found):
    classes = [base.__name__ for base in type(route).__mro__]
    path = prefix + getattr(route, "path", "")
    kind = "http"
    if "Mount" in classes or "Host" in classes:
        kind = "mount"
    elif "WebSocketRoute" in classes:
        kind = "websocket"
    endpoint = getattr(route, "endpoint", None)
    methods = getattr(route, "methods", None) or handled_methods(endpoint)
    entry = new_entry(path, kind, methods, getattr(route, "name", None))
    collect_parameters(getattr(route, "dependant", None), entry)
    for name, convertor in (getattr(route, "param_convertors", None) or {}).items():
        if name not in [known["name"] for known in entry["params"]]:
            value = {"IntegerConvertor": "1", "FloatConvertor": "1.5", "PathConvertor": "a/b",
                     "UUIDConvertor": UUID}.get(type(convertor).__name__, "a")
            entry["params"].append(
                {"name": name, "required": True, "type": type(convertor).__name__, "good": value})
    if kind != "mount":
        entry["words"] = words_of(endpoint, *dependencies(getattr(route, "dependant", None)))
    found.append(plain(entry))
    if kind == "mount":
        collect_routes(route.routes or (), path, found)


def new_entry(path, kind, methods, name):
    return {"path": path, "kind": kind, "methods": sorted(methods or ()), "name": name,
            "query": [], "headers": [], "params": [], "cookies": [], "content_type": "",
            "body": "", "full_body": "", "words": []}


def handled_methods(endpoint):
    """The methods of a class-based endpoint, which its route does not name."""
    names = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return [name for name in names if inspect.isclass(endpoint) and hasattr(endpoint, name.lower())]


def collect_parameters(dependant, entry):
    """Adds what FastAPI reads from the request for this route and for its dependencies."""
    if dependant is None:
        return
    fields = {"query": dependant.query_params, "headers": dependant.header_params,
              "params": dependant.path_params, "cookies": dependant.cookie_params}
    for place in fields:
        for field in fields[place]:
            kind = getattr(field, "type_", None) or field.field_info.annotation
            parameter = {"name": field.alias, "required": is_required(field),
                         "type": kind.__name__ if type(kind) is type else str(kind),
                         "good": as_text(example_of(field))}
            if parameter not in entry[place]:
                entry[place].append(parameter)
    collect_body(dependant.body_params, entry)
    for nested in dependant.dependencies:
        collect_parameters(nested, entry)


def is_required(field):
    required = getattr(field, "required", None)
    return bool(field.field_info.is_required() if required is None else required)


def collect_body(fields, entry):
    """Adds a body that the route takes: with what it cannot do without, and with everything."""
    if not fields or entry["body"] or entry["full_body"]:
        return
    kinds = [type(field.field_info).__name__ for field in fields]
    if "File" in kinds or "Form" in kinds:
        form = [(field.alias, is_required(field), type(field.field_info).__name__ == "File",
                 example_of(field), example_of(field, True)) for field in fields]
        return put_form(form, entry)
    is_embedded = len(fields) > 1 or getattr(fields[0].field_info, "embed", False)
    if is_embedded:
        least = {field.alias: example_of(field) for field in fields if is_required(field)}
        most = {field.alias: example_of(field, True) for field in fields}
    else:
        least, most = example_of(fields[0]), example_of(fields[0], True)
    put_json(least, most, entry)


def put_json(least, most, entry):
    entry["content_type"] = "application/json"
    entry["body"] = json.dumps(least)
    entry["full_body"] = json.dumps(most) if most != least else ""


BOUNDARY = "relapse-form-boundary"


def put_form(form, entry):
    """Adds the bodies of a form; a field is its name, whether it is required, whether it is a file,
    and a value of it, with what it cannot do without and with everything."""
    has_files = any(is_file for _, _, is_file, _, _ in form)
    write = write_parts if has_files else write_pairs
    least = [(name, is_file, value) for name, required, is_file, value, _ in form if required]
    most = [(name, is_file, value) for name, _, is_file, _, value in form]
    entry["content_type"] = "application/x-www-form-urlencoded"
    if has_files:
        entry["content_type"] = f"multipart/form-data; boundary={BOUNDARY}"
    entry["body"], full = write(flat(least)), write(flat(most))
    entry["full_body"] = full if full != entry["body"] else ""


def flat(form):
    """A model in a form has fields of its own."""
    for name, is_file, value in form:
        if isinstance(value, dict) and not is_file:
            yield from ((inner, False, value[inner]) for inner in value)
        else:
            yield name, is_file, value


def write_pairs(form):
    return "&".join(f"{quote_plus(name)}={quote_plus(as_text(value))}" for name, _, value in form)


def write_parts(form):
    """The parts of a form with files (RFC 7578)."""
    text = ""
    for name, is_file, value in form:
        head = f'Content-Disposition: form-data; name="{name}"'
        if is_file:
            head += '; filename="a.txt"\r\nContent-Type: text/plain'
        text += f"--{BOUNDARY}\r\n{head}\r\n\r\n{as_text(value)}\r\n"
    return f"{text}--{BOUNDARY}--\r\n"


def example_of(field, everything=False):
    """A value that the field takes, by its JSON schema: with what it can do without, or not."""
    adapter = getattr(field, "_type_adapter", None)
    if adapter is None:
        from pydantic import TypeAdapter
        adapter = TypeAdapter(field.field_info.annotation)
    schema = adapter.json_schema()
    return example(schema, schema, everything=everything)


UUID = "12345678-1234-4234-8234-123456789abc"
FORMATS = {"uuid": UUID, "date": "2026-01-02", "date-time": "2026-01-02T03:04:05Z",
           "time": "03:04:05", "email": "a@example.org", "uri": "http://127.0.0.1/",
           "duration": "PT1S", "ipv4": "127.0.0.1", "binary": "a"}


FULL_DEPTH = 5  # of values with all that they may have: what is below has what it must have


def example(schema, root, depth=0, everything=False, inside=()):
    """A value of a JSON schema whose references are to `root`; those in `inside` are being followed."""
    def within(schema, *entered):
        return example(schema, root, depth + 1, everything, (*inside, *entered))

    if not isinstance(schema, dict) or depth > 10:
        return None
    if "$ref" in schema:
        return within(document_part(root, schema["$ref"]), schema["$ref"])
    for key in ("const", "default", "example"):
        if schema.get(key) is not None:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            options = [option for option in schema[key] if option.get("type") != "null"]
            return within(options[0]) if options else None
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        most = schema.get("maximum", schema.get("exclusiveMaximum", least + 2))
        value = least + 1 if least + 1 <= most else least
        if schema.get("multipleOf"):
            value = -(-value // schema["multipleOf"]) * schema["multipleOf"]
        return value
    if kind == "boolean":
        return True
    if kind == "array":
        count = max(schema.get("minItems", 1), 1)
        return [within(schema.get("items", {})) for _ in range(count)]
    if kind == "object" or "properties" in schema:
        required = schema.get("required", ())
        return {name: within(value) for name, value in schema.get("properties", {}).items()
                if name in required
                or (everything and depth < FULL_DEPTH and not leads_back(value, inside))}
    text = FORMATS.get(schema.get("format"), "a")
    return text if len(text) >= schema.get("minLength", 0) else "a" * schema["minLength"]


def document_part(root, reference):
    """What a reference names."""
    for part in reference.removeprefix("#/").split("/"):
        root = root[part]
    return root


def leads_back(schema, inside):
    """Whether a schema names one that is being followed, so that it could go on for ever."""
    text = json.dumps(schema, default=str)
    return any(json.dumps({"$ref": name})[1:-1] in text for name in inside)


def as_text(value):
    """A value as it stands in a query, a header or a path."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else ""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def collect_documented(document, found):
    """Adds the operations of an OpenAPI document."""
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            if not isinstance(operation, dict) or method.upper() not in METHODS:
                continue
            entry = new_entry(path, "http", [method.upper()], operation.get("operationId"))
            places = {"query": "query", "header": "headers", "path": "params", "cookie": "cookies"}
            for parameter in operation.get("parameters", []) + operations.get("parameters", []):
                place = places.get(parameter.get("in"))
                if place:
                    entry[place].append({
                        "name": parameter["name"], "required": bool(parameter.get("required")),
                        "type": str(parameter.get("schema", {}).get("type", "string")),
                        "good": as_text(example(parameter.get("schema", {}), document))})
            content = operation.get("requestBody", {}).get("content", {})
            collect_documented_body(content, document, entry)
            found.append(plain(entry))


def collect_documented_body(content, document, entry):
    """Adds the bodies that an OpenAPI document describes."""
    forms = ("multipart/form-data", "application/x-www-form-urlencoded")
    kind = next((kind for kind in ("application/json", *forms) if kind in content), None)
    if kind is None:
        return
    schema = content[kind].get("schema", {})
    least, most = example(schema, document), example(schema, document, everything=True)
    if kind not in forms:
        return put_json(least, most, entry)
    for _ in range(10):
        if "$ref" not in schema:
            break
        schema = document_part(document, schema["$ref"])
    properties = schema.get("properties", {})
    put_form([(name, name in least, is_file(properties.get(name, {})), least.get(name), value)
              for name, value in (most or {}).items()], entry)


def is_file(schema):
    """Whether a value of a JSON schema, or each item of it, is a file."""
    schema = schema.get("items", schema)
    return schema.get("format") == "binary" or "contentMediaType" in schema


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def guess_routes(app):
    """The paths that the code around a bare app names; nobody knows what is there."""
    try:
        function = inspect.unwrap(app) if inspect.isroutine(app) else type(app).__call__
        module = sys.modules[function.__module__]
        texts = texts_of(*(value for value in vars(module).values()
                           if getattr(value, "__module__", None) == module.__name__))
    except Exception:
        texts = []
    paths = [text for text in texts if is_path(text)]
    found = []
    for path in list(dict.fromkeys(paths))[:PATHS] or ["/ws", "/"]:
        for kind, methods in (("websocket", ()), ("http", ("GET", "POST"))):
            entry = new_entry(path, kind, methods, None)
            entry["words"] = [text for text in texts if is_word(text)][:WORDS]
            found.append(plain(entry))
    return found


PATHS = 16  # of a bare app
WORDS = 24  # of one endpoint
is_path = re.compile(r"/[A-Za-z0-9_./-]*").fullmatch
is_word = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,23}").fullmatch


def words_of(*functions):
    """What the code of an endpoint calls things: names of parameters, keys of messages, values."""
    try:
        return list(dict.fromkeys(filter(is_word, texts_of(*functions))))[:WORDS]
    except Exception:
        return []


def dependencies(dependant):
    """The functions that FastAPI calls before an endpoint."""
    for nested in getattr(dependant, "dependencies", ()):
        yield nested.call
        yield from dependencies(nested)


def texts_of(*values):
    """The texts that stand in the code of functions and classes, in order."""
    found, seen = [], set()

    def visit(value):
        value = inspect.unwrap(value) if callable(value) else value
        if inspect.isclass(value):
            for item in vars(value).values():
                visit(getattr(item, "__func__", item))
        elif inspect.ismethod(value):
            visit(value.__func__)
        elif inspect.isfunction(value):
            read(value.__code__)

    def read(code):
        if code in seen:
            return
        seen.add(code)
        is_first = True
        for const in code.co_consts:
            if inspect.iscode(const):
                read(const)
            # The first one may be the docstring.
            for text in const if isinstance(const, (tuple, frozenset)) else (const,):
                text = text.decode("latin-1") if isinstance(text, bytes) else text
                if isinstance(text, str) and not (is_first and " " in text):
                    found.append(text)
            is_first = False

    for value in values:
        visit(value)
    return found


# ---------------------------------------------------------------- the process


def limit_memory(size):
    """Lets the process have so many bytes of memory of its own; then Python raises MemoryError."""
    if size:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def leave():
    """Ends the process without waiting for threads, which an app may have left running."""
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):
        pass  # the app closed it
    os._exit(0)


def main():
    wire = Wire()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    settings = wire.read()
    limit_memory(settings.get("memory_limit"))
    if sys.version_info < (3, 9):
        wire.write({"python": sys.version.split()[0], "pid": os.getpid(), "ok": False,
                    "kind": "python-too-old", "searched": [], "near": [], "traceback": "",
                    "message": f"{sys.executable} is Python {sys.version.split()[0]}; 3.9 or newer "
                               "is needed. Name another one with --python."})
        os._exit(0)
    try:
        Session(wire, settings).run()
        leave()
    except BaseException:
        wire.write((None, [("fatal", traceback.format_exc())]))
        os._exit(70)


if __name__ == "__main__":
    main()
