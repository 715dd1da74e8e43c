"""Socket.IO and Engine.IO: their path by polling and by WebSocket, and a first message for each event."""

import json

from .code import function_of
from .entry import MESSAGES
from .reading import reads_of

NAME = "socketio"


def knows(app):
    return hasattr(app, "engineio_server") and hasattr(app, "engineio_path")


def learn(app, place, learner):
    server = app.engineio_server
    path = app.engineio_path
    if path is None:
        path = "/"
    elif place.prefix and path.startswith(place.prefix + "/"):
        path = path[len(place.prefix):]  # a mount hands the whole path on
    engine = getattr(server, "eio", server)
    transports = getattr(engine, "transports", None) or ["polling", "websocket"]
    handlers = handlers_of(server)
    for transport, kind in (("polling", "http"), ("websocket", "websocket")):
        if transport in transports:
            add_transport(transport, kind, path, handlers, server, place, learner)
    for path in getattr(app, "static_files", None) or {}:
        entry = learner.new(place, path if path.startswith("/") else "/" + path, "http", ["GET"])
        learner.attempt(NAME, place.prefix, learner.add, entry, place)
    if getattr(app, "other_asgi_app", None) is not None:
        learner.visit(app.other_asgi_app, place)


def add_transport(transport, kind, path, handlers, server, place, learner):
    entry = learner.new(place, path, kind, ["GET"] if kind == "http" else (), transport)
    for name, good in (("EIO", "4"), ("transport", transport)):
        entry["query"].append({"name": name, "required": True, "type": "str", "good": good})
    functions = [function for events in handlers.values() for function in events.values()]
    events = [event for events in handlers.values() for event in events]
    learner.read(entry, *functions, more=events)
    if kind == "websocket":
        is_engine_only = not hasattr(server, "eio")
        entry["messages"] = ["4a", "2probe"] if is_engine_only else messages_of(handlers)
    learner.add(entry, place)


def handlers_of(server):
    """The handlers of each namespace by their events."""
    found = {}
    handlers = getattr(server, "handlers", None) or {}
    for namespace, events in handlers.items():
        if callable(events):
            found.setdefault("/", {})[namespace] = events  # Engine.IO has no namespaces
        else:
            found.setdefault(namespace, {}).update(events)
    for namespace, holder in (getattr(server, "namespace_handlers", None) or {}).items():
        events = found.setdefault(namespace, {})
        for name in dir(type(holder)):
            if name.startswith("on_"):
                events[name[3:]] = getattr(holder, name)
    return found


def messages_of(handlers):
    """Connects to each namespace, and an event for each handler, with what its code reads."""
    found = []
    for namespace, events in handlers.items() or {"/": {}}.items():
        where = "" if namespace in ("/", "*") else namespace + ","
        auth = argument_of(events.get("connect"), 2)
        found.append(f"40{where}" + (json.dumps(auth) if auth is not None else ""))
        for event, function in events.items():
            if event in ("connect", "disconnect", "*", "connect_error"):
                continue
            values = [event, *arguments_of(function)]
            found.append(f"42{where}" + json.dumps(values, separators=(",", ":")))
    return (found or ["40"])[:MESSAGES]


def names_of(function):
    function = function_of(function)
    if function is None:
        return []
    names = list(function.__code__.co_varnames[:function.__code__.co_argcount])
    return names[1:] if names[:1] == ["self"] else names


def arguments_of(handler):
    """A value for each argument of a handler, after the number of its session."""
    return [argument_of(handler, at) or "a" for at in range(1, len(names_of(handler)))]


def argument_of(handler, at):
    names = names_of(handler)
    if at >= len(names):
        return None
    reads = reads_of(handler, shapes={names[at]: "message"}, is_websocket=True)
    shape = reads.places["message"]
    return shape.good() if shape.is_known() else None
