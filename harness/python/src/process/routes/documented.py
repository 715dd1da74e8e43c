"""Routes of an app that has nothing but an OpenAPI document."""

from .entry import METHODS
from .examples import add_bodies, as_text, example, is_file, other_texts, put_form, put_json, resolved, variants

NAME = "openapi"
PLACES = {"query": "query", "header": "headers", "path": "params", "cookie": "cookies"}


def knows(app):
    return callable(getattr(app, "openapi", None))


def learn(app, place, learner):
    document = app.openapi()
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            if isinstance(operation, dict) and method.upper() in METHODS:
                entry = learner.new(place, path, "http", [method.upper()], operation.get("operationId"))
                learner.attempt(
                    NAME, path, collect_operation, operation, operations, document, entry)
                learner.add(entry, place)


def collect_operation(operation, operations, document, entry):
    """Adds the parameters and the body that an OpenAPI document describes for a route."""
    for parameter in operation.get("parameters", []) + operations.get("parameters", []):
        place, schema = PLACES.get(parameter.get("in")), parameter.get("schema", {})
        if place and parameter["name"] not in [known["name"] for known in entry[place]]:
            good = as_text(example(schema, document))
            entry[place].append({
                "name": parameter["name"], "required": bool(parameter.get("required")),
                "type": str(schema.get("type", "string")), "good": good,
                "others": other_texts(schema, document, good)})
    content = operation.get("requestBody", {}).get("content", {})
    collect_body(content, document, entry)


def collect_body(content, document, entry):
    """Adds the bodies that an OpenAPI document describes."""
    forms = ("multipart/form-data", "application/x-www-form-urlencoded")
    kind = next((kind for kind in ("application/json", *forms) if kind in content), None)
    if kind is None:
        return
    schema = content[kind].get("schema", {})
    least, most = example(schema, document), example(schema, document, everything=True)
    if kind not in forms:
        add_bodies(variants(schema, document, most), entry)
        return put_json(least, most, entry)
    properties = resolved(schema, document).get("properties", {})
    put_form([(name, name in least, is_file(properties.get(name, {})), least.get(name), value)
              for name, value in (most or {}).items()], entry)
