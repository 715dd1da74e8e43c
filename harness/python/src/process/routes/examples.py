"""Good values, by JSON schema or by regular expression, and bodies made of them."""

import itertools
import json
from urllib.parse import quote_plus

try:
    from re import _parser as parser
except ImportError:
    import sre_parse as parser  # before Python 3.11


UUID = "12345678-1234-4234-8234-123456789abc"
FORMATS = {"uuid": UUID, "date": "2026-01-02", "date-time": "2026-01-02T03:04:05Z",
           "time": "03:04:05", "email": "a@example.org", "uri": "http://127.0.0.1/",
           "duration": "PT1S", "ipv4": "127.0.0.1", "binary": "a"}


OTHERS = 24  # further values of a parameter, and further bodies of a route
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
    if everything and kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return {"a": within(schema["additionalProperties"])}
    if kind == "object" or "properties" in schema:
        required = schema.get("required", ())
        return {name: within(value) for name, value in schema.get("properties", {}).items()
                if name in required
                or (everything and depth < FULL_DEPTH and not leads_back(value, inside))}
    if schema.get("pattern"):
        return match_of(schema["pattern"])
    text = FORMATS.get(schema.get("format"), "a")
    return text if len(text) >= schema.get("minLength", 0) else "a" * schema["minLength"]


def further_values(schema, root, depth=0):
    """Other values that a JSON schema names: members of an enumeration, limits of a number, null, an empty list."""
    schema = resolved(schema, root)
    yield from schema.get("enum") or ()
    for key, step in (("minimum", 0), ("maximum", 0), ("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        if isinstance(schema.get(key), (int, float)):
            yield schema[key] + step
    for key in ("anyOf", "oneOf"):
        for option in (schema.get(key) or ()) if depth < FULL_DEPTH else ():
            yield None if option.get("type") == "null" else example(option, root)
            yield from further_values(option, root, depth + 1)
    if schema.get("type") == "boolean":
        yield from (True, False)
    if schema.get("type") == "array":
        yield []


def other_texts(schema, root, good):
    """The further values of a parameter with this good one, as texts."""
    texts = [as_text(value) for value in further_values(schema, root) if value is not None]
    return list(dict.fromkeys(text for text in texts if text != good))[:OTHERS]


def variants(schema, root, full):
    """The values of a schema that differ from this full one in one place."""
    schema = resolved(schema, root)
    yield from (value for value in further_values(schema, root) if value != full)
    if isinstance(full, dict):
        options = [option for key in ("anyOf", "oneOf", "allOf") for option in schema.get(key) or ()]
        for part in (schema, *(resolved(option, root) for option in options)):
            for name, inner in (part.get("properties") or {}).items():
                if name in full:
                    yield from ({**full, name: value} for value in variants(inner, root, full[name]))
    elif isinstance(full, list) and full:
        yield from ([value] for value in variants(schema.get("items") or {}, root, full[0]))


def add_bodies(bodies, entry):
    """Adds further bodies that a route takes."""
    entry["messages"] += list(dict.fromkeys(map(json.dumps, itertools.islice(bodies, OTHERS))))


def resolved(schema, root):
    """The schema to which references lead."""
    for _ in range(10):
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        schema = document_part(root, schema["$ref"])
    return schema if isinstance(schema, dict) else {}


def document_part(root, reference):
    """The part of a document that a reference names."""
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


def is_file(schema):
    """Whether a value of a JSON schema, or each item of it, is a file."""
    schema = schema.get("items", schema)
    return schema.get("format") == "binary" or "contentMediaType" in schema


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


TEXT = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-. "
CATEGORIES = {"CATEGORY_DIGIT": "1", "CATEGORY_WORD": "a", "CATEGORY_SPACE": " "}
REPEATS = 64  # of one part of a regular expression


def match_of(pattern):
    """A text that a regular expression matches, as far as it is a simple one."""
    return PathPattern(pattern, is_path=False).text()


class PathPattern:
    """A regular expression as a path template: its groups are parameters."""

    def __init__(self, pattern, is_path=True):
        self.is_path = is_path
        self.params = []
        tree = parser.parse(pattern)
        self.names = {number: name for name, number in tree.state.groupdict.items()}
        self.parts = [self.write(tree)]

    def text(self):
        return "".join(self.parts)

    def write(self, tree):
        return "".join(self.write_one(str(kind), value) for kind, value in tree)

    def write_one(self, kind, value):
        if kind == "LITERAL":
            return chr(value)
        if kind in ("NOT_LITERAL", "ANY"):
            return "b" if value == ord("a") else "a"
        if kind == "IN":
            return member_of(value)
        if kind.endswith("REPEAT"):
            least, most, inner = value
            count = max(int(least), 1 if int(most) else 0)
            return self.write(inner) * min(count, REPEATS)
        if kind == "BRANCH":
            return self.write(value[1][0])
        if kind == "SUBPATTERN":
            number, inner = value[0], value[-1]
            return self.write_group(number, inner)
        if kind == "ATOMIC_GROUP":
            return self.write(value)
        return ""  # anchors, and looks around

    def write_plain(self, inner):
        """A match, without parameters of its own."""
        self.is_path, is_path = False, self.is_path
        try:
            return self.write(inner)
        finally:
            self.is_path = is_path

    def write_group(self, number, inner):
        if not self.is_path or number is None:
            return self.write(inner)
        name = self.names.get(number, f"group_{number}")
        good = self.write_plain(inner)
        self.params.append({"name": name, "required": True, "type": "pattern", "good": good})
        return "{" + name + (":path}" if "/" in good else "}")


def member_of(items):
    """A character of a set."""
    kinds = [(str(kind), value) for kind, value in items]
    if kinds and kinds[0][0] == "NEGATE":
        taken = [value for kind, value in kinds if kind == "LITERAL"]
        ranges = [value for kind, value in kinds if kind == "RANGE"]
        names = [str(value) for kind, value in kinds if kind == "CATEGORY"]
        for char in TEXT:
            code = ord(char)
            is_named = ("CATEGORY_DIGIT" in names and char.isdigit()
                        or "CATEGORY_WORD" in names and (char.isalnum() or char == "_")
                        or "CATEGORY_SPACE" in names and char.isspace())
            if code not in taken and not is_named and not any(a <= code <= b for a, b in ranges):
                return char
        return "a"
    for kind, value in kinds:
        if kind == "RANGE" and value[0] <= ord("a") <= value[1]:
            return "a"
        if kind == "CATEGORY":
            return CATEGORIES.get(str(value), "a")
    kind, value = kinds[0]
    return "1" if kind == "RANGE" and value[0] <= ord("1") <= value[1] else chr(
        value[0] if kind == "RANGE" else value)
