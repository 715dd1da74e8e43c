"""Learns the routes of an app: what its framework tells, or else what its code looks as if it had.

The shim imports this once the app is loaded, and forgets it again: the app never sees it.
"""

import inspect
import json
import re
import sys
from urllib.parse import quote_plus


def routes(app):
    """The routes of a Starlette or FastAPI app, also one that middleware is wrapped around.

    Of an app that has only an OpenAPI document they are what that says.
    """
    found = []
    for _ in range(10):
        try:
            if isinstance(getattr(app, "routes", None), list):
                collect_routes(app.routes, "", found)
                break
            if callable(getattr(app, "openapi", None)):
                collect_documented(app.openapi(), found)
                break
            app = app.app
        except Exception:
            break
    return found


def collect_routes(items, prefix, found):
    """Adds the routes to `found`; what cannot be read is left out."""
    for item in items:
        try:
            # Newer FastAPI keeps an included router as one item with its routes made on demand.
            if hasattr(item, "effective_candidates"):
                collect_routes(item.effective_candidates(), prefix, found)
            else:
                collect_route(getattr(item, "starlette_route", None) or item, prefix, found)
        except Exception:
            continue


def collect_route(route, prefix, found):
    classes = [base.__name__ for base in type(route).__mro__]
    path = prefix + getattr(route, "path", "")
    kind = "http"
    if "Mount" in classes or "Host" in classes:
        kind = "mount"
    elif "WebSocketRoute" in classes:
        kind = "websocket"
    endpoint = getattr(route, "endpoint", None)
    methods = getattr(route, "methods", None) or handled_methods(endpoint)
    entry = new_entry(path, kind, methods, getattr(route, "name", None))
    collect_parameters(getattr(route, "dependant", None), entry)
    for name, convertor in (getattr(route, "param_convertors", None) or {}).items():
        if name not in [known["name"] for known in entry["params"]]:
            value = {"IntegerConvertor": "1", "FloatConvertor": "1.5", "PathConvertor": "a/b",
                     "UUIDConvertor": UUID}.get(type(convertor).__name__, "a")
            entry["params"].append(
                {"name": name, "required": True, "type": type(convertor).__name__, "good": value})
    if kind != "mount":
        entry["words"] = words_of(endpoint, *dependencies(getattr(route, "dependant", None)))
    found.append(entry)
    if kind == "mount":
        collect_routes(route.routes or (), path, found)


def new_entry(path, kind, methods, name):
    return {"path": path, "kind": kind, "methods": sorted(methods or ()), "name": name,
            "query": [], "headers": [], "params": [], "cookies": [], "content_type": "",
            "body": "", "full_body": "", "words": []}


def handled_methods(endpoint):
    """The methods of a class-based endpoint, which its route does not name."""
    names = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return [name for name in names if inspect.isclass(endpoint) and hasattr(endpoint, name.lower())]


def collect_parameters(dependant, entry):
    """Adds what FastAPI reads from the request for this route and for its dependencies."""
    if dependant is None:
        return
    fields = {"query": dependant.query_params, "headers": dependant.header_params,
              "params": dependant.path_params, "cookies": dependant.cookie_params}
    for place in fields:
        for field in fields[place]:
            kind = getattr(field, "type_", None) or field.field_info.annotation
            parameter = {"name": field.alias, "required": is_required(field),
                         "type": kind.__name__ if type(kind) is type else str(kind),
                         "good": as_text(example_of(field))}
            if parameter not in entry[place]:
                entry[place].append(parameter)
    collect_body(dependant.body_params, entry)
    for nested in dependant.dependencies:
        collect_parameters(nested, entry)


def is_required(field):
    required = getattr(field, "required", None)
    return bool(field.field_info.is_required() if required is None else required)


def collect_body(fields, entry):
    """Adds a body that the route takes: with what it cannot do without, and with everything."""
    if not fields or entry["body"] or entry["full_body"]:
        return
    kinds = [type(field.field_info).__name__ for field in fields]
    if "File" in kinds or "Form" in kinds:
        form = [(field.alias, is_required(field), type(field.field_info).__name__ == "File",
                 example_of(field), example_of(field, True)) for field in fields]
        return put_form(form, entry)
    is_embedded = len(fields) > 1 or getattr(fields[0].field_info, "embed", False)
    if is_embedded:
        least = {field.alias: example_of(field) for field in fields if is_required(field)}
        most = {field.alias: example_of(field, True) for field in fields}
    else:
        least, most = example_of(fields[0]), example_of(fields[0], True)
    put_json(least, most, entry)


def put_json(least, most, entry):
    entry["content_type"] = "application/json"
    entry["body"] = json.dumps(least)
    entry["full_body"] = json.dumps(most) if most != least else ""


BOUNDARY = "relapse-form-boundary"


def put_form(form, entry):
    """Adds the bodies of a form; a field is its name, whether it is required, whether it is a file,
    and a value of it, with what it cannot do without and with everything."""
    has_files = any(is_file for _, _, is_file, _, _ in form)
    write = write_parts if has_files else write_pairs
    least = [(name, is_file, value) for name, required, is_file, value, _ in form if required]
    most = [(name, is_file, value) for name, _, is_file, _, value in form]
    entry["content_type"] = "application/x-www-form-urlencoded"
    if has_files:
        entry["content_type"] = f"multipart/form-data; boundary={BOUNDARY}"
    entry["body"], full = write(flat(least)), write(flat(most))
    entry["full_body"] = full if full != entry["body"] else ""


def flat(form):
    """A model in a form has fields of its own."""
    for name, is_file, value in form:
        if isinstance(value, dict) and not is_file:
            yield from ((inner, False, value[inner]) for inner in value)
        else:
            yield name, is_file, value


def write_pairs(form):
    return "&".join(f"{quote_plus(name)}={quote_plus(as_text(value))}" for name, _, value in form)


def write_parts(form):
    """The parts of a form with files (RFC 7578)."""
    text = ""
    for name, is_file, value in form:
        head = f'Content-Disposition: form-data; name="{name}"'
        if is_file:
            head += '; filename="a.txt"\r\nContent-Type: text/plain'
        text += f"--{BOUNDARY}\r\n{head}\r\n\r\n{as_text(value)}\r\n"
    return f"{text}--{BOUNDARY}--\r\n"


def example_of(field, everything=False):
    """A value that the field takes, by its JSON schema: with what it can do without, or not."""
    adapter = getattr(field, "_type_adapter", None)
    if adapter is None:
        from pydantic import TypeAdapter
        adapter = TypeAdapter(field.field_info.annotation)
    schema = adapter.json_schema()
    return example(schema, schema, everything=everything)


UUID = "12345678-1234-4234-8234-123456789abc"
FORMATS = {"uuid": UUID, "date": "2026-01-02", "date-time": "2026-01-02T03:04:05Z",
           "time": "03:04:05", "email": "a@example.org", "uri": "http://127.0.0.1/",
           "duration": "PT1S", "ipv4": "127.0.0.1", "binary": "a"}


FULL_DEPTH = 5  # of values with all that they may have: what is below has what it must have


def example(schema, root, depth=0, everything=False, inside=()):
    """A value of a JSON schema whose references are to `root`; those in `inside` are being followed."""
    def within(schema, *entered):
        return example(schema, root, depth + 1, everything, (*inside, *entered))

    if not isinstance(schema, dict) or depth > 10:
        return None
    if "$ref" in schema:
        return within(document_part(root, schema["$ref"]), schema["$ref"])
    for key in ("const", "default", "example"):
        if schema.get(key) is not None:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            options = [option for option in schema[key] if option.get("type") != "null"]
            return within(options[0]) if options else None
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        most = schema.get("maximum", schema.get("exclusiveMaximum", least + 2))
        value = least + 1 if least + 1 <= most else least
        if schema.get("multipleOf"):
            value = -(-value // schema["multipleOf"]) * schema["multipleOf"]
        return value
    if kind == "boolean":
        return True
    if kind == "array":
        count = max(schema.get("minItems", 1), 1)
        return [within(schema.get("items", {})) for _ in range(count)]
    if kind == "object" or "properties" in schema:
        required = schema.get("required", ())
        return {name: within(value) for name, value in schema.get("properties", {}).items()
                if name in required
                or (everything and depth < FULL_DEPTH and not leads_back(value, inside))}
    text = FORMATS.get(schema.get("format"), "a")
    return text if len(text) >= schema.get("minLength", 0) else "a" * schema["minLength"]


def document_part(root, reference):
    """What a reference names."""
    for part in reference.removeprefix("#/").split("/"):
        root = root[part]
    return root


def leads_back(schema, inside):
    """Whether a schema names one that is being followed, so that it could go on for ever."""
    text = json.dumps(schema, default=str)
    return any(json.dumps({"$ref": name})[1:-1] in text for name in inside)


def as_text(value):
    """A value as it stands in a query, a header or a path."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else ""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def collect_documented(document, found):
    """Adds the operations of an OpenAPI document."""
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            if not isinstance(operation, dict) or method.upper() not in METHODS:
                continue
            entry = new_entry(path, "http", [method.upper()], operation.get("operationId"))
            places = {"query": "query", "header": "headers", "path": "params", "cookie": "cookies"}
            for parameter in operation.get("parameters", []) + operations.get("parameters", []):
                place = places.get(parameter.get("in"))
                if place:
                    entry[place].append({
                        "name": parameter["name"], "required": bool(parameter.get("required")),
                        "type": str(parameter.get("schema", {}).get("type", "string")),
                        "good": as_text(example(parameter.get("schema", {}), document))})
            content = operation.get("requestBody", {}).get("content", {})
            collect_documented_body(content, document, entry)
            found.append(entry)


def collect_documented_body(content, document, entry):
    """Adds the bodies that an OpenAPI document describes."""
    forms = ("multipart/form-data", "application/x-www-form-urlencoded")
    kind = next((kind for kind in ("application/json", *forms) if kind in content), None)
    if kind is None:
        return
    schema = content[kind].get("schema", {})
    least, most = example(schema, document), example(schema, document, everything=True)
    if kind not in forms:
        return put_json(least, most, entry)
    for _ in range(10):
        if "$ref" not in schema:
            break
        schema = document_part(document, schema["$ref"])
    properties = schema.get("properties", {})
    put_form([(name, name in least, is_file(properties.get(name, {})), least.get(name), value)
              for name, value in (most or {}).items()], entry)


def is_file(schema):
    """Whether a value of a JSON schema, or each item of it, is a file."""
    schema = schema.get("items", schema)
    return schema.get("format") == "binary" or "contentMediaType" in schema


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def guess_routes(app):
    """The paths that the code around a bare app names; what is there is not known."""
    try:
        function = inspect.unwrap(app) if inspect.isroutine(app) else type(app).__call__
        module = sys.modules[function.__module__]
        texts = texts_of(*(value for value in vars(module).values()
                           if getattr(value, "__module__", None) == module.__name__))
    except Exception:
        texts = []
    paths = [text for text in texts if is_path(text)]
    found = []
    for path in list(dict.fromkeys(paths))[:PATHS] or ["/ws", "/"]:
        for kind, methods in (("websocket", ()), ("http", ("GET", "POST"))):
            entry = new_entry(path, kind, methods, None)
            entry["words"] = [text for text in texts if is_word(text)][:WORDS]
            found.append(entry)
    return found


PATHS = 16  # of a bare app
WORDS = 24  # of one endpoint
is_path = re.compile(r"/[A-Za-z0-9_./-]*").fullmatch
is_word = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,23}").fullmatch


def words_of(*functions):
    """What the code of an endpoint calls things: names of parameters, keys of messages, values."""
    try:
        return list(dict.fromkeys(filter(is_word, texts_of(*functions))))[:WORDS]
    except Exception:
        return []


def dependencies(dependant):
    """The functions that FastAPI calls before an endpoint."""
    for nested in getattr(dependant, "dependencies", ()):
        yield nested.call
        yield from dependencies(nested)


def texts_of(*values):
    """The texts that stand in the code of functions and classes, in order."""
    found, seen = [], set()

    def visit(value):
        value = inspect.unwrap(value) if callable(value) else value
        if inspect.isclass(value):
            for item in vars(value).values():
                visit(getattr(item, "__func__", item))
        elif inspect.ismethod(value):
            visit(value.__func__)
        elif inspect.isfunction(value):
            read(value.__code__)

    def read(code):
        if code in seen:
            return
        seen.add(code)
        is_first = True
        for const in code.co_consts:
            if inspect.iscode(const):
                read(const)
            # The first one may be the docstring.
            for text in const if isinstance(const, (tuple, frozenset)) else (const,):
                text = text.decode("latin-1") if isinstance(text, bytes) else text
                if isinstance(text, str) and not (is_first and " " in text):
                    found.append(text)
            is_first = False

    for value in values:
        visit(value)
    return found
