"""Litestar: routes with typed path parameters; HTTP by its OpenAPI document, sockets by signatures."""

from . import graphql
from .documented import collect_operation
from .entry import add_parameter
from .examples import UUID

NAME = "litestar"
GOOD = {"int": "1", "float": "1.5", "str": "a", "bool": "true", "UUID": UUID, "Decimal": "1.5",
        "date": "2026-01-02", "datetime": "2026-01-02T03:04:05Z", "time": "03:04:05",
        "timedelta": "PT1S", "Path": "a/b", "dict": "{}", "list": "[]"}
OWN = frozenset((
    "socket", "request", "state", "scope", "headers", "cookies", "query", "body", "data", "self",
    "connection_lifespan_dependencies", "receive", "send"))


def knows(app):
    return any(base.__module__ == "litestar.app" for base in type(app).__mro__)


def learn(app, place, learner):
    paths = learner.attempt(NAME, place.prefix, documented_paths, app) or ({}, {})
    for route in app.routes:
        learner.attempt(NAME, place.prefix, collect_route, route, paths, place, learner)


def documented_paths(app):
    document = app.openapi_schema.to_schema() if app.openapi_config is not None else {}
    return document, document.get("paths", {})


def collect_route(route, documented, place, learner):
    path, params = route.path_format, list(parameters_of(route))
    handlers = list(getattr(route, "route_handlers", None) or [route.route_handler])
    for handler in handlers:
        names = [base.__name__ for base in type(handler).__mro__]
        if "ASGIRouteHandler" in names:
            below = place.below(path.rstrip("/"), params)
            learner.add(learner.new(below, "", "mount"), place)
            learner.visit(handler.fn, below)
            continue
        methods = [str(getattr(name, "value", name)) for name in getattr(handler, "http_methods", ())]
        is_websocket = "WebSocketRoute" in type(route).__name__
        methods = [name for name in methods if name != "OPTIONS"]
        if not is_websocket and not methods:
            continue  # an answer to OPTIONS that Litestar makes
        entry = learner.new(place, for_paths(path, params), "websocket" if is_websocket else "http",
                            () if is_websocket else methods, str(handler))
        entry["params"] += params
        endpoint = endpoint_of(handler)
        guards = [getattr(guard, "value", guard) for guard in handler.resolve_guards()]
        document, paths = documented
        operation = paths.get(path, {}).get(methods[0].lower()) if methods else None
        if operation:
            collect_operation(operation, paths[path], document, entry)
        else:
            collect_signature(handler, entry)
        learner.read(entry, endpoint, *guards, *dependencies_of(handler), shapes=shapes_of(handler, entry))
        learner.attempt(graphql.NAME, entry["path"], graphql.add_to, entry, endpoint)
        learner.add(entry, place)


def for_paths(path, params):
    for known in params:
        if known["type"] == "Path":
            path = path.replace("{" + known["name"] + "}", "{" + known["name"] + ":path}")
    return path


def parameters_of(route):
    for part in route.path_components:
        if not isinstance(part, str):
            kind = part.type.__name__
            yield {"name": part.name, "required": True, "type": kind, "good": GOOD.get(kind, "a").lstrip("/")}


def endpoint_of(handler):
    """The function that a handler calls: a listener keeps it in an object of its own."""
    function = handler.fn
    for name in ("_fn", "fn", "_listener"):
        if not hasattr(function, "__code__") and hasattr(function, name):
            function = getattr(function, name)
    return function


def dependencies_of(handler):
    found = []
    for provide in (handler.resolve_dependencies() or {}).values():
        found.append(provide.dependency)
    return found


def shapes_of(handler, entry):
    """The parameter `data` is what a client sent, where no schema says more."""
    if entry["kind"] == "websocket":
        return {"data": "message"}
    return {} if entry["body"] not in ("", "{}") or entry["methods"] == ["GET"] else {"data": "json"}


def collect_signature(handler, entry):
    """Adds parameters that the signature of a handler names, with the types that it says."""
    known = [known["name"] for known in entry["params"]]
    dependencies = handler.resolve_dependencies() or {}
    for name, field in handler.parsed_fn_signature.parameters.items():
        if name in known or name in OWN or name in dependencies:
            continue
        says = field.kwarg_definition
        place, alias = next(
            ((place, getattr(says, key)) for place, key in (("headers", "header"), ("cookies", "cookie"),
                                                          ("query", "query")) if getattr(says, key, None)),
            ("query", name))
        kind = getattr(field.annotation, "__name__", str(field.annotation))
        is_required = "EMPTY" in str(field.default) and not getattr(field, "is_optional", False)
        add_parameter(entry, place, alias, is_required, kind, GOOD.get(kind, "a"))
