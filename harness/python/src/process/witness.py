"""Tells the harness what a server and its app say to one another, and changes none of it.

The server loads `relapse_witness:app`, which is the app that RELAPSE_APP names, with a witness in
front.  RELAPSE_LEDGER is the Unix socket of the harness; each process that imports this file makes
a connection of its own.  Messages are `marshal` version 2 with a 4-byte little-endian length in
front, and go out before what they tell of goes on.

    loaded                    trouble message traceback kind        log number level message
    call number scope         received number event omitted    sent number event omitted
    returned number           raised number type message frames            over number
    handled number type message frames                         by the app, which no server sees
    printed number text                                        a line on stdout or stderr
    raised_in number type message                              by the server, in receive() or send()
"""

import asyncio
import contextvars
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
        thread.relapse_call = current_call.get()
        start(thread)

    def watched_report(args):
        exc = args.exc_value
        if isinstance(exc, Exception):
            text = f"Exception in thread: {type(exc).__name__}: {shim.render(str, exc, 2000)}"
            line.tell("log", getattr(args.thread, "relapse_call", None), logging.ERROR, text)
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


def tell_soon(*message):
    """Tells what is so when the code that runs now, the server's too, has come to its next await."""
    try:
        asyncio.get_running_loop().call_soon(line.tell, *message)
    except RuntimeError:
        line.tell(*message)


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
        number = next(numbers)
        current_call.set(number)
        line.tell("call", number, describe(scope))
        raises = Raises(number)
        shim.current_raises.set(raises)

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
printed_by = threading.local()  # whether the thread is in a handler of logging


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
app = witnessed(load())
tap_logs()
line.tell("loaded")
