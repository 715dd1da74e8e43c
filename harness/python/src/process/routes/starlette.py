"""Starlette and FastAPI: routes, mounts, included routers, static files, class-based endpoints."""

import inspect
import os
import sys

from . import graphql, mcp
from .entry import METHODS, add_parameter
from .examples import UUID, add_bodies, as_text, example, other_texts, put_form, put_json, variants

NAME = "starlette"
FILES = 3  # of a directory
CONVERTORS = {"IntegerConvertor": "1", "FloatConvertor": "1.5", "PathConvertor": "a/b",
              "UUIDConvertor": UUID}


def knows(app):
    return isinstance(getattr(app, "routes", None), list) and callable(app) and not has_patterns(app)


def has_patterns(app):
    """Whether its routes are Django's, as a router of Channels has them, or Litestar's."""
    tops = [base.__module__.partition(".")[0] for base in type(app).__mro__]
    return "channels" in tops or "litestar" in tops


def learn(app, place, learner):
    place.holders = (*place.holders, app)
    collect(app.routes, place, learner)
    for middleware in getattr(app, "user_middleware", None) or ():
        options = getattr(middleware, "kwargs", None) or getattr(middleware, "options", None) or {}
        learner.allow(place, options.get("allowed_hosts"))
        learner.fronts += [(value, place) for value in (middleware.cls, options.get("dispatch")) if value]


def collect(items, place, learner):
    """Adds routes; one that cannot be read leaves the others."""
    for item in items:
        learner.attempt(framework_of(item), place.prefix, collect_one, item, place, learner)


def framework_of(item):
    tops = [base.__module__.partition(".")[0] for base in type(item).__mro__]
    return next((top for top in tops if top in ("fastapi", "starlette")), NAME)


def collect_one(item, place, learner):
    # Newer FastAPI keeps an included router as one item with its routes made on demand.
    if hasattr(item, "effective_candidates"):
        return collect(item.effective_candidates(), place, learner)
    route = getattr(item, "starlette_route", None) or item
    classes = [base.__name__ for base in type(route).__mro__]
    path = getattr(route, "path", None)
    convertors = getattr(route, "param_convertors", None) or {}
    if "Mount" in classes or "Host" in classes:
        params = [known for known in parameters_of(convertors) if "{" + known["name"] in (path or "")]
        return collect_mount(route, path or "", params, place, learner)
    if not isinstance(path, str):
        raise TypeError(f"{type(route).__name__} has no path")
    endpoint = getattr(route, "endpoint", None)
    is_websocket = "WebSocketRoute" in classes
    if not is_websocket and graphql.knows(endpoint) or mcp.knows(endpoint):
        return learner.visit(endpoint, place.below(path).of_kinds("http"))
    if graphql.knows(endpoint):
        return learner.visit(endpoint, place.below(path).of_kinds("websocket"))
    methods = () if is_websocket else getattr(route, "methods", None) or handled_methods(endpoint)
    entry = learner.new(place, path, "websocket" if is_websocket else "http", methods,
                        getattr(route, "name", None))
    dependant = getattr(route, "dependant", None)
    shapes = {}
    learner.attempt("fastapi", entry["path"], collect_parameters, dependant, entry, shapes, learner)
    for parameter in parameters_of(convertors):
        add_parameter(entry, "params", *parameter.values())
    learner.read(entry, endpoint, *dependencies(dependant), shapes=shapes)
    learner.attempt(graphql.NAME, entry["path"], graphql.add_to, entry, endpoint)
    fit_methods(entry, route)
    learner.add(entry, place)


def fit_methods(entry, route):
    """A route that takes every method gets one with a body, where its code reads one."""
    if entry["kind"] == "http" and not entry["methods"]:
        entry["methods"] = ["GET", "POST"] if entry["body"] or getattr(route, "methods", 0) is None else []


def parameters_of(convertors):
    for name, convertor in convertors.items():
        kind = type(convertor).__name__
        yield {"name": name, "required": True, "type": kind, "good": CONVERTORS.get(kind, "a")}


def collect_mount(route, path, params, place, learner):
    app = getattr(route, "app", None)
    below = place.below(path, params)
    learner.add(learner.new(below, "", "mount", (), getattr(route, "name", None)), place)
    if hasattr(app, "all_directories"):
        return collect_files(app, below, learner)
    before = len(learner.routes)
    learner.visit(app, below)
    if len(learner.routes) == before and getattr(route, "routes", None):
        collect(route.routes, below, learner)


def collect_files(app, place, learner):
    """The first files of directories that are served as they are."""
    for path in files_in(app.all_directories):
        learner.add(learner.new(place, "/" + path, "http", ["GET", "HEAD"]), place)


def files_in(directories):
    found = []
    for directory in directories:
        for base, inner, names in os.walk(directory):
            inner.sort()
            found += [os.path.relpath(os.path.join(base, name), directory) for name in sorted(names)]
            if len(found) >= FILES:
                break
    return [path for path in found if path.isascii() and not set(path) & set("{}?#% ")][:FILES]


def handled_methods(endpoint):
    """The methods of a class-based endpoint, which its route does not name."""
    names = METHODS[:5]
    return [name for name in names if inspect.isclass(endpoint) and hasattr(endpoint, name.lower())]


def dependencies(dependant):
    """The functions that FastAPI calls before an endpoint."""
    for nested in getattr(dependant, "dependencies", ()):
        yield nested.call
        yield from dependencies(nested)


def collect_parameters(dependant, entry, shapes, learner):
    """Adds what FastAPI reads from the request for this route and for its dependencies.

    A parameter whose type cannot be read has a value all the same.
    """
    if dependant is None:
        return
    fields = {"query": dependant.query_params, "headers": dependant.header_params,
              "params": dependant.path_params, "cookies": dependant.cookie_params}
    for place in fields:
        for field in fields[place]:
            kind = getattr(field, "type_", None) or field.field_info.annotation
            schema = learner.attempt("fastapi", entry["path"], schema_of, field)
            good = as_text(learner.attempt("fastapi", entry["path"], example, schema, schema))
            others = learner.attempt("fastapi", entry["path"], other_texts, schema, schema, good)
            parameter = {"name": field.alias, "required": is_required(field),
                         "type": kind.__name__ if type(kind) is type else str(kind),
                         "good": good, "others": others or []}
            if parameter not in entry[place]:
                entry[place].append(parameter)
    collect_body(dependant.body_params, entry, shapes)
    for nested in dependant.dependencies:
        collect_parameters(nested, entry, shapes, learner)


def is_required(field):
    required = getattr(field, "required", None)
    return bool(field.field_info.is_required() if required is None else required)


def collect_body(fields, entry, shapes):
    """Adds a body that the route takes: with what it cannot do without, and with everything."""
    if not fields or entry["body"] or entry["full_body"]:
        return
    kinds = [base.__name__ for field in fields for base in type(field.field_info).__mro__]
    if "File" in kinds or "Form" in kinds:
        form = [(field.alias, is_required(field), is_upload(field), example_of(field),
                 example_of(field, True)) for field in fields]
        return put_form(form, entry)
    is_embedded = len(fields) > 1 or getattr(fields[0].field_info, "embed", False)
    if is_embedded:
        least = {field.alias: example_of(field) for field in fields if is_required(field)}
        most = {field.alias: example_of(field, True) for field in fields}
        schemas = {field.alias: schema_of(field) for field in fields}
        bodies = ({**most, name: value} for name, schema in schemas.items()
                  for value in variants(schema, schema, most[name]))
    else:
        schema = schema_of(fields[0])
        least, most = example(schema, schema), example(schema, schema, everything=True)
        if least in ({}, None) and most == least:
            # Its schema says nothing, but its code may.
            shapes[fields[0].name] = "json"
            return
        bodies = variants(schema, schema, most)
    add_bodies(bodies, entry)
    put_json(least, most, entry)


def is_upload(field):
    return any(base.__name__ == "File" for base in type(field.field_info).__mro__)


def example_of(field, everything=False):
    """A value that the field takes, by its JSON schema: with what it can do without, or not."""
    schema = schema_of(field)
    return example(schema, schema, everything=everything)


def schema_of(field):
    adapter = getattr(field, "_type_adapter", None)
    if adapter is None and hasattr(field, "outer_type_"):
        return schema_of_pydantic_1(field)
    if adapter is None:
        from pydantic import TypeAdapter
        adapter = TypeAdapter(field.field_info.annotation)
    return adapter.json_schema()


def schema_of_pydantic_1(field):
    """The JSON schema of a field of pydantic 1, also of the one within pydantic 2."""
    package = type(field).__module__.rpartition(".")[0]
    schemas = sys.modules.get(package + ".schema") or __import__(package + ".schema", fromlist=["schema"])
    models = schemas.get_flat_models_from_field(field, known_models=set())
    names = schemas.get_model_name_map(models)
    schema, definitions, _ = schemas.field_schema(
        field, model_name_map=names, ref_prefix="#/definitions/")
    return {**schema, "definitions": definitions}
