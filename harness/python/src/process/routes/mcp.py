"""MCP servers over streamable HTTP: JSON-RPC by POST."""

import json

from .code import is_word
from .entry import MESSAGES
from .examples import example
from .reading import Shape, reads_of

NAME = "mcp"
VERSION = "2025-06-18"  # of the protocol, which all servers since understand
ACCEPT = "application/json, text/event-stream"  # both have to be there
DEPTH = 6  # of what a server holds
VISITS = 2000


def knows(app):
    return type(app).__name__ == "StreamableHTTPASGIApp" or any(
        base.__name__ == "StreamableHTTPSessionManager" for base in type(app).__mro__)


def learn(app, place, learner):
    manager = getattr(app, "session_manager", app)
    tools = learner.attempt(NAME, place.prefix, tools_of, manager) or []
    for holder in reversed(place.holders):
        tools = tools or learner.attempt(NAME, place.prefix, tools_of, holder) or []
    security = getattr(manager, "security_settings", None)
    if getattr(security, "enable_dns_rebinding_protection", False):
        learner.allow(place, security.allowed_hosts)
    entry = learner.new(place, "", "http", ["POST"], "mcp")
    entry["headers"].append({"name": "accept", "required": True, "type": "str", "good": ACCEPT})
    entry["content_type"] = "application/json"
    entry["body"] = request("initialize", {
        "protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}})
    names = [name for name, _, _ in tools]
    for name, function, schema in tools[:1]:
        entry["full_body"] = request("tools/call", {
            "name": name, "arguments": example(schema, schema) or {}})
    entry["messages"] = [request("tools/call", {"name": name, "arguments": arguments(function, schema)})
                         for name, function, schema in tools[:MESSAGES]]
    functions = [function for _, function, _ in tools if function is not None]
    words = ["initialize", "jsonrpc", "method", "params", "id", "name", "arguments", *names]
    learner.read(entry, *functions, more=filter(is_word, words))
    learner.add(entry, place)


def arguments(function, schema):
    """Arguments of a tool: values that its code looks for, where it looks for any."""
    values = example(schema, schema) or {}
    shapes = {name: Shape() for name in values}
    if function is not None:
        reads_of(function, shapes=shapes)
    return {name: shape.good() if shape.values or shape.held else values[name] for name, shape in shapes.items()}


def request(method, params):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


def tools_of(root):
    """The tools that something holds: name, function and schema of the arguments."""
    todo, seen, found = [(root, 0)], set(), {}
    while todo and len(seen) < VISITS:
        value, depth = todo.pop(0)
        if id(value) in seen or depth > DEPTH:
            continue
        seen.add(id(value))
        schema = getattr(value, "parameters", None)
        if isinstance(schema, dict) and isinstance(getattr(value, "name", None), str):
            found.setdefault(value.name, (value.name, getattr(value, "fn", None), schema))
            continue
        todo += [(inner, depth + 1) for inner in held_by(value)]
    return list(found.values())


def held_by(value):
    """The things that a value of MCP holds: attributes, items, closures."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple)):
        return list(value)
    function = getattr(value, "__func__", value)
    inner = [value.__self__] if hasattr(value, "__self__") and hasattr(value, "__func__") else []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            inner.append(cell.cell_contents)
        except ValueError:
            pass
    tops = [base.__module__.partition(".")[0] for base in type(value).__mro__]
    if any(top in ("mcp", "fastmcp", "starlette") for top in tops):
        inner += list(getattr(value, "__dict__", {}).values())
    return inner
