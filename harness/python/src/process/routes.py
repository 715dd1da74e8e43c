"""Learns the routes of an app: what its frameworks tell, and what its code looks as if it had.

The shim imports this once the app is loaded, and forgets it again: the app never sees it.  Each
module in `routes/` knows one framework: `knows(app)` says whether an app is one of its, and
`learn(app, place, learner)` adds the routes that hang below a place.
"""

import inspect
import types

from . import channels, django, documented, graphql, litestar, mcp, shared, socketio, starlette, werkzeug
from .code import (
    followed, function_of, functions_of, globals_of, handler_of, is_own, is_word, module_texts, texts_of)
from .entry import add_code, add_middleware, add_parameter, new_entry, paths_in
from .reading import trees

FRAMEWORKS = (graphql, mcp, socketio, starlette, litestar, werkzeug, channels, django, documented)
DEPTH = 16  # of apps within apps
APPS = 256  # that are visited
ROUTES = 1000
TROUBLES = 16
PATHS = 16  # of a bare app
WORDS = 24  # of a bare app
# Attributes in which middleware usually keeps the app that it wraps come first.
INNER = ("app", "application", "asgi_app", "other_asgi_app", "inner", "wrapped", "wsgi_application")


class Place:
    """Where an app hangs: below a path with parameters, for some kinds of requests."""

    def __init__(self, prefix="", params=(), kinds=("http", "websocket"), depth=0, holders=()):
        self.prefix = prefix
        self.params = tuple(params)
        self.kinds = tuple(kinds)
        self.depth = depth
        self.holders = holders  # the apps around it

    def below(self, path, params=()):
        return Place(self.prefix + path, (*self.params, *params), self.kinds, self.depth + 1, self.holders)

    def of_kinds(self, *kinds):
        kept = [kind for kind in self.kinds if kind in kinds]
        return Place(self.prefix, self.params, kept, self.depth + 1, self.holders)


class Learner:
    """Visits an app and the apps within it."""

    def __init__(self):
        self.routes = []
        self.guesses = []
        self.troubles = []
        self.seen = set()
        self.wrappers = []  # apps of no framework, with their places, and whether they hold others
        self.fronts = []  # middleware, with the places that it is in front of
        self.allowed = []  # hosts and origins that are let in, with the places that they are for

    def visit(self, app, place):
        """Adds the routes of an app below a place."""
        key = (id(app), place.prefix, place.kinds)
        if app is None or key in self.seen or len(self.seen) >= APPS or place.depth > DEPTH or not place.kinds:
            return
        self.seen.add(key)
        for framework in FRAMEWORKS:
            if self.attempt(framework.NAME, place.prefix, framework.knows, app):
                self.attempt(framework.NAME, place.prefix, framework.learn, app, place, self)
                return
        inner = self.attempt("app", place.prefix, inner_apps, app) or []
        self.allow(place, getattr(app, "allowed_hosts", None), getattr(app, "allowed_origins", None))
        for value in inner:
            self.visit(value, place.below(""))
        self.wrappers.append((app, place, bool(inner)))

    def allow(self, place, hosts, origins=None):
        """Remembers a host and an origin that are let in, where not all are."""
        for name, values in (("host", hosts), ("origin", origins)):
            known = [value for value in values if isinstance(value, str)] if is_list(values) else []
            if known and "*" not in known:
                value = known[0].replace(":*", ":8000").replace("://*.", "://").lstrip("*.")
                is_bare = name == "origin" and "://" not in value
                self.allowed.append((place, name, "http://" + value if is_bare else value))

    def attempt(self, name, where, function, *args, options={}):
        """Calls a function that looks at the app; what fails there is told."""
        try:
            return function(*args, **options)
        except Exception as exc:
            self.trouble(name, where, exc)
            return None

    def trouble(self, name, where, exc):
        try:
            message = str(exc)[:500]
        except Exception:
            message = ""
        told = {"framework": name, "place": where or "/", "kind": type(exc).__name__, "message": message}
        if told not in self.troubles and len(self.troubles) < TROUBLES:
            self.troubles.append(told)

    def new(self, place, path, kind, methods=(), name=None):
        """A new route below a place, which is not added yet."""
        entry = new_entry(place.prefix + path, kind, methods, name)
        entry["params"] = [dict(known) for known in place.params]
        return entry

    def read(self, entry, *endpoints, **options):
        """Adds what the code of endpoints tells about a route."""
        self.attempt("app", entry["path"], add_code, entry, *endpoints, options=options)

    def add(self, entry, place):
        """Adds a route, if requests of its kind come to the place."""
        kind = "http" if entry["kind"] == "http" else "websocket"
        is_known = any(same(entry, known) for known in self.routes)
        if (entry["kind"] == "mount" or kind in place.kinds) and not is_known and len(self.routes) < ROUTES:
            self.routes.append(entry)

    def guess(self):
        """Adds paths that may exist: what the code names, and the root of everything."""
        for app, place, has_inner in self.wrappers:
            self.attempt("app", place.prefix, self.guess_paths, app, place, has_inner)
        for entry in [entry for entry in self.routes if entry["kind"] == "mount"]:
            if not any(other is not entry and other["path"].startswith(entry["path"] + "/")
                       for other in self.routes):
                self.guess_path(entry["path"] + "/", entry["params"], ["GET"])
                self.guess_path(entry["path"] + "/a-file", entry["params"], ["GET"])
        self.guess_path("/", [], ["GET"])
        wrappers = [(app, place) for app, place, has_inner in self.wrappers if has_inner]
        for app, place in [*self.fronts, *wrappers]:
            self.attempt("app", place.prefix, self.read_front, app, place)
        for place, name, value in self.allowed:
            for entry in self.behind(place):
                add_parameter(entry, "headers", name, True, "allowed", value)

    def behind(self, place):
        """The routes and guesses below a place."""
        return [entry for entry in [*self.routes, *self.guesses]
                if entry["path"].startswith(place.prefix) and entry["kind"] in place.kinds]

    def read_front(self, app, place):
        """Adds what middleware reads to the routes behind it."""
        functions = functions_of(app if inspect.isclass(app) or inspect.isroutine(app) else type(app))
        if any(is_own(function.__code__) for function in functions):
            for entry in self.behind(place):
                add_middleware(entry, app)

    def guess_path(self, path, params, methods, kind="http", words=(), app=None):
        entry = new_entry(path, kind, methods, None)
        entry["params"] = [dict(known) for known in params]
        entry["words"] = list(words)
        if not any(same(entry, known) or known["path"] == path and known["kind"] == kind
                   for known in [*self.routes, *self.guesses]):
            if app is not None:
                self.read(entry, app)
            self.guesses.append(entry)

    def guess_paths(self, app, place, has_inner):
        """The paths that the code of a bare app, or of a wrapper, names; what is there is not known."""
        if has_inner or place.depth > 0:
            # Other apps may be in the same module.
            function = function_of(app)
            is_app_own = function is not None and is_own(function.__code__)
            held = [value for value in followed([app]) if not callable(value)]
            texts = texts_of(type(app) if function is not app else app, *held) if is_app_own else []
            paths = [path for path in paths_in(texts) if path != "/"]
        else:
            try:
                texts = module_texts(app)
            except (AttributeError, KeyError):
                texts = []
            paths = paths_in(texts)[:PATHS] or ["/ws", "/"]
        words = [text for text in texts if is_word(text)][:WORDS]
        methods_named = [name for name in ("PUT", "PATCH", "DELETE") if name in texts]
        for path in paths[:PATHS]:
            whole = path if place.prefix and path.startswith(place.prefix) else place.prefix + path
            params = list(place.params)
            if whole.endswith("/") and len(path) > 1:
                whole += "{rest}"
                params.append({"name": "rest", "required": True, "type": "str", "good": "a"})
            for kind, methods in (("websocket", ()), ("http", ("GET", "POST", *methods_named))):
                if kind in place.kinds:
                    self.guess_path(whole, params, methods, kind, words, handler_of(app, path))


def is_list(values):
    return isinstance(values, (list, tuple, set, frozenset))


def same(entry, other):
    return all(entry[key] == other[key] for key in ("path", "kind", "methods"))


def inner_apps(app):
    """The apps that an app holds or calls: in attributes, closures and globals of its code."""
    found = []
    for value in held_by(app):
        for one in unpacked(value):
            if one is not app and is_app(one) and not any(one is other for other in found):
                found.append(one)
    return found


def unpacked(value):
    if isinstance(value, dict):
        return list(value.values())[:APPS]
    return list(value)[:APPS] if isinstance(value, (list, tuple)) else [value]


def held_by(app):
    if isinstance(app, types.MethodType):
        yield app.__self__
    if hasattr(app, "func") and hasattr(app, "args"):
        yield from (app.func, *app.args, *app.keywords.values())
    attributes = getattr(app, "__dict__", None) or {}
    slots = [name for base in type(app).__mro__ for name in getattr(base, "__slots__", ())]
    names = [*INNER, *attributes, *([slots] if isinstance(slots, str) else slots)]
    for name in dict.fromkeys(names):
        if isinstance(name, str) and not name.startswith("__"):
            yield attributes[name] if name in attributes else inspect.getattr_static(app, name, None)
    function = function_of(app)
    if function is not None:
        yield from globals_of(function)


def is_app(value):
    """Whether a value looks like an app: a framework's, or one that takes scope, receive and send."""
    if inspect.isclass(value) or inspect.ismodule(value) or not callable(value):
        return False
    try:
        if any(framework.knows(value) for framework in FRAMEWORKS):
            return True
    except Exception:
        return False
    function = function_of(value)
    if function is None:
        return False
    code = function.__code__
    names = code.co_varnames[:code.co_argcount]
    return any(tuple(names[start:start + 3]) == ("scope", "receive", "send") for start in (0, 1))


def learn(app):
    """The routes of an app, guesses, and the troubles with learning them."""
    learner = Learner()
    learner.visit(app, Place())
    learner.guess()
    trees.clear()
    return {"routes": learner.routes, "guesses": learner.guesses, "troubles": learner.troubles}
