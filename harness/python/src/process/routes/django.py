"""Django: the URLconf of an ASGI or WSGI handler, with converters, patterns and includes."""

import sys

from .examples import UUID, PathPattern, match_of

NAME = "django"
GOOD = {"IntConverter": "1", "UUIDConverter": UUID, "PathConverter": "a/b"}
DEPTH = 16  # of includes
WITH_BODY = ("POST", "PUT", "PATCH")


def knows(app):
    return any(base.__name__ in ("ASGIHandler", "WSGIHandler")
               and base.__module__.startswith("django.core.handlers") for base in type(app).__mro__)


def learn(app, place, learner):
    resolver = sys.modules["django.urls"].get_resolver()
    collect(resolver.url_patterns, place.below("/"), learner, 0)
    settings = sys.modules["django.conf"].settings
    learner.allow(place, settings.ALLOWED_HOSTS or (["localhost"] if settings.DEBUG else None))


def collect(patterns, place, learner, depth):
    for item in patterns if depth < DEPTH else ():
        learner.attempt(NAME, place.prefix, collect_one, item, place, learner, depth)


def collect_one(item, place, learner, depth):
    path, params = template_of(item.pattern)
    if hasattr(item, "url_patterns"):
        return collect(item.url_patterns, place.below(path, params), learner, depth + 1)
    view = getattr(item.callback, "view_class", None) or getattr(item.callback, "cls", None) or item.callback
    entry = learner.new(place.below(path, params), "", "http", (), getattr(item, "name", None))
    learner.read(entry, view)
    entry["methods"] = sorted(methods_of(view, item.callback, entry))
    learner.add(entry, place)


def template_of(pattern):
    """The path of a pattern with its parameters in braces, and the parameters."""
    converters = getattr(pattern, "converters", None) or {}
    if not hasattr(pattern, "_route"):
        if not hasattr(pattern, "_regex"):
            return str(pattern), []  # the prefix of a language
        found = PathPattern(str(pattern._regex))
        return found.text(), found.params
    path, params = "", []
    rest = str(pattern._route)
    while "<" in rest:
        before, _, rest = rest.partition("<")
        inside, _, rest = rest.partition(">")
        name = inside.rpartition(":")[2]
        converter = converters.get(name)
        kind = type(converter).__name__
        good = GOOD.get(kind) or match_of(getattr(converter, "regex", "a"))
        params.append({"name": name, "required": True, "type": kind, "good": good})
        path += before + "{" + name + (":path}" if kind == "PathConverter" else "}")
    return path + rest, params


def methods_of(view, callback, entry):
    """The methods that a view takes: those of its class, of a decorator, or by what it reads."""
    actions = getattr(callback, "actions", None)
    if isinstance(actions, dict):
        return [name.upper() for name in actions]
    names = getattr(view, "http_method_names", None)
    if names:
        return [name.upper() for name in names if name != "options" and hasattr(view, name)]
    while callback is not None:
        for value in closure_of(callback):
            if isinstance(value, (list, tuple, set)) and value and all(
                    isinstance(name, str) and name.isupper() for name in value):
                return list(value)
        callback = getattr(callback, "__wrapped__", None)
    named = [name for name in ("GET", *WITH_BODY, "DELETE") if name in entry["words"]]
    return list(dict.fromkeys([*(["POST"] if entry["body"] else []), *named, "GET"]))


def closure_of(function):
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:
            pass
