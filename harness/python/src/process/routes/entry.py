"""Routes as the harness reads them, and what the code of their endpoints adds."""

import json
import re

from .code import followed, is_path, is_subprotocol, numbers_of, texts_of, words_of
from .examples import OTHERS, add_bodies, as_text, put_form, put_json
from .reading import Shape, reads_of

is_credential = re.compile("auth|token|key|ticket|session|password|secret").search
MESSAGES = 8  # of one route
OFFERS = 8  # subprotocols of one route
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
# Names of headers that clients of HTTP send by themselves.
STANDARD = frozenset((
    "accept", "accept-encoding", "authorization", "connection", "content-length", "content-type",
    "cookie", "host", "origin", "referer", "sec-websocket-protocol", "upgrade", "user-agent"))


def new_entry(path, kind, methods, name):
    return {"path": path, "kind": kind, "methods": sorted(methods or ()), "name": name,
            "query": [], "headers": [], "params": [], "cookies": [], "content_type": "",
            "body": "", "full_body": "", "words": [], "numbers": [], "subprotocols": [], "offers": [],
            "messages": []}


def add_parameter(entry, place, name, required, kind, good, others=()):
    """Adds a parameter, unless one of that name is there."""
    if name.lower() not in [known["name"].lower() for known in entry[place]]:
        entry[place].append(
            {"name": name, "required": required, "type": kind, "good": good, "others": list(others)})


def add_code(entry, *endpoints, shapes=None, more=()):
    """Adds what the code of endpoints tells: words, subprotocols, and what it reads without a schema."""
    entry["words"] = list(dict.fromkeys([*entry["words"], *words_of(*endpoints, more=more)]))
    entry["numbers"] = list(dict.fromkeys([*entry["numbers"], *numbers_of(*endpoints)]))
    is_websocket = entry["kind"] == "websocket"
    known = parameter_shapes(entry)
    reads = reads_of(*endpoints, shapes={**known, **(shapes or {})}, is_websocket=is_websocket)
    for place in ("params", "query", "headers", "cookies"):
        for parameter in entry[place]:
            shape = known.get(argument_name(parameter["name"]))
            improve(parameter, shape)
            improve(parameter, reads.places["params"].keys.get(parameter["name"]))
    add_read_parameters(entry, reads)
    if is_websocket:
        add_subprotocols(entry, reads, endpoints)
        add_messages(entry, reads)
    elif not entry["body"]:
        add_read_body(entry, reads)


def add_middleware(entry, *values):
    """Adds the parameters that code in front of a route reads from each request."""
    reads = reads_of(*values, is_websocket=entry["kind"] == "websocket")
    add_read_parameters(entry, reads)
    entry["words"] = list(dict.fromkeys([*entry["words"], *words_of(*values)]))


def argument_name(name):
    """The name of the argument in which a function gets a parameter."""
    return name.replace("-", "_").lower() if "-" in name else name


def parameter_shapes(entry):
    """A shape for each argument that is a parameter of the request."""
    return {argument_name(parameter["name"]): Shape()
            for place in ("params", "query", "headers", "cookies") for parameter in entry[place]}


def improve(parameter, shape):
    """Gives a parameter a value that the code looks for, or one that it can convert."""
    if shape is None:
        return
    name = parameter["name"].lower()
    further = [as_text(value) for value in shape.further()]
    others = [*parameter.get("others", ()), *further]
    parameter["others"] = list(dict.fromkeys(text for text in others if text != parameter["good"]))[:OTHERS]
    if shape.held:
        parameter["good"] = shape.prefix + str(shape.held[0])
        parameter["required"] |= bool(is_credential(name))
    elif shape.tail is not None and shape.tail.held and name == "authorization":
        parameter.update(good=f"Bearer {shape.tail.held[0]}", required=True)
    elif parameter["good"] in ("a", "") and shape.kind in ("number", "time"):
        parameter["good"] = as_good(shape)


def add_read_parameters(entry, reads):
    for place in ("query", "cookies", "headers"):
        for name, shape in reads.places[place].keys.items():
            # A request without it is an ordinary one: a route that fails then has a mistake.
            parameter = {"name": name, "required": False, "type": "read", "good": as_good(shape)}
            improve(parameter, shape)
            is_known = shape.held or shape.starts or shape.tail is not None and shape.tail.held
            if place != "headers" or name.lower() not in STANDARD or is_known:
                others = parameter.pop("others")
                add_parameter(entry, place, *parameter.values(), others)


def as_good(shape):
    value = shape.good()
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) else json.dumps(value)


def add_read_body(entry, reads):
    """Adds a body that the code reads: a form with the names that it asks for, or JSON with the keys."""
    form, files = dict(reads.places["form"].keys), reads.places["files"].keys
    if files or form or reads.is_read & {"form", "files"}:
        fields = [(name, shape.required, shape.kind == "file", shape.good(), shape.good())
                  for name, shape in form.items() if name not in files]
        fields += [(name, shape.required, True, "a", "a") for name, shape in files.items()]
        if not fields and "files" in reads.is_read:
            fields = [("file", False, True, "a", "a")]
        put_form(fields or [("a", False, False, "a", "a")], entry)
    elif "json" in reads.is_read:
        shape = reads.places["json"]
        put_json(shape.good(False) if shape.is_known() else {}, shape.good() if shape.is_known() else {}, entry)
        whole = shape.good()
        if isinstance(whole, dict):
            bodies = ({**whole, key: value} for key, inner in shape.keys.items() for value in inner.further()
                      if value != whole.get(key))
            add_bodies(bodies, entry)
    elif "text" in reads.is_read:
        entry["content_type"], entry["body"] = "text/plain", "a"


def add_subprotocols(entry, reads, endpoints):
    """Adds names of subprotocols: those that the code accepts or looks for, and what looks like one."""
    offered = reads.places["subprotocols"]
    names = [*reads.accepts, *offered.keys, *offered.values, *(offered.item.values if offered.item else ())]
    if "subprotocols" in reads.is_read or reads.accepts:
        held = [value for value in followed(endpoints) if not callable(value)]
        texts = texts_of(*endpoints, *held)
        # A name with a dot or a dash is likely to be one; so is a container's, where names are looked for.
        names += [text for text in texts if any(mark in text for mark in ".-")]
        names += texts_of(*held) if "subprotocols" in reads.is_read and not names else []
    names = [*entry["subprotocols"], *filter(is_subprotocol, names)]
    entry["subprotocols"] = list(dict.fromkeys(names))[:OFFERS]
    if not entry["offers"]:
        found = [*reads.accepts, *offered.keys, *(offered.item.values if offered.item else ())][:1]
        # A second name is what the first one announces, as a token is.
        found += offered.item.held[:1] if offered.item else []
        entry["offers"] = list(filter(is_subprotocol, dict.fromkeys(found)))


def add_messages(entry, reads):
    """Adds messages that the code takes: one for each value that it compares a key with."""
    shape, text = reads.places["message"], reads.places["text"]
    messages = [value for value in text.values if isinstance(value, str)]
    if text.head is not None:
        tail = f"{text.separator}{text.tail.good()}" if text.tail.is_known() else ""
        messages += [f"{value}{tail}" for value in text.head.values]
    if shape.is_known():
        messages += [json.dumps(value) for value in variants(shape)]
    messages = list(dict.fromkeys([*entry["messages"], *messages]))
    entry["messages"] = messages[:MESSAGES]


def variants(shape):
    """Values of a shape: one for each value of the first key that has several."""
    whole = shape.good()
    chosen = next((key for key, inner in shape.keys.items() if inner.values), None)
    if chosen is None or not isinstance(whole, dict):
        return [whole]
    return [{**whole, chosen: value} for value in shape.keys[chosen].values]


def paths_in(texts):
    return list(dict.fromkeys(text for text in texts if is_path(text)))
