"""Tells the harness what a server and its app say to one another, and changes none of it.

The server loads `relapse_witness:app`, which is the app that RELAPSE_APP names, with a witness in
front.  RELAPSE_LEDGER is the Unix socket of the harness; each process that imports this file makes
a connection of its own.  Messages are `marshal` version 2 with a 4-byte little-endian length in
front, and go out before what they tell of goes on.

    loaded                    trouble message traceback kind        log number level message
    call number scope         received number event omitted    sent number event omitted
    returned number           raised number type message frames            over number
    handled number type message frames                         by the app, which no server sees
    unhandled number type message frames                       also in_thread and ignored, as in the shim
    unretrieved key number type message frames                 retrieved key
    printed number text                                        a line on stdout or stderr
    raised_in number type message                              by the server, in receive() or send()
"""

import asyncio
import contextlib
import contextvars
import functools
import io
import itertools
import logging
import marshal
import os
import socket
import sys
import threading

import relapse_shim as shim

# The call in whose context the code runs; what it logs belongs to it.
current_call = contextvars.ContextVar("relapse_call", default=None)
PAYLOADS = ("text", "bytes", "body")  # the keys of an event that may be long
LONG = 1 << 20  # characters or bytes of a payload that is told whole, at most
END = 32 << 10  # of a longer one, at the beginning and at the end


class Line:
    """The connection to the harness.  A process that loses it goes on without."""

    def __init__(self, path):
        self.path = path
        self.open()
        os.register_at_fork(after_in_child=self.open)

    def open(self):
        # A signal may come in the middle of a message, and log.
        self.lock = threading.RLock()
        self.socket = socket.socket(socket.AF_UNIX)
        self.broken = self.socket.connect_ex(self.path) != 0

    def tell(self, *message):
        try:
            body = marshal.dumps(message, 2)
        except ValueError:
            body = marshal.dumps(shim.plain(message), 2)
        with self.lock:
            if self.broken:
                return
            try:
                self.socket.sendall(len(body).to_bytes(4, "little") + body)
            except OSError:
                self.broken = True


line = Line(os.environ["RELAPSE_LEDGER"])


def describe(scope):
    """The scope, without what the app itself keeps in it."""
    if not isinstance(scope, dict):
        return shim.plain(scope)
    told = {**scope, "state": {}} if "state" in scope else scope
    return shim.plain(told)


def shortened(event):
    """The event as it is now, and how many bytes of its payload are left out: of a long one the
    beginning and the end are told, because the harness must not grow with what an app sends."""
    event, omitted = shim.snapshot(event), 0
    for key in PAYLOADS if type(event) is dict else ():
        payload = event.get(key)
        if type(payload) in (str, bytes) and len(payload) > LONG:
            left_out = payload[END:-END]
            omitted += len(left_out.encode(errors="replace") if type(payload) is str else left_out)
            event[key] = payload[:END] + payload[-END:]
    return event, omitted


def tap_logs():
    """Tells every record that is logged, whatever handlers the server and the app have."""
    pass_on = logging.Logger.callHandlers

    def tell_and_pass_on(logger, record):
        if record.levelno >= logging.INFO:
            text = shim.render(logging.LogRecord.getMessage, record) or shim.render(str, record.msg)
            text, _, trace = text.partition("\nTraceback (most recent call last):\n")
            text = ": ".join([text, *trace.strip().splitlines()[-1:]])
            exc = record.exc_info[1] if record.exc_info else None
            call, raises = current_call.get(), shim.current_raises.get()
            if exc is not None:
                exc = shim.leaf(exc)
                if call is None:
                    # The job of an executor's thread: its future may go in any thread.
                    call, raises = getattr(exc, "relapse_mark", (None, None))
                text = f"{text.strip()}: {type(exc).__name__}: {shim.render(str, exc, 2000)}"
                if raises is not None and record.levelno >= logging.ERROR:
                    raises.add_raised(exc)
                logged = getattr(printed_by, "exceptions", None)
                if logged is not None and record.levelno >= logging.ERROR:
                    logged.append(exc)
            line.tell("log", call, record.levelno, text)
        printed_by.logging = True
        try:
            return pass_on(logger, record)
        finally:
            printed_by.logging = False

    printed_by.logging = False
    logging.Logger.callHandlers = tell_and_pass_on


def tap_threads():
    """Tells of an exception that ends a thread, as of the call that started the thread."""
    start, report = threading.Thread.start, threading.excepthook

    def watched_start(thread):
        call = current_call.get()
        if call is not None and shim.is_own_thread(thread):
            thread.relapse_call = call
            shim.run_in_call(thread, lambda exc: line.tell("in_thread", call, *shim.failure(exc)[:3]))
        start(thread)

    def watched_report(args):
        exc = args.exc_value
        if isinstance(exc, Exception) and not hasattr(args.thread, "relapse_call"):
            line.tell("in_thread", None, *shim.failure(exc)[:3])
        report(args)

    threading.Thread.start, threading.excepthook = watched_start, watched_report


def tap_executors():
    """An exception of the job of an executor's thread knows the call that gave the job."""
    run = asyncio.BaseEventLoop.run_in_executor

    def marked_run(loop, executor, func, *args):
        call = current_call.get()
        mark = None if call is None else (call, shim.current_raises.get())
        return run(loop, executor, shim.marked(executor, func, mark), *args)

    marked_run.__doc__ = run.__doc__
    asyncio.BaseEventLoop.run_in_executor = marked_run
    shim.watch_jobs(job_ended)


def job_ended(future, call, loop):
    """A job that a call gave to a thread pool failed, in this thread."""
    unretrieved.add_job(future, call)
    if loop is not None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(later, unretrieved.look)


unretrieved = shim.Unretrieved(line.tell)
TURNS = 3  # of the loop, in which what awaits a task or a job asks for its exception
tapped_loops = {None}


def later(function, *args, turns=TURNS):
    """Calls a function after some turns of the loop that runs."""
    if not turns:
        return function(*args)
    asyncio.get_running_loop().call_soon(functools.partial(later, function, *args, turns=turns - 1))


def tap_loop(kind):
    """Tells of exceptions that a loop of this type gives to its handler, and of tasks that end with one.

    What is logged of them is told already.
    """
    tapped_loops.add(kind)
    handle, create = kind.call_exception_handler, kind.create_task

    def watched_handle(loop, context):
        exc, source = context.get("exception"), context.get("task") or context.get("future")
        printed_by.exceptions = logged = []
        try:
            return handle(loop, context)
        finally:
            printed_by.exceptions = None
            exc = shim.leaf(exc) if isinstance(exc, Exception) else None
            if exc is not None and not shim.is_flow(exc) and not any(exc is other for other in logged):
                call = getattr(source, "relapse_call", None) or current_call.get()
                line.tell("unhandled", call, *shim.failure(exc)[:3])
            exc = source = context = logged = None

    def watched_create(loop, coro, **options):
        task = create(loop, coro, **options)
        call = current_call.get()
        if call is not None:
            task.relapse_call = call
            task.add_done_callback(task_ended, context=contextvars.Context())
        return task

    with contextlib.suppress(TypeError):  # a type in C keeps its own
        kind.call_exception_handler, kind.create_task = watched_handle, watched_create


def task_ended(task):
    """A task of a call has ended.  Where it failed, something may wait for that."""
    if getattr(task, "_log_traceback", False) and not shim.is_flow(shim.leaf(task._exception)):
        unretrieved.add_task(task, task.relapse_call)
        later(unretrieved.look)


def running_loop():
    """The type of the loop that runs; None where it is not one of asyncio's."""
    loop = asyncio._get_running_loop()
    return None if loop is None else type(loop)


def tell_soon(*message):
    """Tells what is so when the code that runs now, the server's too, has come to its next await, and tasks that it woke have
    failed if they do so at once."""
    if asyncio._get_running_loop() is None:
        line.tell(*message)
    else:
        later(line.tell, *message, turns=2 * TURNS)


def qualified(exc):
    """The name of an exception's type as a traceback has it, and one for all that tell that the client is gone."""
    kind = type(exc)
    if kind.__module__ == "builtins":
        return kind.__name__
    return "ClientDisconnected" if isinstance(exc, OSError) else f"{kind.__module__}.{kind.__name__}"


class Raises(shim.Raises):
    """The exceptions that a call raises, told with its number."""

    __slots__ = ("number",)

    def __init__(self, number):
        super().__init__()
        self.number = number

    def report(self, kind, *details):
        line.tell(kind, self.number, *details[:3])


def witnessed(app):
    """The app with a witness in front."""
    numbers = itertools.count(1)

    async def witness(scope, receive, send):
        if running_loop() not in tapped_loops:
            tap_loop(running_loop())
        watch_finalizers()
        number = next(numbers)
        current_call.set(number)
        line.tell("call", number, describe(scope))
        raises = Raises(number)
        shim.current_raises.set(raises)

        if unretrieved.open:
            unretrieved.look()

        def tell_raised(exc):
            raises.add_given(exc)
            line.tell("raised_in", number, qualified(exc), shim.render(str, exc, 2000))

        async def witnessed_receive():
            raises.tell_handled()
            try:
                event = await receive()
            except Exception as exc:
                tell_raised(exc)
                raise
            line.tell("received", number, *shortened(event))
            return event

        async def witnessed_send(event):
            raises.tell_handled()
            if unretrieved.open:
                unretrieved.look()
            line.tell("sent", number, *shortened(event))
            try:
                return await send(event)
            except Exception as exc:
                tell_raised(exc)
                raise

        try:
            result = await app(scope, witnessed_receive, witnessed_send)
        except BaseException as exc:
            raises.tell_handled(exc, over=True)
            name, text, frames, _ = shim.failure(exc)
            cause = shim.leaf(exc)
            name = qualified(cause) if any(cause is other for other in raises.given) else name
            line.tell("raised", number, name, text, frames)
            raise
        else:
            raises.tell_handled(over=True)
            line.tell("returned", number)
            return result
        finally:
            tell_soon("over", number)

    return witness


PRINTED = 65536  # characters of a line that has no end
printed_by = threading.local()  # whether the thread is in a handler of logging, and what a loop's handler has logged


class Printed(io.TextIOWrapper):
    """A standard stream that tells each line that is printed, and the call that prints it."""

    started = ""  # the line that has no end yet

    def write(self, text):
        count = super().write(text)
        # Records are told where they are logged.
        if not getattr(printed_by, "logging", False):
            *lines, self.started = (self.started + text)[-PRINTED:].split("\n")
            for printed in lines:
                if printed.strip():
                    line.tell("printed", current_call.get(), printed)
        return count


def tap_prints():
    """Tells what the app prints.  Handlers of logging keep the streams that they have."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            # Detached, the stream would be closed for its holder.
            raw = open(stream.fileno(), "wb", buffering=0, closefd=False)
            tapped = Printed(raw, encoding=stream.encoding, errors=stream.errors, write_through=True)
            setattr(sys, name, tapped)


def keep_harness():
    """Ends with the harness that started this process, and leaves it alone."""
    harness = [int(number) for number in os.environ.get("RELAPSE_HARNESS", "").split()]
    # A worker is the concern of its own parent.
    if harness and os.getppid() == harness[0]:
        shim.die_with(harness[0])
    shim.keep_signals_from(harness)


def load():
    sys.path.insert(0, os.getcwd())
    shim.watcher.start(os.getcwd())
    try:
        app = shim.load(os.environ["RELAPSE_APP"], "RELAPSE_FACTORY" in os.environ)
    except shim.LoadError as error:
        line.tell("trouble", error.reply["message"], error.reply["traceback"], error.reply["kind"])
        raise
    return shim.asgi3(app)


keep_harness()
tap_prints()
tap_threads()
tap_executors()
watch_finalizers = shim.watch_finalizers(
    lambda exc: line.tell("ignored", current_call.get(), *shim.failure(exc)[:3]))
shim.carried[0] = current_call
app = witnessed(load())
tap_logs()
line.tell("loaded")
