"""Channels: routers by protocol and by path, and consumers with all their methods."""

from .django import template_of

NAME = "channels"
# Parameters of a consumer's methods that hold what a client sent.
RECEIVED = {"content": "message", "text_data": "text", "bytes_data": "text"}


def is_a(app, name):
    return any(base.__name__ == name and base.__module__.startswith("channels.")
               for base in type(app).__mro__)


def knows(app):
    return (is_a(app, "ProtocolTypeRouter") or is_a(app, "URLRouter")
            or getattr(app, "consumer_class", None) is not None)


def learn(app, place, learner):
    if is_a(app, "ProtocolTypeRouter"):
        for kind, inner in app.application_mapping.items():
            learner.visit(inner, place.of_kinds(kind))
    elif is_a(app, "URLRouter"):
        for route in app.routes:
            learner.attempt(NAME, place.prefix, collect_one, route, place, learner)
    else:
        learn_consumer(app, place, learner)


def collect_one(route, place, learner):
    path, params = template_of(route.pattern)
    # With an empty path the request goes to the inner app as it is.
    if path and not place.prefix.endswith("/"):
        path = "/" + path.lstrip("/")
    learner.visit(route.callback, place.below(path, params))


def learn_consumer(app, place, learner):
    consumer = app.consumer_class
    classes = [base.__name__ for base in consumer.__mro__]
    is_http = any("Http" in name for name in classes)
    kinds = ["http"] if is_http else [kind for kind in place.kinds if kind == "websocket"]
    for kind in kinds:
        entry = learner.new(place, "" if place.prefix else "/", kind, ["GET", "POST"] if is_http else ())
        entry["name"] = consumer.__name__
        learner.read(entry, consumer, shapes=RECEIVED)
        learner.add(entry, place)
