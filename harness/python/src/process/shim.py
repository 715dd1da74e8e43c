"""Runs an ASGI app in lockstep with the harness that started this process.

The harness plays the ASGI server.  It sends a batch of commands with the current time; this
process runs the event loop until nothing is left to do at that time, answers with all that
happened and with the time of the next timer, and blocks until the next batch comes.  The clock of
the loop is the harness's, so a sleep costs nothing and a run can be repeated exactly.

Messages are `marshal` version 2 with a 4-byte little-endian length in front, on the pipes that
were fd 0 and fd 1 at the start.

    first     harness: dict of settings                  shim: dict about the app, see `introduce`
    batch     harness: (now_ns, [command, ...])          shim: (next_timer_ns or None, [event, ...])

    commands  seed number            look id             timers id
              call id scope [event]                       give id event
              raise id receive|send type message
              sent id              credit id bytes        cancel id    forget id    stop
    events    receive id           withdrawn id           send id event    sent id event
              blocks first path blocks                    reached id set [blocks]
              returned id
              raised id type message frames module        left id task_names
              handled id type message frames module
              log id level logger message trace unhandled                 (type message frames) or None
              unhandled id type message frames
              in_thread id type message frames
              ignored id type message frames
              unretrieved number id type message frames        retrieved number
              blocked id level ns frames                  stuck ns frames
              held                                        free
              leftover kind name frames ids
              due timer_ns or None
              note kind example    fatal text

In place of an answer comes None, again and again, while threads of the app are at work and the loop
waits for them in real time.  `blocked` tells how long the app has kept its loop from running, in
virtual time; `stuck` that the harness should not wait any longer.  The loop is `held` while the app
keeps it so, and `free` when it runs again, for one turn at least.

An exception of a finalizer is `ignored`.  One that a task or a job of a thread ended with, and that nothing has asked
for yet, is `unretrieved`, until it is `retrieved`, or told as `unhandled` because the task is gone.

The first receive() gives the event of `call` at once.
`give` and `raise ... receive` are kept for the next receive() if none waits; `sent` and
`raise ... send` without a waiting send() do nothing.  A receive() that is cancelled before it was
given anything is `withdrawn`.  A call that is over, and whose receive() or send() something of the
app still holds, is `kept` until it is `freed`; a forgotten one is kept, too.  A call with credit
need not wait for its messages: as many bytes of them as the harness is sure to take are only told, as `sent`; the credit
ends with the answer.  Where the settings ask for coverage, `blocks` numbers the blocks of a module and
`reached` tells which of them a call has reached: see coverage.py.  `look` asks for a
`leftover` for each thing that the app keeps of the calls from this number on, see `leaks.py`.
`timers` asks when the next timer of these calls is `due`.
On the real clock there is none, batches that come together share one answer,
more answers follow when something happens later, and timers are in nanoseconds of the monotonic
clock.

On the virtual clock, the functions of `time` and `datetime` that tell the time follow it, and so do
sleeps and waits with a time-out in threads: see `Clock`.  What reads a clock in C, or waits in the
system (sockets, processes, `Lock.acquire` with a time-out, another event loop), keeps real time.
"""

import _thread
import ast
import asyncio
import atexit
import builtins
import concurrent.futures.thread
import contextlib
import contextvars
import datetime
import difflib
import errno
import faulthandler
import functools
import gc
import heapq
import importlib
import importlib.machinery
import inspect
import itertools
import logging
import marshal
import math
import os
import pkgutil
import platform
import queue
import random
import re
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import types
import warnings
import weakref
from collections import deque

OWN_FILE = (lambda: 0).__code__.co_filename
PARTS = globals().pop("parts", {})  # of this program, by their paths here, from the loader
FRAMES = 20  # of a traceback, the innermost
NAME = 200  # characters of the name of a type, a function or a module, which an app can choose
PATH = 4096  # characters of the path of a file
TRACE = 64_000  # characters of a whole traceback
DEPTH = 50  # of nested values from the app
LENGTH = struct.Struct("<I")  # in front of a message of the pipes
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
NUMBER = re.compile(r"(?<![\w.])[0-9]+(?!\w|\.[0-9])")
# Words in front of a number that is probably the number of a process or thread.
OF_SYSTEM = re.compile(r"""(?ix)(?<![a-z])
    (?: [pt]g?id | ppid | n?[pt]id | (?:process|thread|native|worker|child|parent|task)
        (?:[ _-]?(?:[pt]id|id|ident|identifier|number|no\.?))? )
    ['"]?[ ]?[:=#(\[<]*[ ]?\Z""")
GROUP = os.environ.get("RELAPSE_GROUP")  # by which the harness knows what belongs to this process
THREADS = 4096  # whose numbers are remembered
SHORT = 3  # digits of a number that could be anything
WORD = 32  # characters in front of a number, in which a word is looked for

numbers_of_threads = set()


def remember_numbers(thread):
    """Remembers the numbers that the system gave a thread, which are others in each run."""
    if len(numbers_of_threads) > 2 * THREADS:
        numbers_of_threads.clear()
    numbers_of_threads.update(str(number) for number in (thread.ident, thread.native_id))


def hide_number(match):
    """Three dots for the number of this process, of its parent, or of a thread of it, which is
    another in each run.  A short one, as containers have them, can be anything: it is hidden only
    behind a word that may mean it."""
    number = match[0]
    if number not in numbers_of_threads and number not in (str(os.getpid()), str(os.getppid())):
        return number
    before = match.string[max(0, match.start() - WORD):match.start()]
    return "…" if len(number) > SHORT or OF_SYSTEM.search(before) else number


def render(how, value, limit=None):
    """`how(value)`, cut, without addresses of objects and numbers of processes and threads; "" if
    the app's own code for it raises."""
    token = current_raises.set(None)  # what is raised here is raised by us
    try:
        text = how(value)
        if limit is not None:
            text = text[:2 * limit]  # what is left out need not be looked at
        text = NUMBER.sub(hide_number, ADDRESS.sub(" at 0x…", text))
        return (text.replace(GROUP, "…") if GROUP else text)[:limit]
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
        (frame.f_code.co_filename[:PATH], line or 0, frame.f_code.co_name[:NAME])
        for frame, line in traceback.walk_tb(exc.__traceback__)
        if frame.f_code.co_filename != OWN_FILE
    ]
    kind = type(exc)
    # An app may give its types any attributes.
    name = getattr(kind, "server_name", None)
    name = name if type(name) is str else type.__dict__["__name__"].__get__(kind)
    module = getattr(kind, "__module__", None)
    return name[:NAME], render(str, exc, 2000), frames[-FRAMES:], module[:NAME] if type(module) is str else ""


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
# The exception that is being handled.
exception_at_hand = getattr(sys, "exception", lambda: sys.exc_info()[1])

RAISES = 16  # that one call has raised and not yet handled
HANDLED = 32  # different ones that are told of one call
CHAIN = 32  # exceptions that are looked at, from one to its context
TOOLS = (3, 4)  # numbers of sys.monitoring that its documentation leaves free
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

    It is the base of a call, and no part of its own: the two would hold each other.
    """

    __slots__ = ("pending", "told", "given", "over", "is_due")

    def __init__(self):
        self.pending = []
        self.told = ()
        self.given = ()  # by the server, in receive() and send()
        self.over = False  # what goes on without the call is told at once
        self.is_due = False  # exceptions are pending, or the call is over

    def add_given(self, exc):
        self.given = (*self.given, exc)[-RAISES:]

    def passed_on(self, exc):
        """The exception that the server gave, if this one was raised from it; else this one."""
        cause = exc
        for _ in range(CHAIN):
            if cause is None or any(cause is given for given in self.given):
                return cause or exc
            cause = leaf(cause).__cause__
        return exc

    def add_raised(self, exc):
        if len(self.pending) == RAISES or len(self.told) == HANDLED or is_flow(exc):
            return
        if not any(exc is other for known in (self.pending, self.given) for other in known):
            self.pending.append(exc)
            self.is_due = True
            if self.over:
                self.tell_handled(over=True)

    def tell_handled(self, left=None, over=False):
        """Tells what is handled by now; `left` is what has left a call that is over."""
        self.over = self.is_due = over
        current = left if over else exception_at_hand()
        if not self.pending and (over or watcher.works or current is None):
            return
        active = related(current, chain=not over)
        if not over and not watcher.works:
            for exc in active:
                if own.has_frame_of(exc):
                    self.add_raised(exc)
        # Threads may add to the list.
        pending = self.pending[:]
        del self.pending[:len(pending)]
        for exc in pending:
            if any(exc is other for other in active):
                if not over:
                    self.pending.append(exc)
                    self.is_due = True
                continue
            details = failure(exc)
            inside = [frame for frame in details[2] if own.has(frame[0])]
            key = (details[0], *(inside or details[2])[-1:])
            if key not in self.told:
                self.told += (key,)
                self.report("handled", *details)


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


# ---------------------------------------------------------------- exceptions that nothing handles

carried = [current_call, current_raises]  # what goes with a call into threads; a witness has its own


def in_call(function):
    """The function, which runs in the call that runs now, whichever thread runs it."""
    values = [(variable, variable.get()) for variable in carried]

    def run(*args, **kwargs):
        tokens = [(variable, variable.set(value)) for variable, value in values]
        try:
            return function(*args, **kwargs)
        finally:
            for variable, token in tokens:
                variable.reset(token)

    return run


def run_in_call(thread, tell):
    """Lets a thread that is about to start run in the call that starts it, and tells `tell(exc)` what ends it."""
    run = in_call(thread.run)

    def begin():
        thread.__dict__.pop("run", None)
        try:
            run()
        except Exception as exc:
            tell(exc)
            raise

    thread.run = begin


class WatchedFuture(concurrent.futures.Future):
    """The future of a job, which tells `asked`, a set that may outlive it, that something asks for its result."""

    # Not methods: their frames would be in the tracebacks of the app.
    @property
    def result(self):
        self.asked.add("result")
        return super().result

    @property
    def exception(self):
        self.asked.add("exception")
        return super().exception


WatchedFuture.__name__ = WatchedFuture.__qualname__ = "Future"
WatchedFuture.__module__ = concurrent.futures.Future.__module__


def watch_jobs(ended):
    """Runs the jobs of thread pools in the calls that give them.  `ended(future, call, loop)` is called in the thread of a
    job that failed, unless the loop itself gives its exception to what awaits it."""
    submit = concurrent.futures.ThreadPoolExecutor.submit
    base = concurrent.futures.Executor.map.__code__.co_filename

    def watched_submit(pool, *args, **kwargs):
        call, function = carried[0].get(), args[0] if args else None
        if call is None or not callable(function):
            return submit(pool, *args, **kwargs)
        future = submit(pool, in_call(function), *args[1:], **kwargs)
        # `map` has asked for the first exception, and drops the others.
        is_own = sys._getframe(1).f_code.co_filename != base and not hasattr(function, "relapse_is_awaited")
        if is_own and type(future) is concurrent.futures.Future:
            future.asked, future.__class__ = set(), WatchedFuture
            loop = asyncio._get_running_loop()

            def look(future):
                exc = future._exception
                if isinstance(exc, Exception) and not is_flow(exc) and not future.asked:
                    ended(future, call, loop)

            future.add_done_callback(look)
        return future

    watched_submit.__doc__ = submit.__doc__
    concurrent.futures.ThreadPoolExecutor.submit = watched_submit


OPEN = 64  # exceptions that are watched until something asks for them


class Unretrieved:
    """The exceptions of tasks and jobs that nothing has asked for yet.

    Each is told as `unretrieved` with a number of its own when it is looked for, and as `retrieved` if it is
    asked for later.  A task that goes is told by its loop; a job whose future goes can be asked no more.
    """

    def __init__(self, tell):
        self.tell = tell
        self.open = []
        self.numbers = itertools.count(1)
        self.known = set()  # the calls and types of exceptions of jobs that were asked for
        self.lock = _thread.allocate_lock()

    def add_task(self, task, call):
        self.open.append(FailedTask(task, call))

    def add_job(self, future, call):
        self.open.append(FailedJob(future, call))

    def look(self):
        """Tells what has changed."""
        if self.lock.acquire(False):  # no other look goes on
            try:
                self.tell_changes()
            finally:
                self.lock.release()

    def tell_changes(self):
        entries = self.open[:]
        # One of several jobs that fail alike is asked, and the others are dropped.
        self.known.update(entry.key for entry in entries if entry.is_asked())
        stays = [entry for entry in entries if self.is_open(entry)]
        self.open[:len(entries)] = stays[-OPEN:]  # threads may have added to it

    def is_open(self, entry):
        """Tells about one; whether it may still be asked for."""
        source = entry.ref()  # which is not to go meanwhile
        is_left = entry.is_left() and entry.key not in self.known
        if is_left and entry.number is None:
            entry.number = next(self.numbers)
            self.tell("unretrieved", entry.number, entry.call, *entry.details())
        elif not is_left and entry.number is not None:
            self.tell("retrieved", entry.number)
        return is_left and source is not None


class FailedTask:
    """A task that ended with an exception."""

    key = number = None

    def __init__(self, task, call):
        self.ref = weakref.ref(task)
        self.call = call

    def is_asked(self):
        return False

    def is_left(self):
        task = self.ref()
        return task is not None and task._log_traceback

    def details(self):
        return failure(self.ref()._exception)[:3]


class FailedJob:
    """The future of a job that ended with an exception."""

    number = None

    def __init__(self, future, call):
        self.ref = weakref.ref(future)
        self.call = call
        self.asked = future.asked
        self.told = failure(future._exception)[:3]  # a future that goes tells nothing
        self.key = (call, self.told[0])

    def is_asked(self):
        return bool(self.asked)

    def is_left(self):
        return not self.asked

    def details(self):
        return self.told


def watch_finalizers(tell):
    """Tells `tell(exc)` of exceptions of the app's own that Python can give to nothing, as those of a `__del__`.

    Gives a function that does so again where the app has put a hook of its own in the place.
    """
    inside = set()  # threads that are in a hook: one of the app may call the one that it found

    def watch_again():
        before = sys.unraisablehook
        if getattr(before, "relapse_tells", False):
            return

        def report(args):
            exc, thread = args.exc_value, _thread.get_ident()
            if thread in inside:
                return before(args)
            inside.add(thread)
            try:
                if isinstance(exc, Exception) and not is_flow(exc) and own.has_frame_of(exc):
                    tell(exc)
                before(args)
            finally:
                inside.discard(thread)
                exc = None

        report.relapse_tells = True
        sys.unraisablehook = report

    watch_again()
    return watch_again


class Watcher:
    """Sees every exception that passes the app's own code, from Python 3.12 on.

    sys.monitoring costs nothing where nothing is raised.  Before 3.12 those are seen that come to an
    `except` in the app's own code, those that are being handled when the app sends or receives,
    and those that are logged as errors.
    """

    def __init__(self):
        self.works = False
        self.coverage = None

    def start(self, directory, coverage=None):
        """Begins, before the app is loaded."""
        own.set_directory(directory)
        self.coverage = coverage
        if coverage is not None:
            setattr(builtins, coverage.COUNTER, coverage.reaches)
            self.compile_own_modules()
        monitoring = getattr(sys, "monitoring", None)
        for tool in TOOLS if monitoring else ():
            if monitoring.get_tool(tool) is None:
                monitoring.use_tool_id(tool, "relapse")
                monitoring.register_callback(tool, monitoring.events.RAISE, on_raise)
                monitoring.set_events(tool, monitoring.events.RAISE)
                self.works = True
                return
        builtins.__relapse_handles__ = on_handler
        if coverage is None:
            self.compile_own_modules()

    def compile_own_modules(self):
        load_plainly = importlib.machinery.SourceFileLoader.get_code
        importlib.machinery.SourceFileLoader.get_code = (
            lambda loader, name: load_watched(loader, name) or load_plainly(loader, name))


watcher = Watcher()


def load_watched(loader, name):
    """The code of a module of the app's own, whose `except` clauses tell that they are entered, and whose blocks are
    counted where that is asked for."""
    path = loader.get_filename(name)
    if not own.has(path):
        return None
    try:
        tree = ast.parse(loader.get_data(path), path)
    except (SyntaxError, ValueError):
        return None  # the plain way says what is wrong
    if watcher.coverage is not None:
        watcher.coverage.add_counters(tree, path)
    for node in () if watcher.works else ast.walk(tree):
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
        raises.add_raised(leaf(exception_at_hand()))


def on_raise(code, offset, exc):
    # Most are raised in libraries, or end an await of ours.
    if own.known.get(code.co_filename) is False:
        return
    raises = current_raises.get()
    if raises is not None and own.has(code.co_filename):
        raises.add_raised(exc)


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
            if len(chunk) >= 4 and len(chunk) == 4 + LENGTH.unpack_from(chunk)[0]:
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
        data = LENGTH.pack(len(body)) + body
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


SECOND = 10**9  # nanoseconds
UPTIME = 1_000_000 * SECOND  # of the virtual monotonic clock at the start: no app has just booted
BLOCKED_LIMIT = 8 * SECOND  # unless the harness names another
STUCK_LIMITS = 10  # times the blocked limit: a loop that is kept so long is stuck
WORK_LIMITS = 3  # times the blocked limit: how long virtual time waits for work in threads, really
SLOW = SECOND // 10  # a warning says that the loop was kept so long, as in asyncio's debug mode
FREE_READS = 100_000  # of the clocks, before the app is taken for one that polls them
FREE_TURNS = 10_000  # of the loop at one moment, before the app is taken for one that polls
STEP = SECOND // 100  # of virtual time for one that polls, at first
LONGEST_STEP = SECOND  # of virtual time for a loop that polls for long
READS_A_STEP = 1000
TURNS_A_STEP = 100
OWN_PATIENCE = 0.1  # seconds, real, for threads that the app itself started
LOCK_PATIENCE = 0.01  # seconds, real, before it is looked whether a thread waits for a lock
IDLE_PATIENCE = 1.0  # seconds, real, until a thread wakes by itself where the loop is blocked in C
KEEPALIVES = 4  # signs of life in the blocked limit, at least
FUTEX = {"x86_64": "202", "aarch64": "98"}.get(platform.machine())
REAL_TIME_MODULES = frozenset((
    "multiprocessing.connection", "multiprocessing.managers", "multiprocessing.pool",
    "multiprocessing.queues", "multiprocessing.synchronize", "socketserver"))

real = types.ModuleType("time")  # the clocks of the system, for those that wait in it
real.__dict__.update(vars(time))
real_wait = threading.Condition.wait
real_join = threading.Thread.join
real_start = threading.Thread.start


class Rest:
    """A thread that waits, for a lock, and to a time of the virtual clock if it has a limit."""

    __slots__ = ("lock", "condition", "ident", "call", "is_over", "is_late")

    def __init__(self, lock, condition=None):
        self.lock = lock
        self.condition = condition
        self.ident = _thread.get_ident()
        self.call = current_call.get()
        self.is_over = False
        self.is_late = False

    def lasts(self):
        """False as soon as another thread has ended it, even if this one has not yet gone on."""
        return self.condition is None or self.lock in self.condition._waiters

    def wake(self, clock):
        """Ends it because its time has come."""
        if self.condition is not None:
            try:
                self.condition._waiters.remove(self.lock)
            except ValueError:
                return  # it has just been notified
        self.is_late = True
        clock.rests.pop(self.ident, None)
        self.lock.release()


class Joining:
    """The wait for the end of a thread, with what a Rest and a lock have."""

    is_over = False

    def __init__(self, thread):
        self.thread = thread

    def lasts(self):
        # Processes live in real time, and one without a target has done its work and is about to end.
        thread = self.thread
        return thread.is_alive() and hasattr(thread, "_target") and not serves_processes(thread)

    def acquire(self, blocking=True, timeout=-1):
        real_join(self.thread, 0 if not blocking else None if timeout < 0 else timeout)
        return not self.thread.is_alive()


class Job:
    """Work for a thread of a pool, from its order to its end."""

    __slots__ = ("pool", "future", "ident", "order")

    def __init__(self, pool, future, order):
        self.pool = pool
        self.future = future
        self.ident = None  # of its thread, once it has one
        self.order = order


class Clock:
    """The clocks that the app reads: those of `time` and `datetime`, on virtual time.

    They stand still while anything runs.  Time passes in the hands of the harness, once the loop
    and all threads rest: a thread rests in a sleep, or in a wait of `threading` (conditions,
    events, queues, futures, joins).  Threads whose time has come wake one after the other, and jobs
    begin one after the other, so that a run with threads can be repeated, too.

    An app that polls a clock without ever resting would wait for ever: after many reads at one
    moment each further one takes a little time.

    `time.sleep` and the others are bound methods, which a class can have as an attribute as it can
    have the built-in ones.
    """

    def __init__(self):
        self.now_ns = UPTIME
        self.now = UPTIME / 1e9
        self.wall_ns = 0  # to be added for the time of day
        self.start_ns = UPTIME  # where the harness's time begins
        self.reads = 0
        self.is_polled = False  # since the harness had its turn
        self.is_virtual = False
        self.session = None
        self.rests = {}  # by thread
        self.jobs = {}  # by their future or, of anyio, by their thread
        self.due = []  # a heap of (time, order, Rest)
        self.orders = itertools.count()
        self.submitting = {}  # the pool, by the thread that gives it a job
        self.given_up = weakref.WeakSet()  # threads that virtual time does not wait for
        self.starting = set()  # threads that start another one, which is no wait of the app
        self.joined = None  # the thread whose end the loop's thread waits for
        self.spun_turn = -1
        self.seen = {}
        self.stalled = weakref.WeakKeyDictionary()  # how often a thread had run when it was seen to wait for a lock

    def __reduce__(self):
        # A process pool takes `time.sleep` by its name.
        return importlib.import_module, ("time",)

    # -- the functions of `time` and `datetime`

    def monotonic(self):
        """Seconds of a clock that never goes back; virtual time."""
        self.reads += 1
        if self.reads > FREE_READS:
            self.spin()
        return self.now

    def monotonic_ns(self):
        """Nanoseconds of a clock that never goes back; virtual time."""
        self.reads += 1
        if self.reads > FREE_READS:
            self.spin()
        return self.now_ns

    def time(self):
        """Seconds since the epoch; virtual time."""
        self.reads += 1
        if self.reads > FREE_READS:
            self.spin()
        return (self.wall_ns + self.now_ns) / 1e9

    def time_ns(self):
        """Nanoseconds since the epoch; virtual time."""
        self.reads += 1
        if self.reads > FREE_READS:
            self.spin()
        return self.wall_ns + self.now_ns

    def clock_gettime_ns(self, clk_id):
        """Nanoseconds of a clock of the system; virtual time."""
        if clk_id == real.CLOCK_REALTIME:
            return self.time_ns()
        if clk_id in STEADY:
            return self.monotonic_ns()
        return self.process_time_ns() if clk_id in PROCESSOR else real.clock_gettime_ns(clk_id)

    def clock_gettime(self, clk_id):
        """Seconds of a clock of the system; virtual time."""
        if clk_id == real.CLOCK_REALTIME:
            return self.time()
        if clk_id in STEADY:
            return self.monotonic()
        return self.process_time() if clk_id in PROCESSOR else real.clock_gettime(clk_id)

    def process_time(self):
        """Seconds of a processor; virtual time, since what the machine really takes is never the same."""
        return self.process_time_ns() / 1e9

    def process_time_ns(self):
        """Nanoseconds of a processor; virtual time."""
        return self.monotonic_ns() - UPTIME

    def gmtime(self, seconds=None):
        return real.gmtime(self.time() if seconds is None else seconds)

    def localtime(self, seconds=None):
        return real.localtime(self.time() if seconds is None else seconds)

    def ctime(self, seconds=None):
        return real.ctime(self.time() if seconds is None else seconds)

    def asctime(self, *when):
        return real.asctime(*when or (self.localtime(),))

    def strftime(self, form, *when):
        return real.strftime(form, *when or (self.localtime(),))

    def sleep(self, seconds):
        """Waits in virtual time.  The thread of the loop keeps the loop from running meanwhile."""
        if not self.is_virtual or not seconds > 0:
            return real.sleep(seconds)
        seconds = float(seconds)
        if seconds == math.inf:
            return real.sleep(seconds)  # it says what is wrong with that
        self.hold(_thread.allocate_lock(), seconds)

    def install(self, session):
        """Puts the clock in place of the system's, for everything that is imported from now on."""
        self.session = session
        self.is_virtual = True
        epoch = session.settings.get("epoch")
        self.wall_ns = (real.time_ns() if epoch is None else epoch) - self.now_ns
        self.patch_time()
        logging._startTime = self.time_ns() if type(logging._startTime) is int else self.time()
        self.patch_datetime()
        self.patch_threads()
        os.register_at_fork(after_in_child=self.after_fork)

    def patch_time(self):
        for name in ("monotonic", "monotonic_ns", "time", "time_ns", "clock_gettime", "sleep",
                     "clock_gettime_ns", "gmtime", "localtime", "ctime", "asctime", "strftime"):
            if hasattr(time, name):
                setattr(time, name, getattr(self, name))
        time.perf_counter, time.perf_counter_ns = self.monotonic, self.monotonic_ns
        time.process_time, time.process_time_ns = self.process_time, self.process_time_ns
        if hasattr(time, "thread_time"):
            time.thread_time, time.thread_time_ns = self.process_time, self.process_time_ns
        # Their waits are virtual, see `patch_threads`.
        threading._time = queue.time = self.monotonic
        # These wait in the system; so does another loop than ours.
        asyncio.base_events.time = subprocess.time = real
        sys.meta_path.insert(0, RealTimeFinder)

    def patch_datetime(self):
        """Replaces methods of the type itself: it stays the type that C code and pickles know."""
        kind = datetime.datetime
        from_timestamp = vars(kind)["fromtimestamp"]
        clock, utc, is_old = self.time, datetime.timezone.utc, sys.version_info >= (3, 12)

        def now(cls, tz=None):
            """The current time, in the time zone tz if there is one; virtual time."""
            return from_timestamp.__get__(None, cls)(clock(), tz)

        def utcnow(cls):
            """The current time in UTC, without a time zone; virtual time."""
            if is_old:
                warnings.warn("datetime.datetime.utcnow() is deprecated and scheduled for removal in "
                              "a future version. Use timezone-aware objects to represent datetimes "
                              "in UTC: datetime.datetime.now(datetime.UTC).", DeprecationWarning, 2)
            return from_timestamp.__get__(None, cls)(clock(), utc).replace(tzinfo=None)

        # `today` of both types asks `time.time`.  A type in C refuses setattr; its dict does not.
        try:
            (namespace,) = gc.get_referents(vars(kind))
            namespace.update(now=classmethod(now), utcnow=classmethod(utcnow))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sys._clear_type_cache()
            is_followed = abs(kind.now().timestamp() - clock()) < 1e-3
        except Exception:
            is_followed = False
        if not is_followed:
            self.session.note("the app reads the real time by", "datetime.now")

    def patch_threads(self):
        """Makes the waits of `threading` virtual, and lets it be known which threads rest."""
        clock, item = self, concurrent.futures.thread._WorkItem
        real_submit = concurrent.futures.ThreadPoolExecutor.submit
        real_item, real_run = item.__init__, item.run
        # Since Python 3.14 an item has its function in a task.
        has_task = "fn" not in item.__init__.__code__.co_varnames

        def wait(condition, timeout=None):
            if (not clock.is_virtual or (timeout is not None and not timeout > 0)
                    or _thread.get_ident() in clock.starting):
                return real_wait(condition, timeout)
            if not condition._is_owned():
                raise RuntimeError("cannot wait on un-acquired lock")
            waiter = _thread.allocate_lock()
            waiter.acquire()
            condition._waiters.append(waiter)
            saved = condition._release_save()
            was_notified = False
            try:
                was_notified = clock.hold(waiter, timeout, condition)
                return was_notified
            finally:
                condition._acquire_restore(saved)
                if not was_notified:
                    try:
                        condition._waiters.remove(waiter)
                    except ValueError:
                        pass

        def join(thread, timeout=None):
            if clock.is_virtual and thread.is_alive() and thread is not threading.current_thread():
                clock.join(thread, timeout)
            else:
                real_join(thread, timeout)

        def start(thread):
            if not clock.is_virtual:
                return real_start(thread)
            clock.adopt(thread)
            ident = _thread.get_ident()
            clock.starting.add(ident)
            try:
                real_start(thread)
            finally:
                clock.starting.discard(ident)

        def submit(pool, *args, **kwargs):
            ident = _thread.get_ident()
            clock.submitting[ident] = pool
            try:
                return real_submit(pool, *args, **kwargs)
            finally:
                del clock.submitting[ident]

        def make_item(item, *args, **kwargs):
            real_item(item, *args, **kwargs)
            if clock.is_virtual:
                pool = clock.submitting.get(_thread.get_ident())
                job = clock.jobs[item.future] = Job(pool, item.future, next(clock.orders))
                if has_task:
                    function, *rest = item.task
                    item.task = (clock.in_turn(function, job.order), *rest)
                else:
                    item.fn = clock.in_turn(item.fn, job.order)

        def run(item, *args):
            future = item.future
            try:
                job = clock.jobs.get(future)
                if job is not None and clock.is_virtual:
                    job.ident = _thread.get_ident()
                real_run(item, *args)
            finally:
                # Now its result is on the way to the loop.
                clock.jobs.pop(future, None)
                # An exception of the job keeps this frame; without its future, an exception that
                # no code retrieves is reported when the future goes, as without us.
                item = future = job = None

        for function, original in ((wait, real_wait), (join, real_join), (start, real_start),
                                   (submit, real_submit)):
            function.__doc__ = original.__doc__
        threading.Condition.wait, threading.Thread.join = wait, join
        threading.Thread.start = start
        concurrent.futures.ThreadPoolExecutor.submit = submit
        item.__init__, item.run = make_item, run

    def after_fork(self):
        """A forked child has the clocks of the system, as far as they are asked again."""
        if self.is_virtual:
            self.is_virtual = False
            self.reads = FREE_READS  # each read comes to `spin`
            self.forked_ns = real.monotonic_ns() - self.now_ns

    # -- how it goes on

    def begin(self):
        """The harness's time begins now."""
        self.start_ns = self.now_ns

    def advance(self, now_ns):
        """Sets the clock; it never goes back."""
        if now_ns > self.now_ns:
            self.now_ns = now_ns
            self.now = max(self.now, now_ns / 1e9)

    def forget_reads(self):
        """Time passes: one that does not poll the clock reads it for nothing again."""
        self.reads = FREE_READS if self.is_polled else 0
        self.is_polled = False

    def spin(self):
        """The app reads the clock all the time and does not rest: that takes time, too."""
        if not self.is_virtual:
            self.advance(real.monotonic_ns() - self.forked_ns)
            return
        if self.reads % READS_A_STEP:
            return
        self.is_polled = True
        session = self.session
        if _thread.get_ident() != session.ident:
            self.hold(_thread.allocate_lock(), STEP / 1e9)
        elif session.turn_count == self.spun_turn:
            session.block(self.now_ns + STEP, Never)
        else:
            self.spun_turn = session.turn_count  # the loop runs, and will let time pass

    def hold(self, lock, seconds, condition=None, order=None):
        """Keeps the thread waiting until the lock is free; False if its time comes before."""
        if condition is None:
            lock.acquire()
        until = None
        if seconds is not None and seconds < NEVER:
            until = self.now_ns + max(round(seconds * 1e9), 1 if order is None else 0)
        session = self.session
        if _thread.get_ident() == session.ident:
            return session.block(until, Never if condition is None else lock)
        rest = Rest(lock, condition)
        self.given_up.discard(threading.current_thread())
        if until is None:
            patience = -1
        else:
            heapq.heappush(self.due, (until, next(self.orders) if order is None else order, rest))
            patience = min(max(seconds, IDLE_PATIENCE), threading.TIMEOUT_MAX)
        # From now on the loop may go on without it.
        self.rests[rest.ident] = rest
        session.wake()
        try:
            turns = session.turn_count
            while not lock.acquire(True, patience):
                # A loop that is blocked in C, maybe by this very thread, cannot wake it.
                if session.turn_count == turns and not session.is_waiting and not session.is_idle:
                    rest.is_late = True
                    break
                turns = session.turn_count
        finally:
            rest.is_over = True
            if self.rests.get(rest.ident) is rest:
                del self.rests[rest.ident]
        return not rest.is_late

    def join(self, thread, timeout):
        """Waits for the end of a thread, in virtual time."""
        until = None if timeout is None else self.now_ns + round(max(timeout, 0) * 1e9)
        ident, joining = _thread.get_ident(), Joining(thread)
        if ident == self.session.ident:
            self.joined = thread
            try:
                self.session.block(until, joining)
            finally:
                self.joined = None
        elif until is None:
            self.rests[ident] = joining
            self.session.wake()
            try:
                real_join(thread)
            finally:
                self.rests.pop(ident, None)
        else:
            # Nothing can end the wait in C when the time has come.
            while thread.is_alive() and self.now_ns < until:
                step = max((until - self.now_ns) // 64, SECOND // 1000)
                self.hold(_thread.allocate_lock(), step / 1e9)

    def in_turn(self, function, order):
        """The function, which begins once the loop and the threads before it rest."""
        def begin(*args, **kwargs):
            if self.is_virtual:
                self.hold(_thread.allocate_lock(), 0, order=order)
            return function(*args, **kwargs)

        return begin

    def adopt(self, thread):
        """Lets a thread that is about to start begin its work when its turn comes."""
        if is_anyio_worker(thread):
            inbox, jobs = thread.queue, self.jobs
            real_put, real_get = inbox.put_nowait, inbox.get
            given, taken = deque(), None  # the jobs of what is in the inbox, and of what was taken last

            def put_nowait(item):
                job = None
                if item is not None and self.is_virtual:
                    job = jobs[thread] = Job(None, None, next(self.orders))
                    job.ident = thread.ident
                    context, function, *rest = item
                    item = (context, self.in_turn(function, job.order), *rest)
                given.append(job)
                real_put(item)

            def get(*args, **kwargs):
                nonlocal taken
                # A worker reports its result before it comes here, so that it may have its next
                # job by now.
                if taken is not None and jobs.get(thread) is taken:
                    jobs.pop(thread, None)
                item = real_get(*args, **kwargs)
                taken = given.popleft()
                return item

            inbox.put_nowait, inbox.get = put_nowait, get
        elif is_own_thread(thread):
            run, order = thread.run, next(self.orders)

            def begin():
                thread.__dict__.pop("run", None)
                self.in_turn(run, order)()

            thread.run = begin

    def next_due(self):
        """The time of the first thread that waits for its time, or None."""
        due = self.due
        while due and due[0][2].is_over:
            heapq.heappop(due)
        return due[0][0] if due else None

    def wake_next(self):
        """Wakes the next thread whose time has come, if there is one."""
        due = self.next_due()
        if due is None or due > self.now_ns:
            return False
        heapq.heappop(self.due)[2].wake(self)
        return True

    # -- threads at work

    def busy(self):
        """The threads that are at work, and None for each job that is about to begin."""
        found, idents = [], {}
        threads = threading.enumerate()
        # One that has no work and whose end another one waits for is about to end.
        joined = [rest.thread for rest in list(self.rests.values()) if isinstance(rest, Joining)]
        joined += [] if self.joined is None else [self.joined]
        # Python does not list one any more that ends.
        threads += [thread for thread in joined if thread not in threads and thread.is_alive()]
        for thread in threads:
            idents[thread.ident] = thread
            is_at_work = thread in joined or is_own_thread(thread) or manages_jobs(thread)
            if is_at_work and not self.is_at_rest(thread):
                found.append(thread)
        running = {}
        for job in list(self.jobs.values()):
            if job.ident is not None:
                running[job.pool] = running.get(job.pool, 0) + 1
                thread = idents.get(job.ident)
                if thread is not None and thread not in found and not self.is_at_rest(thread):
                    found.append(thread)
        for job in list(self.jobs.values()):
            # In a pool without a free thread it cannot begin.
            if job.ident is None and job.pool is not None and not job.future.cancelled():
                if running.get(job.pool, 0) < job.pool._max_workers:
                    found.append(None)
        return found

    def is_at_rest(self, thread):
        rest = self.rests.get(thread.ident)
        if rest is not None and rest.lasts() or thread in self.given_up:
            return True
        # A process pool's own thread waits for locks that are freed in real time.
        return (not is_process_manager(thread)
                and thread in self.stalled and self.stalled[thread] == switches(thread))

    def look_for_locks(self, threads):
        """Remembers which of these threads wait for a lock, and have not run since the last look.

        One that sleeps in virtual time can have that lock, and would never be woken.
        """
        seen = {}
        for thread in threads:
            if thread is not None:
                count = switches(thread)
                if count is not None and self.seen.get(thread) == count:
                    self.stalled[thread] = count
                seen[thread] = count
        self.seen = seen


STEADY = {getattr(time, name) for name in dir(time) if name in (
    "CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW", "CLOCK_BOOTTIME", "CLOCK_UPTIME", "CLOCK_HIGHRES")}
PROCESSOR = {getattr(time, name) for name in ("CLOCK_PROCESS_CPUTIME_ID", "CLOCK_THREAD_CPUTIME_ID")
             if hasattr(time, name)}


class Sown(random.Random):
    """The generator of the module `random`, which takes its seed when it is first asked: that takes
    as long as some small cases."""

    due = None  # the seed that it has not taken yet

    def seed(self, a=None, version=2):
        self.due = None
        super().seed(a, version)

    def take(self):
        due, self.due = self.due, None
        if due is not None:  # no other thread has just taken it
            super().seed("{} {}".format(*due))

    def random(self):
        if self.due is not None:
            self.take()
        return super().random()

    def getrandbits(self, k):
        if self.due is not None:
            self.take()
        return super().getrandbits(k)

    def getstate(self):
        if self.due is not None:
            self.take()
        return super().getstate()

    def setstate(self, state):
        self.due = None
        super().setstate(state)

    @classmethod
    def install(cls):
        """Makes the module's own generator one, for everything that is imported from now on."""
        random._inst.__class__ = cls
        for name in ("seed", "random", "getrandbits", "getstate", "setstate"):
            getattr(cls, name).__doc__ = getattr(random.Random, name).__doc__
            setattr(random, name, getattr(random._inst, name))


class Chance:
    """What is random in the app, from a seed: `os.urandom`, and with it `secrets`, `uuid` and `random`.

    Each connection begins a stream that its case names.  The same case once more gets another one:
    an app may keep what has to be unique, such as the key of a row.  A forked child has the
    system's own.  What asks the system in C, as `ssl` does, has it too.
    """

    def __init__(self):
        self.times = {}  # that each seed was sown
        self.name = None  # of the stream: its seed, and which time it is; None in a forked child
        self.stream = None  # made when it is first needed: that takes 6 us
        self.lock = _thread.allocate_lock()
        self.urandom_of_system = os.urandom

    def install(self, seed):
        """Takes the place of the system's, for everything that is imported from now on."""
        import uuid

        plant, chance = random.Random.seed, self

        def seed_from_here(generator, a=None, version=2):
            plant(generator, int.from_bytes(chance.urandom(32), "little") if a is None else a, version)

        seed_from_here.__doc__ = plant.__doc__
        random.Random.seed = seed_from_here
        Sown.install()
        os.urandom = random._urandom = self.urandom
        if hasattr(os, "getrandom"):
            os.getrandom = lambda size, flags=0: self.urandom(size)
        # These ask the system for the time.
        uuid._generate_time_safe = uuid._UuidCreate = None
        os.register_at_fork(after_in_child=self.after_fork)
        self.sow(seed)

    def sow(self, seed):
        """Begins the stream of a seed."""
        times = self.times[seed] = self.times.get(seed, 0) + 1
        self.name, self.stream = (seed, times), None
        # `random` is left with a sequence of its own, which the app's own seed replaces.
        random._inst.due = self.name

    def urandom(self, size):
        """Bytes that are random to the app, and the same in each run."""
        if self.name is None:
            return self.urandom_of_system(size)
        with self.lock:
            if self.stream is None:
                self.stream = random.Random("system {} {}".format(*self.name))
        return self.stream.randbytes(size)

    def after_fork(self):
        self.name = random._inst.due = None


class Never:
    """A lock that is never free."""

    @staticmethod
    def acquire(blocking=True, timeout=0):
        if blocking:
            real.sleep(max(timeout, 0))
        return False


class RealTimeFinder:
    """Gives the real `time` to modules that wait in the system, when they are imported."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in REAL_TIME_MODULES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                virtual = sys.modules["time"]
                sys.modules["time"] = real
                try:
                    execute(module)
                finally:
                    sys.modules["time"] = virtual

            spec.loader.exec_module = exec_module
        return spec


def marked(executor, func, mark):
    """The function as the job of an executor; its exceptions carry the mark of the call that gave it."""
    if mark is None or not callable(func):
        return func
    processes = sys.modules.get("concurrent.futures.process")
    if processes is not None and isinstance(executor, processes.ProcessPoolExecutor):
        return func  # it goes to another process

    @functools.wraps(func, updated=())
    def job(*args):
        try:
            return func(*args)
        except Exception as exc:
            with contextlib.suppress(AttributeError, TypeError):
                exc.relapse_mark = mark
            raise

    job.relapse_is_awaited = True
    return job


class LockstepLoop(asyncio.SelectorEventLoop):
    """An event loop on the virtual clock."""

    def __init__(self, selector, clock):
        super().__init__(selector)
        self.clock = clock
        self._clock_resolution = 1e-9

    def time(self):
        return self.clock.now

    def deadline(self):
        """The time of the next timer in nanoseconds.  The loop has just dropped cancelled heads."""
        timers = self._scheduled
        if timers and timers[0]._when < NEVER:
            return round(timers[0]._when * 1e9)
        return None

    def advance(self, now_ns):
        """Sets the clock; it never goes back."""
        self.clock.advance(now_ns)
        self.catch_up(self.deadline())

    def catch_up(self, due):
        """True if the next timer is `due` in the present nanosecond; it will then really run.

        A float deadline can lie a hair behind the float of its nanosecond.  The clock goes to the
        deadline itself, so that code which compares the two never sees "not yet" again and again.
        """
        clock = self.clock
        if due is None or due > clock.now_ns:
            return False
        when = self._scheduled[0]._when
        clock.now = max(clock.now, when)
        # A clock of many months is coarser than the resolution.
        while clock.now + self._clock_resolution <= when:
            clock.now = math.nextafter(clock.now, math.inf)
        return True

    def run_in_executor(self, executor, func, *args):
        """An exception of the job knows the call that gave the job."""
        return super().run_in_executor(executor, marked(executor, func, current_call.get()), *args)

    def create_task(self, coro, **options):
        """As usual, and the task knows the call that it belongs to."""
        task = super().create_task(coro, **options)
        context = options.get("context")
        call = current_call.get() if context is None else context.get(current_call)
        if call is not None:
            call.tasks += 1
            task.lockstep_call = call
            if call.tasks > 1:
                # Without a context that holds the call.
                task.add_done_callback(self.task_ended, context=contextvars.Context())
        return task

    told_context = None

    def call_exception_handler(self, context):
        """Tells of it, whatever handler the app has."""
        self.told_context = context
        self.unhandled(context)
        super().call_exception_handler(context)
        self.told_context = None

    def default_exception_handler(self, context):
        """Tells that the app's own handler raised."""
        if context is not self.told_context:
            self.unhandled(context)


def is_anyio_worker(thread):
    return type(thread).__name__ == "WorkerThread" and type(thread).__module__.startswith("anyio.")


def is_own_thread(thread):
    """True for a thread that the app itself runs, not a pool: of those, jobs are counted."""
    if thread is threading.main_thread() or is_anyio_worker(thread):
        return False
    return target_module(thread) != "concurrent.futures.thread" and not serves_processes(thread)


def target_module(thread):
    return getattr(getattr(thread, "_target", None), "__module__", None)


def is_process_manager(thread):
    """True for the thread that a process pool has for its results."""
    return type(thread).__module__ == "concurrent.futures.process"


def serves_processes(thread):
    return is_process_manager(thread) or target_module(thread) == "multiprocessing.queues"


def manages_jobs(thread):
    """True for the thread of a process pool, as long as that has jobs or results on their way."""
    if not is_process_manager(thread):
        return False
    waits = "wait_result_broken_or_wakeup"
    return (bool(getattr(thread, "pending_work_items", None))
            or not any(frame.f_code.co_name == waits for frame in stack(thread.ident)))


def switches(thread):
    """How often a thread that waits for a lock has run until now; None if it does not, or where the
    system does not tell."""
    folder = f"/proc/self/task/{thread.native_id}/"
    try:
        with open(folder + "status") as file:
            lines = [line for line in file if line.startswith("State:") or "ctxt_switches" in line]
        # One that has been woken is R before it runs.
        if not lines or "S (sleeping)" not in lines[0]:
            return None
        with open(folder + "syscall") as file:
            return lines if file.read().split(" ", 1)[0] == FUTEX else None
    except OSError:
        return None


def stack(ident):
    """The frames of a thread, innermost first."""
    frame = sys._current_frames().get(ident)
    while frame is not None:
        yield frame
        frame = frame.f_back


def places(ident):
    """The frames of a thread as events tell them, outermost first."""
    found = [(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name)
             for frame in stack(ident) if frame.f_code.co_filename != OWN_FILE]
    return found[:FRAMES][::-1]


class Blocked:
    """How long the app has kept its loop from running, and where it did so longest."""

    __slots__ = ("ns", "longest", "frames", "call", "at")

    def __init__(self):
        self.ns = self.longest = 0
        self.frames, self.call, self.at = [], None, 0


# ---------------------------------------------------------------- calls


def settle(future, item):
    """Ends the wait with `item`; an exception is raised there, even if nothing waits any more."""
    if isinstance(item, BaseException):
        future.set_exception(item)
        future.exception()  # asyncio would otherwise complain that it was never retrieved
    else:
        future.set_result(item)


def message_size(event):
    """How many bytes a message is on the wire, at most; 0 for what a server might not take, and for
    what `snapshot` has to look at."""
    if type(event) is dict and len(event) == 2 and event.get("type") == "websocket.send":
        text, data = event.get("text"), event.get("bytes")
        if type(text) is str and text.isascii():
            return len(text) + HEADER
        if type(data) is bytes:
            return len(data) + HEADER
    return 0


# Exceptions of servers' libraries that have another base than Exception.
BASES = {"autobahn.exception.Disconnected": RuntimeError}


@functools.lru_cache(maxsize=None)
def library_exception(name):
    """A type that looks like the one of a server's library, as in `h11._util.LocalProtocolError`."""
    module, _, last = name.rpartition(".")
    return type(last, (BASES.get(name, Exception),), {"__module__": module, "server_name": name})


ENCODE_ERROR = re.compile(
    r"'utf-8' codec can't encode characters? (?:'\\u(\w{4})' )?in position (\d+)(?:-(\d+))?: (.*)", re.DOTALL)


def encode_error(message):
    """The error of `str.encode` with that message, or None."""
    found = ENCODE_ERROR.fullmatch(message)
    if found is None:
        return None
    surrogate, first, last, reason = found.groups()
    first, last = int(first), int(last or first)
    text = "?" * first + chr(int(surrogate or "d800", 16)) * (last - first + 1)
    return UnicodeEncodeError("utf-8", text, first, last + 1, reason)


def build_exception(name, message):
    """The exception of that name, or RuntimeError("name: message")."""
    if name == "UnicodeEncodeError":
        exc = encode_error(message)
        if exc is not None:
            return exc
    special = {"CancelledError": asyncio.CancelledError, "ClientDisconnected": ClientDisconnected}
    kind = special.get(name) or getattr(builtins, name, None)
    if kind is KeyError:
        message = message.strip("'")  # which its text adds again
    if "." in name:
        kind = library_exception(name)
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


class Call(Raises):
    """One run of the app, with the receive and the send it was given."""

    __slots__ = ("id", "loop", "events", "task", "tasks", "receives", "sends", "inbox", "credit",
                 "first", "kind", "started", "forgotten", "session", "reached", "__weakref__")

    def __init__(self, ident, session, first):
        Raises.__init__(self)
        self.first = first  # event, which the first receive() gives
        self.kind = None  # of its scope
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
        self.session = session
        self.reached = set()  # blocks of the app's code

    def forget(self):
        self.session.keep(self)
        self.forgotten = True

    def report(self, kind, *details):
        if not self.forgotten:
            self.events.append((kind, self.id) + details)

    def tell_reached(self):
        if self.reached and not self.forgotten:
            watcher.coverage.tell(self)

    async def run(self, app, scope, finished):
        """Calls the app.  Whatever it raises is its result and never harms the loop."""
        self.started = True
        current_raises.set(self)
        try:
            await app(scope, self.receive, self.send)
        except BaseException as exc:
            self.tell_handled(exc, over=True)
            self.tell_reached()
            self.report("raised", *failure(self.passed_on(exc)))
        else:
            self.tell_handled(over=True)
            self.tell_reached()
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
        if self.is_due or exception_at_hand() is not None:
            self.tell_handled()
        self.events.append(("receive", self.id))
        if self.first is not None:
            event, self.first = self.first, None
            return event
        future = self.loop.create_future()
        self.receives.append(future)
        if self.inbox:
            self.serve()
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                # A server gives nothing to a receive that nothing waits for.
                self.events.append(("withdrawn", self.id))
            elif future.done() and future.exception() is None:
                # The event came together with the cancellation: the next receive gets it.
                self.inbox.appendleft(future.result())
                self.serve()
            raise

    def allow(self, size):
        """Lets it send so many bytes without waiting, until the next answer."""
        # On the real clock the harness moves while the app does.
        if not self.session.real:
            self.credit = size
            self.session.credited.append(self)

    def give(self, item):
        if isinstance(item, BaseException):
            self.add_given(item)
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
        size = message_size(event)
        event = event.copy() if size else snapshot(event)
        if self.is_due or exception_at_hand() is not None:
            self.tell_handled()
        if 0 < size <= self.credit:
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
            self.add_given(item)
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
        unhandled = None
        if exc is not None:
            exc = leaf(exc)
            message = f"{message.strip()}: {type(exc).__name__}: {render(str, exc, 2000)}"
            if call is not None and record.levelno >= logging.ERROR:
                call.add_raised(exc)
                # An exception that the app itself logs is handled by the app.
                if not own.has(record.pathname) and not is_flow(exc) and own.has_frame_of(exc):
                    unhandled = failure(exc)[:3]
        self.events.append(
            ("log", call and call.id, record.levelno, record.name, message, trace, unhandled))

    def install(self):
        """Puts itself on the root logger, again if the app's own configuration took it off."""
        root = logging.getLogger()
        if self not in root.handlers:
            root.addHandler(self)
        if root.level > self.level:
            root.setLevel(self.level)


REFERENCES = 2  # to a call that nothing of the app holds: a variable here, and an argument


class Session:
    """Obeys the harness's commands and collects the events for the answers."""

    def __init__(self, wire, settings):
        self.wire = wire
        self.settings = settings
        self.real = settings.get("clock") == "real"
        self.events = []
        self.calls = {}
        self.kept = {}  # references to calls that are over or forgotten, and that something holds
        self.over = []  # calls that have just ended
        self.ended = []  # calls that returned and had started tasks
        self.credited = []  # calls that may send without waiting, until the answer
        self.noted = set()
        self.state = {}
        self.owes_answer = False
        self.turn_count = 0  # of the loop
        self.last_count = 0  # when the harness had its turn
        self.last_ns = 0
        self.was_busy = False  # the harness had its turn while the loop could not rest
        self.has_commands = False  # that came then
        self.is_held = False  # the harness was told that the app blocks the loop
        self.is_waiting = False  # for threads
        self.is_idle = False  # waits for the harness
        self.app = None
        self.selector = LockstepSelector()
        self.selector.turn = self.turn_real if self.real else self.turn_virtual
        self.clock = Clock()
        self.loop = LockstepLoop(self.selector, self.clock)
        self.loop.unhandled = self.unhandled
        self.loop.task_ended = self.task_ended
        self.unretrieved = Unretrieved(self.tell_unretrieved)
        if self.real:
            self.loop.time = time.monotonic
            self.clock.start_ns = 0
            self.selector.register(wire.source, selectors.EVENT_READ)
        else:
            self.clock.install(self)
        self.chance = Chance()
        if not self.real and settings.get("chance") != "system":
            self.chance.install(settings.get("seed"))
        self.files = self.selector._fd_to_key  # each turn asks for its length
        self.own_files = len(self.files)
        self.stopping = False
        self.is_loaded = False
        self.leftovers = None
        self.is_aftermath = False  # the harness waits for what is left of calls
        self.blocked = Blocked()
        limit = settings.get("blocked_limit") or BLOCKED_LIMIT
        self.blocked_limit = limit
        self.work_limit = WORK_LIMITS * limit / 1e9
        self.keepalive = min(1.0, limit / 1e9 / KEEPALIVES)
        self.stopped = self.loop.create_future()
        self.tap = LogTap(self.events, settings.get("log_level", logging.INFO))

    # -- the loop

    def run(self):
        """Loads the app and obeys until the harness says stop."""
        self.tap.install()
        self.watch_threads()
        watch_jobs(self.job_ended)
        self.watch_finalizers = watch_finalizers(self.ignored)
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
        coverage = import_coverage(self.events) if self.settings.get("coverage") else None
        watcher.start((*self.settings.get("path", ()), os.getcwd())[0], coverage)
        # Inside the running loop, as uvicorn does it.
        self.app, reply = introduce(self.settings)
        self.wire.write(reply)
        if self.app is None:
            leave()
        if not self.real:
            self.clock.begin()
        self.is_loaded = True
        self.tap.install()
        if not self.real:
            names = {}
            run_part("leaks.py", names)
            self.leftovers = names["Leftovers"](self, own, current_call)
        gc.freeze()
        await self.stopped
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)

    def turn_virtual(self, timeout):
        """One select() of the loop.  With nothing left to do now, the harness has its turn."""
        self.turn_count += 1
        has_files = len(self.files) > self.own_files
        if self.was_busy and self.resume():
            timeout = 0
        if timeout == 0 or self.stopping:
            if not (self.turn_count - self.last_count) % TURNS_A_STEP and not self.stopping:
                return self.spin(has_files)
            return self.selector.poll(0) if has_files else []
        loop = self.loop
        next_timer = loop.deadline() if loop._scheduled else None
        if next_timer is not None and loop.catch_up(next_timer):
            return []
        if _thread._count() > 0 or self.clock.due:
            ready = self.wait_for_threads()
            next_timer = self.next_time()
        else:
            # Without threads only the app's own files can wake the loop; one that has just
            # ended may have left something to do.
            ready = self.selector.poll(0) if has_files else []
        if not ready and not loop._ready:
            if self.owes_answer:
                if has_files:
                    self.note_files()
                self.answer(next_timer)
            self.is_idle = True
            batch = self.wire.read()
            self.is_idle = False
            self.obey(batch)
        return ready

    def spin(self, has_files):
        """A select() of a loop that always has something to do: others go on meanwhile, too."""
        if _thread._count() > 0 or self.clock.due:
            ready = self.work(self.look)
            if ready or self.clock.wake_next():
                return ready
        if self.turn_count - self.last_count > FREE_TURNS:
            timer = self.loop.deadline()
            if not self.loop.catch_up(timer):
                self.let_time_pass(min(filter(None, (self.next_step(), timer))))
        return self.selector.poll(0) if has_files else []

    def next_step(self):
        """How far a loop that polls is to go: one that has polled for long takes longer steps."""
        now_ns = self.clock.now_ns
        return now_ns + min(max(STEP, (now_ns - self.last_ns) // 32), LONGEST_STEP)

    ident = _thread.get_ident()  # of the loop's thread

    def next_time(self):
        """The time of the next timer, of the loop or of a thread that rests."""
        return min(filter(None, (self.loop.deadline(), self.clock.next_due())), default=None)

    def wait_for_threads(self):
        """Returns what is ready when a thread wakes the loop, and [] once all threads rest."""
        while True:
            ready = self.work(self.look)
            # Jobs that are to begin, and threads whose time has come, one after the other.
            if ready or self.loop._ready or not self.clock.wake_next():
                return ready

    def look(self, seconds):
        """Returns what is ready for the loop.  A thread that now rests wakes only the selector."""
        ready, loop = self.selector.poll(seconds), self.loop
        if len(ready) == 1 and ready[0][0].fileobj is loop._ssock and not loop._ready:
            loop._read_from_self()
            return ready if loop._ready else []
        return ready

    def work(self, look):
        """Lets the threads work until all of them rest, or `look(seconds)` finds something.

        In real time.  After a while it is looked who waits for a lock that one at rest may have;
        there are limits to the patience with others, too.
        """
        clock, pause, started, said = self.clock, 0.0002, real.monotonic(), 0.0
        self.is_waiting = True
        try:
            while True:
                # In this order: a job that ends in between has already made the selector ready.
                busy = clock.busy()
                found = look(pause if busy else 0)
                if found or not busy:
                    return found
                waited = real.monotonic() - started
                pause = min(2 * pause, 0.05)
                if waited > LOCK_PATIENCE:
                    clock.look_for_locks(busy)
                for thread in busy:
                    self.lose_patience(thread, waited)
                if waited > said + self.keepalive and self.is_loaded:
                    said = waited
                    self.wire.write(None)
        finally:
            self.is_waiting = False

    def lose_patience(self, thread, waited):
        """Notes a thread that virtual time does not wait for any more."""
        if thread is None:
            return
        is_own = is_own_thread(thread)
        if waited < (OWN_PATIENCE if is_own else self.work_limit):
            return
        self.clock.given_up.add(thread)
        if is_own:
            self.note("a thread of the app's own is running", thread.name)
        else:
            frames = places(thread.ident)
            where = "{0}:{1} in {2}".format(*frames[-1]) if frames else thread.name
            self.note(f"work in a thread takes more than {self.work_limit:g} s", where)

    def wake(self):
        """Tells the loop's thread, which may be waiting for threads, that another one rests."""
        if self.is_waiting:
            self.loop._write_to_self()

    # -- a loop that the app blocks

    def block(self, until, lock):
        """Keeps the loop's own thread waiting for a lock, in virtual time; False if it is late.

        The harness has its turn meanwhile; its commands only schedule, and wait for the loop.
        """
        clock, blocked = self.clock, self.blocked
        started, before = clock.now_ns, blocked.ns
        ident = _thread.get_ident()
        while True:
            if self.work(lambda seconds: lock.acquire(True, seconds) if seconds else lock.acquire(False)):
                is_free = True
                break
            if until is not None and clock.now_ns >= until:
                is_free = False
                break
            if clock.wake_next():
                continue
            self.let_time_pass(until, before + clock.now_ns - started)
            blocked.ns = before + clock.now_ns - started
            self.was_busy = True
        if clock.now_ns - started >= blocked.longest:
            blocked.longest = clock.now_ns - started
            blocked.frames, blocked.call = places(ident), current_call.get()
        blocked.at = len(self.events)
        return is_free

    def let_time_pass(self, until, blocked_ns=None):
        """Gives the harness its turn while the loop cannot rest; it should come back by `until`."""
        clock = self.clock
        due = [time for time in (until, clock.next_due()) if time is not None]
        if blocked_ns is not None:
            due += self.look_if_stuck(until, blocked_ns)
        if not self.is_loaded or self.stopping:
            # The harness is not there yet, or not any more.
            if not due:
                return real.sleep(0.001)
            if not self.stopping:
                real.sleep((min(due) - clock.now_ns) / 1e9)
            clock.advance(min(due))
            clock.forget_reads()
            return
        if blocked_ns is not None and not self.is_held:
            self.is_held = True
            self.events.append(("held",))
        self.answer(min(due, default=None))
        self.is_idle = True
        now_ns, commands = self.wire.read()
        self.is_idle = False
        self.owes_answer = True
        self.has_commands = self.was_busy = True
        self.execute(commands)
        clock.forget_reads()
        clock.advance(clock.start_ns + now_ns)

    def look_if_stuck(self, until, blocked_ns):
        """The time when a blocked loop is to be taken for stuck, if it will be; tells so then."""
        clock, limit = self.clock, self.blocked_limit
        if until is None:
            until = clock.next_due()  # that thread may be the one that it waits for
        if until is not None and until - clock.now_ns + blocked_ns <= STUCK_LIMITS * limit:
            return []
        if blocked_ns >= limit and self.is_loaded:
            self.events.append(("stuck", blocked_ns, places(_thread.get_ident())))
        return [clock.now_ns + max(limit - blocked_ns, 0)]

    def resume(self):
        """The loop runs again; True if commands came meanwhile."""
        self.was_busy = False
        if self.is_held:
            self.is_held = False
            self.events.append(("free",))
        if self.blocked.ns:
            self.tell_blocked()
        has_commands, self.has_commands = self.has_commands, False
        return has_commands

    def tell_blocked(self):
        """The loop runs again: tells how long the app has kept it from that."""
        blocked, self.blocked = self.blocked, Blocked()
        call = blocked.call
        if blocked.ns < SLOW or (call is not None and call.forgotten):
            return
        level = logging.ERROR if blocked.ns > self.blocked_limit else logging.WARNING
        event = ("blocked", call and call.id, level, blocked.ns, blocked.frames)
        self.events.insert(min(blocked.at, len(self.events)), event)

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
        if self.unretrieved.open:
            self.unretrieved.look()
        while self.credited:
            self.credited.pop().credit = 0
        while self.over:
            call = self.over.pop()
            if sys.getrefcount(call) > REFERENCES:
                self.keep(call)
        events = self.events[:]
        if next_timer is not None:
            next_timer -= self.clock.start_ns
        self.wire.write((next_timer, events))
        del self.events[:len(events)]
        self.owes_answer = False

    def note_files(self):
        for fd in list(self.files)[self.own_files:]:
            self.note("the app waits on", describe_file(fd))

    def look_for_left(self):
        """Reports the tasks that returned calls have left running."""
        for call in self.ended:
            names = [task.get_name() for task in asyncio.all_tasks(self.loop)
                     if getattr(task, "lockstep_call", None) is call]
            if names:
                # all_tasks() has no order; this one puts Task-9 before Task-10.
                call.report("left", sorted(names, key=lambda name: (len(name), name)))
        self.ended.clear()

    def note(self, kind, example):
        """Tells once of something that virtual time does not wait for."""
        if (kind, example) not in self.noted:
            self.noted.add((kind, example))
            self.events.append(("note", kind, example))

    def unhandled(self, context):
        """An exception that was never retrieved, as asyncio reports it."""
        exc = context.get("exception")
        if isinstance(exc, (KeyboardInterrupt, SystemExit)):
            return  # `run` has reported it
        if self.loop._exception_handler is not None or self.is_aftermath:
            # The app's own handler may know what it is, and a client that is gone explains it.
            if exc is None or is_flow(leaf(exc)):
                return
        context = context.get("context") or context  # of an app's handler that raised
        source = context.get("task") or context.get("future")
        call = getattr(source, "lockstep_call", None) or current_call.get()
        if call is None:
            # The job of an executor's thread: its future may go in any thread.
            call = getattr(exc, "relapse_mark", None)
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
            call.add_raised(leaf(exc))
            call.tell_handled()

    def task_ended(self, task):
        """A task of a call has ended.  Where it failed, something may wait for that."""
        if not getattr(task, "_log_traceback", False) or self.stopping:
            return
        call = task.lockstep_call
        if call.kind == "lifespan":
            self.loop.call_soon(self.loop.call_soon, self.tell_background, task)
        elif not call.forgotten and not is_flow(leaf(task._exception)):
            self.unretrieved.add_task(task, call.id)

    def job_ended(self, future, call, loop):
        """A job that a call gave to a thread pool failed, in this thread."""
        if not call.forgotten:
            self.unretrieved.add_job(future, call.id)

    def tell_unretrieved(self, *event):
        self.events.append(event)

    def ignored(self, exc):
        """An exception that a finalizer of the app raised."""
        call = current_call.get()
        if call is not None and not call.forgotten:
            call.add_raised(leaf(exc))
            self.events.append(("ignored", call.id) + failure(exc)[:3])

    def tell_background(self, task):
        """Tells of a background task that failed while nothing waits for it: its work is not done any more."""
        if task._log_traceback:
            task._log_traceback = False
            self.events.append(("unhandled", task.lockstep_call.id) + failure(task._exception)[:3])

    def watch_threads(self):
        """Tells of an exception that ends a thread, as of the call that started the thread."""
        start = threading.Thread.start

        def watched_start(thread):
            call = thread.lockstep_call = current_call.get()
            if call is not None and is_own_thread(thread):
                run_in_call(thread, functools.partial(self.thread_failed, call))
            start(thread)
            remember_numbers(thread)

        watched_start.__doc__ = start.__doc__
        threading.Thread.start = watched_start

    def thread_failed(self, call, exc):
        """An exception leaves a thread that a call started."""
        if not call.forgotten:
            self.events.append(("in_thread", call.id) + failure(exc)[:3])
            call.add_raised(leaf(exc))

    # -- commands

    def obey(self, batch):
        """Applies one batch.  The commands only schedule; the loop does the rest."""
        now_ns, commands = batch
        self.owes_answer = True
        if not self.real:
            clock, loop = self.clock, self.loop
            self.last_count = self.turn_count
            if clock.reads:
                clock.forget_reads()
            now_ns += clock.start_ns
            self.last_ns = now_ns
            if now_ns > clock.now_ns or loop._scheduled:
                loop.advance(now_ns)
        self.execute(commands)

    def execute(self, commands):
        calls = self.calls
        for command in commands:
            name = command[0]
            obey = OBEY.get(name)
            if obey is not None:
                call = calls.get(command[1]) or self.find_over(command[1])
                # On the real clock a call can end while a command for it is under way.
                if call is not None:
                    obey(call, *command[2:])
            elif name == "call":
                self.start(*command[1:])
            elif name == "seed":
                SharedState.number += list(command[2:]) == [0]  # the first connection of a case
                if self.chance.name is not None:
                    self.chance.sow(command[1])
            elif name == "look":
                self.look_for_leftovers(self.leftovers.look, command[1])
            elif name == "timers":
                self.is_aftermath = True
                self.events.append(("due", self.next_of_calls(command[1])))
            elif name == "stop":
                self.stopping = True
                self.stopped.set_result(None)
            else:
                raise KeyError(name)

    def start(self, ident, scope, first=None):
        """Starts the app on a scope."""
        self.tap.install()
        self.watch_finalizers()
        self.is_aftermath = False
        state = scope.get("state")
        if isinstance(state, dict):
            if scope.get("type") == "lifespan":
                self.state.update(state)
                scope["state"] = self.state
            else:
                scope["state"] = {**self.state, **state}
        if self.leftovers is not None:
            self.look_for_leftovers(self.leftovers.begin, ident, scope)
        call = self.calls[ident] = Call(ident, self, first)
        call.kind = scope.get("type")
        token = current_call.set(call)
        try:
            call.task = self.loop.create_task(call.run(self.app, scope, self.finished))
        finally:
            current_call.reset(token)

    def next_of_calls(self, first):
        """When the next timer is due that calls from this number on have started, or None."""
        def is_of_calls(call):
            return call is not None and call.id >= first and call.kind != "lifespan" and not call.forgotten

        timers = [round(timer._when * 1e9) for timer in self.loop._scheduled
                  if not timer._cancelled and timer._when < NEVER and is_of_calls(timer._context.get(current_call))]
        rests = [until for until, _, rest in self.clock.due if not rest.is_over and is_of_calls(rest.call)]
        due = min(timers + rests, default=None)
        return None if due is None else due - self.clock.start_ns

    def finished(self, call):
        if self.calls.get(call.id) is call:
            del self.calls[call.id]
            self.over.append(call)
        if call.tasks > 1:
            self.ended.append(call)

    def look_for_leftovers(self, function, *args):
        """Calls a function that looks at objects of the app, which may fail in any way."""
        try:
            function(*args)
        except Exception as exc:
            self.note("what the app keeps of its clients cannot be seen", type(exc).__name__)

    def find_over(self, ident):
        """The call that is over, if something still holds it."""
        kept = self.kept.get(ident)
        return next((call for call in self.over if call.id == ident), kept and kept())

    def keep(self, call):
        """Tells that a call which is over or forgotten may still send and receive, until it is freed."""
        ident, kept, events = call.id, self.kept, self.events
        if ident in kept:
            return

        def free(_):
            del kept[ident]
            events.append(("freed", ident))

        events.append(("kept", ident))
        kept[ident] = weakref.ref(call, free)


OBEY = {
    "give": Call.give,
    "credit": Call.allow,
    "sent": Call.release,
    "cancel": Call.cancel,
    "forget": Call.forget,
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
            "traceback": render(format_trace, exc, TRACE) if exc else "", **details,
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
    reply.update(ok=True, framework=framework(app), versions=versions())
    reply.update(learn_routes(app))
    return asgi3(app), reply


class SharedState:
    """Tells that instances of a class share what one of them changed."""

    number = 0  # of the case

    @classmethod
    def case(cls):
        """The number of the case: what another one left is what instances begin with."""
        return cls.number

    @staticmethod
    def call():
        """The call that runs, which may tell it."""
        call = current_call.get()
        return None if call is None or call.forgotten else call

    def __call__(self, call, title, texts):
        call.report("log", logging.WARNING, "relapse", f"all instances share {title}: {texts}", None)


def learn_routes(app):
    """The routes of the app, guesses, and what went wrong; no failure of it is the end.

    From here on its objects tell what they share.
    """
    try:
        with PartFinder():
            import relapse_routes

            learned = plain(relapse_routes.learn(app))
            relapse_routes.shared.guard(SharedState())
            return learned
    except Exception as exc:
        trouble = {"framework": "app", "place": "/", "kind": type(exc).__name__,
                   "message": render(str, exc, 500)}
        return {"routes": [], "guesses": [], "troubles": [trouble]}


def import_coverage(events):
    with PartFinder():
        import relapse_coverage

        return relapse_coverage.Coverage(events, current_call)


def is_part(name):
    return name.partition(".")[0] in ("relapse_coverage", "relapse_routes")


class PartFinder:
    """Finds the parts of this program that are modules, and forgets them: the app cannot import them.

    `relapse_routes.x` is the part `routes/x.py`, from the loader, or beside this file.
    """

    def __enter__(self):
        sys.meta_path.insert(0, self)

    def __exit__(self, *exc):
        sys.meta_path.remove(self)
        for name in [name for name in sys.modules if is_part(name)]:
            del sys.modules[name]

    def find_spec(self, name, path=None, target=None):
        if not is_part(name):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=name == "relapse_routes")

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        run_part(module.__name__[len("relapse_"):].replace(".", "/") + ".py", vars(module))


def run_part(part, names):
    """Runs a part of this program with these names."""
    if part in PARTS:
        code = PARTS[part]
    else:
        with open(os.path.join(os.path.dirname(OWN_FILE), part), encoding="utf-8") as file:
            # Under the name of this file, as its frames are not the app's either.
            code = compile(file.read(), OWN_FILE, "exec")
    exec(code, names)


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


# ---------------------------------------------------------------- the process


def die_with(parent):
    """Lets the system end this process when the harness ends, also by SIGKILL; where it can."""
    if not sys.platform.startswith("linux"):
        return
    try:
        import _ctypes  # ctypes itself takes five times as long

        prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")
        _ctypes.call_function(prctl, (PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0))
    except Exception:
        return  # an interpreter without it ends when its pipes do
    if os.getppid() != parent:
        os._exit(0)  # the harness ended before


PR_SET_PDEATHSIG = 1  # prctl(2)


def keep_signals_from(harness):
    """Refuses signals to these processes, groups and sessions, as the kernel does for other users'.

    Where the kernel scopes signals (Landlock, Linux 6.12) it refuses them by itself, also from C
    and from programs that the app starts.  Before, this refuses them from Python.
    """
    harness = frozenset(harness)

    def keep_from(holder, name, is_harness):
        function = getattr(holder, name, None)
        if function is None:
            return

        @functools.wraps(function)
        def guarded(target, *args, **options):
            # Signal 0 only asks whether there is such a process.
            if is_harness(target) and args[:1] != (0,):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            return function(target, *args, **options)

        setattr(holder, name, guarded)

    keep_from(os, "kill", lambda pid: pid == -1 or abs(pid) in harness)
    keep_from(os, "killpg", lambda group: group == 1 or group in harness)
    keep_from(os, "pidfd_open", lambda pid: pid in harness)


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
    harness = settings.get("harness")
    if harness:
        die_with(harness[0])
        keep_signals_from(harness)
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
