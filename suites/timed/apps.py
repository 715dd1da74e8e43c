"""Apps that do what no app should: one for each path, and some that do not come to serving anything."""

import asyncio
import atexit
import builtins
import json
import logging
import marshal
import os
import signal
import sys
import threading

ACTS = {}


def act(function):
    ACTS["/" + function.__name__] = function
    return function


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await ACTS.get(scope["path"], answer)(send)


async def begin(send, headers=()):
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def answer(send):
    await begin(send)
    await send({"type": "http.response.body", "body": b"x"})


async def say(send, body):
    await send({"type": "http.response.body", "body": body, "more_body": True})


# ---------------------------------------------------------------- it talks without end


@act
async def endless_body(send):
    await begin(send)
    while True:
        await say(send, b"x" * 50_000)


@act
async def huge_body(send):
    await begin(send)
    await say(send, b"x" * 30_000_000)


@act
async def log_flood(send):
    for _ in range(100_000):
        logging.getLogger("app").error("x" * 1000)
    await answer(send)


@act
async def print_flood(send):
    for _ in range(20):
        print("x" * 1_000_000)
    await answer(send)


@act
async def huge_header(send):
    await begin(send, [(b"x-huge", b"x" * 15_000_000)])


# ---------------------------------------------------------------- it raises


@act
async def huge_message(send):
    raise ValueError("x" * 50_000_000)


@act
async def long_chain(send):
    error = None
    for number in range(20_000):
        new = ValueError(number)
        new.__context__ = error
        error = new
    raise error


@act
async def recursion(send):
    def again():
        again()

    again()


@act
async def bad_text(send):
    class Bad(Exception):
        def __str__(self):
            raise Bad

    raise Bad


@act
async def controls(send):
    raise ValueError("\x1b]0;owned\x07\x1b[2J\x9b31m\u202elive\x00\ud800")


@act
async def base_exception(send):
    raise BaseException("x")


# ---------------------------------------------------------------- it sends what is no event


@act
async def no_event(send):
    await send(7)


@act
async def round_event(send):
    event = {"type": "http.response.start"}
    event["event"] = event
    await send(event)


@act
async def deep_event(send):
    event = []
    for _ in range(10_000):
        event = [event]
    await send({"type": "http.response.start", "status": event})


@act
async def odd_types(send):
    class Text(str):
        def __eq__(self, other):
            raise ValueError

        __hash__ = str.__hash__

    await send({Text("type"): Text("http.response.start"), "status": 1e400, "headers": [(1, None)], 2: {3}})


# ---------------------------------------------------------------- it takes what there is


@act
async def tasks(send):
    for _ in range(20_000):
        asyncio.ensure_future(asyncio.sleep(3600))
    await answer(send)


@act
async def threads(send):
    for _ in range(100):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    await answer(send)


@act
async def memory(send):
    kept = []
    while True:
        kept.append(bytearray(1 << 28))


@act
async def forks(send):
    for _ in range(20):
        if os.fork() == 0:
            os.setsid()
            os.execvp("sleep", ["sleep", "600"])
    await answer(send)


# ---------------------------------------------------------------- it does not go on


@act
async def blocks(send):
    while True:
        pass


@act
async def spins(send):
    while True:
        await asyncio.sleep(0)


@act
async def stops_itself(send):
    os.kill(os.getpid(), signal.SIGSTOP)


@act
async def exits_hard(send):
    os._exit(3)


@act
async def stops_loop(send):
    asyncio.get_running_loop().stop()
    await asyncio.sleep(1)


@act
async def cancels_all(send):
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(1)


@act
async def stays_at_exit(send):
    atexit.register(threading.Event().wait)
    await answer(send)


@act
async def ignores_signals(send):
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    await blocks(send)


# ---------------------------------------------------------------- it breaks what it runs in


@act
async def closes_files(send):
    os.closerange(0, 64)


@act
async def patches(send):
    marshal.dumps = json.dumps = None
    builtins.len = builtins.isinstance = None


@act
async def odd_errors(send):
    sys.excepthook = sys.unraisablehook = threading.excepthook = None

    class Left:
        def __del__(self):
            raise ValueError

    Left()
    threading.Thread(target=lambda: 1 / 0).start()
    await answer(send)


# ---------------------------------------------------------------- apps of their own


async def in_session(scope, receive, send, text, times):
    if scope["type"] != "websocket":
        return await app(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while times:
        times -= 1
        await send({"type": "websocket.send", "text": text})


async def endless_messages(scope, receive, send):
    await in_session(scope, receive, send, "x" * 50_000, -1)


async def small_messages(scope, receive, send):
    await in_session(scope, receive, send, "x", -1)


async def huge_message_of_session(scope, receive, send):
    await in_session(scope, receive, send, "x" * 30_000_000, 1)


async def kept_messages(scope, receive, send):
    # Just as long that a run keeps one.
    await in_session(scope, receive, send, "x" * 10_000_000, 4)


async def long_messages(scope, receive, send):
    await in_session(scope, receive, send, "x" * 15_000_000, 4)


async def others_each_time(scope, receive, send):
    if scope["type"] == "lifespan":
        return await app(scope, receive, send)
    others_each_time.count += 1
    raise type(f"Error{others_each_time.count}", (Exception,), {})("x" * 2000)


others_each_time.count = 0


async def never_starts(scope, receive, send):
    await asyncio.Event().wait()


async def starts_and_blocks(scope, receive, send):
    while True:
        pass


async def fails_at_length(scope, receive, send):
    await send({"type": "lifespan.startup.failed", "message": "x" * 15_000_000})


async def never_stops(scope, receive, send):
    if scope["type"] != "lifespan":
        return await answer(send)
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await asyncio.Event().wait()


def at_import():
    """What happens at the import of `loads`: the first word of its file."""
    with open("loads.txt") as file:
        how = file.read()
    if how == "prints":
        while True:
            print("x" * 100_000)
    if how == "blocks":
        while True:
            pass
    if how == "exits":
        os._exit(0)
    if how == "closes":
        os.closerange(0, 64)
