"""GraphQL: strawberry and ariadne, with operations made from the schema."""

import json

from .code import function_of, is_own, is_word
from .entry import MESSAGES, add_code

NAME = "graphql"
DEPTH = 3  # of nested fields
FIELDS = 8  # of one operation
PROTOCOLS = ("graphql-transport-ws", "graphql-ws")  # the newer one, and that of subscriptions-transport-ws
SCALARS = {"Int": 1, "Float": 1.5, "Boolean": True, "ID": "1", "String": "a", "UUID":
           "12345678-1234-4234-8234-123456789abc", "Date": "2026-01-02", "DateTime": "2026-01-02T03:04:05Z"}


def schema_of(app):
    """The schema of graphql-core that an app has, or None."""
    schema = getattr(app, "schema", None) or getattr(getattr(app, "http_handler", None), "schema", None)
    schema = getattr(schema, "_schema", schema)
    return schema if type(schema).__name__ == "GraphQLSchema" else None


def knows(app):
    return schema_of(app) is not None and callable(app) and not isinstance(getattr(app, "routes", None), list)


def learn(app, place, learner):
    for kind in place.kinds:
        entry = learner.new(place, "" if place.prefix else "/", kind,
                            () if kind == "websocket" else methods_of(app), "graphql")
        describe(entry, app)
        learner.add(entry, place)


def methods_of(app):
    return ["GET", "POST"]


def add_to(entry, endpoint):
    """Describes a route whose endpoint is a part of a GraphQL app, as strawberry's router has them."""
    for cell in getattr(endpoint, "__closure__", None) or ():
        try:
            owner = cell.cell_contents
        except ValueError:
            continue
        if schema_of(owner) is not None:
            return describe(entry, owner)


def describe(entry, app):
    """Adds operations of the schema, and the code of its resolvers."""
    schema = schema_of(app)
    kinds = {"query": schema.query_type, "mutation": schema.mutation_type,
             "subscription": schema.subscription_type}
    operations = {kind: operation(kind, root) for kind, root in kinds.items() if root is not None}
    fields = [name for root in kinds.values() if root is not None for name in root.fields]
    functions = [function for root in kinds.values() if root is not None
                 for field in root.fields.values() for function in resolvers(field)]
    handler = getattr(app, "websocket_handler", None)
    hooks = [*vars(type(app)).items(), *vars(type(handler)).items(), *getattr(handler, "__dict__", {}).items()]
    hooks = [value for name, value in hooks if name.startswith(("on_", "get_")) and callable(value)]
    add_words(entry, functions, [*fields, *arguments(kinds)], hooks)
    if entry["kind"] == "websocket":
        return add_sockets(entry, app, operations, hooks)
    body = operations.get("query") or next(iter(operations.values()), "{ __typename }")
    entry["content_type"] = "application/json"
    entry["body"] = json.dumps({"query": body})
    full = {"query": operations.get("mutation", body), "variables": {}, "operationName": None}
    entry["full_body"] = json.dumps(full)
    entry["query"] = [{"name": "query", "required": True, "type": "str", "good": body}]


def arguments(kinds):
    return [name for root in kinds.values() if root is not None
            for field in root.fields.values() for name in field.args]


def add_words(entry, functions, names, hooks):
    body = entry["body"]
    add_code(entry, *functions, *hooks, more=filter(is_word, [
        *names, "query", "variables", "operationName", "type", "id", "payload"]))
    entry["body"], entry["full_body"], entry["content_type"] = body, "", ""
    for place in ("query", "messages"):
        entry[place] = []


def resolvers(field):
    """The functions of the app behind a field."""
    found = []
    for function in (getattr(field, "resolve", None), getattr(field, "subscribe", None)):
        if function is None:
            continue
        found.append(function)
        for cell in getattr(function, "__closure__", None) or ():
            try:
                inner = cell.cell_contents
            except ValueError:
                continue
            base = getattr(inner, "base_resolver", None)
            found.append(getattr(base, "wrapped_func", None) or inner)
    functions = [(function_of(value), value) for value in found if callable(value)]
    return [value for function, value in functions if function is not None and is_own(function.__code__)]


def protocols_of(app):
    """The subprotocols of an app, by its own setting or by its handler."""
    known = getattr(app, "protocols", None) or getattr(app, "subscription_protocols", None)
    if known:
        return [str(name) for name in known]
    handler = getattr(app, "websocket_handler", None)
    names = [base.__name__ for base in type(handler).__mro__]
    if handler is None:
        return list(PROTOCOLS)
    return [PROTOCOLS[0 if any("TransportWS" in name for name in names) else 1]]


def add_sockets(entry, app, operations, hooks):
    from .reading import reads_of

    protocols = protocols_of(app)
    entry["subprotocols"] = protocols
    entry["offers"] = protocols[:1]
    shapes = {name: "message" for name in ("connection_params", "params", "payload")}
    reads = reads_of(*hooks, shapes=shapes, is_websocket=True)
    shape = reads.places["message"]
    start = {"type": "connection_init", "payload": shape.good() if shape.keys else {}}
    verb = "subscribe" if protocols[0] == PROTOCOLS[0] else "start"
    found = [start]
    for number, kind in enumerate(("subscription", "query", "mutation"), 1):
        if kind in operations:
            found.append({"id": str(number), "type": verb, "payload": {"query": operations[kind]}})
    found.append({"id": "1", "type": "complete" if verb == "subscribe" else "stop"})
    entry["messages"] = [json.dumps(message) for message in found][:MESSAGES]


def operation(kind, root):
    """An operation with fields of the root; a subscription has one (GraphQL, section 5.2.4.1)."""
    names = list(root.fields)[:1 if kind == "subscription" else FIELDS]
    return f"{kind} {{ {' '.join(field_text(name, root.fields[name], 0) for name in names)} }}"


def field_text(name, field, depth):
    given = [f"{key}: {literal(argument.type, 0)}" for key, argument in field.args.items()
             if is_needed(argument)]
    text = name + (f"({', '.join(given)})" if given else "")
    inner = bare(field.type)
    if not hasattr(inner, "fields"):
        return text + (" { __typename }" if hasattr(inner, "types") else "")
    if depth >= DEPTH:
        return text + " { __typename }"
    parts = [field_text(key, value, depth + 1) for key, value in list(inner.fields.items())[:FIELDS]
             if depth + 1 < DEPTH or not hasattr(bare(value.type), "fields")]
    return text + f" {{ {' '.join(parts) or '__typename'} }}"


def is_needed(argument):
    """All arguments that have no default."""
    return type(argument.type).__name__ == "GraphQLNonNull" and "Undefined" in repr(argument.default_value)


def bare(kind):
    while hasattr(kind, "of_type"):
        kind = kind.of_type
    return kind


def literal(kind, depth):
    """A value of an input type, as GraphQL writes it."""
    name = type(kind).__name__
    if name == "GraphQLNonNull":
        return literal(kind.of_type, depth)
    if name == "GraphQLList":
        return f"[{literal(kind.of_type, depth)}]"
    if name == "GraphQLEnumType":
        return next(iter(kind.values))
    if name == "GraphQLInputObjectType":
        parts = [f"{key}: {literal(field.type, depth + 1)}" for key, field in kind.fields.items()
                 if is_needed(field) and depth < DEPTH]
        return "{" + ", ".join(parts) + "}"
    return json.dumps(SCALARS.get(kind.name, "a"))
