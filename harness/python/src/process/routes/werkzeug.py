"""Flask and Quart: URL maps with converters, also of a Flask app behind a WSGI adapter."""

from .examples import UUID, match_of
from .starlette import files_in

NAME = "flask"
GOOD = {"FloatConverter": "1.5", "PathConverter": "a/b", "UUIDConverter": UUID}


def knows(app):
    return any(base.__name__ in ("Flask", "Quart") for base in type(app).__mro__) and hasattr(app, "url_map")


def learn(app, place, learner):
    for rule in app.url_map.iter_rules():
        learner.attempt(NAME, place.prefix, collect_one, app, rule, place, learner)


def collect_one(app, rule, place, learner):
    view = app.view_functions.get(rule.endpoint)
    path, params = template_of(rule)
    if rule.endpoint == "static" and app.static_folder:
        for name in files_in([str(app.static_folder)]):
            below = place.below(path.replace("{filename:path}", name))
            learner.add(learner.new(below, "", "http", ["GET"]), place)
        return
    is_websocket = bool(getattr(rule, "websocket", False))
    methods = [name for name in rule.methods or ("GET",) if name not in ("HEAD", "OPTIONS")]
    kind = "websocket" if is_websocket else "http"
    entry = learner.new(place.below(path, params), "", kind, () if is_websocket else methods, rule.endpoint)
    learner.read(entry, getattr(view, "view_class", None) or view)
    learner.add(entry, place)


def template_of(rule):
    path, params, rest = "", [], rule.rule
    while "<" in rest:
        before, _, rest = rest.partition("<")
        inside, _, rest = rest.partition(">")
        name = inside.rpartition(":")[2]
        converter = rule._converters.get(name)
        kind = type(converter).__name__
        params.append({"name": name, "required": True, "type": kind, "good": good_of(converter, kind)})
        path += before + "{" + name + (":path}" if kind == "PathConverter" else "}")
    return path + rest, params


def good_of(converter, kind):
    if kind in GOOD:
        return GOOD[kind]
    if kind == "IntegerConverter":
        return str(converter.min or 1).zfill(converter.fixed_digits or 1)
    if kind == "AnyConverter":
        return sorted(converter.items)[0]
    return match_of(getattr(converter, "regex", "a"))
