"""Reads requests of programs: the query and the JSON body of a route, checked against what the route takes.

Whatever is wrong is a UsageError that names what is accepted; `guarded_app` answers with it and status 400.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sagelink.pipeline.errors import UsageError, suggest
from sagelink.pipeline.files.documents import DocumentError, parse_json

MAX_BODY = 4096  # bytes
_MAX_SHOWN = 40  # characters of a wrong word in a message


def api_route(
    path: str,
    answer: Callable[[Request], Awaitable[Response]],
    query: Sequence[str] = (),
    methods: Sequence[str] = ("GET",),
) -> Route:
    """A route that takes the keys `query` in its query, each once, and no others."""

    async def checked(request: Request) -> Response:
        _check_query(request, query)
        return await answer(request)

    return Route(path, checked, methods=[*methods])


async def request_body(request: Request) -> bytes:
    """The body of a request. Raises UsageError if it has more than MAX_BODY bytes."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise UsageError(f"the body of the request is too large; accepted: up to {MAX_BODY} bytes")
    return body


async def json_object(request: Request, accepted: Collection[str]) -> dict[str, object]:
    """The JSON object of a body, with keys of `accepted` only; an empty body is an empty object. Raises UsageError."""
    body = await request_body(request)
    try:
        values = parse_json(body or b"{}")
    except DocumentError as error:
        raise UsageError(f"accepted: a JSON object; {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"accepted: a JSON object; got {_KINDS[type(values)]}")
    for key in values:
        if key not in accepted:
            raise UsageError(_unknown(f"unknown key {_shown(key)}", key, accepted))
    return values


def choice(query: Mapping[str, str], key: str, accepted: Sequence[str], default: str) -> str:
    """One of the words `accepted`; `default` without a value."""
    word = query.get(key) or default
    if word != default and word not in accepted:
        raise UsageError(_unknown(f"{key} {_shown(word)}", word, accepted))
    return word


def words(query: Mapping[str, str], key: str, max_characters: int) -> str:
    """Any text up to a length; empty without a value."""
    text = query.get(key, "")
    if len(text) > max_characters:
        raise UsageError(f"{key} has {len(text)} characters; accepted: up to {max_characters}")
    return text


def whole(query: Mapping[str, str], key: str, minimum: int, maximum: int, default: int) -> int:
    """A whole number within bounds; `default` without a value."""
    text = query.get(key) or str(default)
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(maximum)) else minimum - 1
    if not minimum <= number <= maximum:
        raise UsageError(f"{key} {_shown(text)}; accepted: a whole number, {minimum} to {maximum}")
    return number


def number(query: Mapping[str, str], key: str, minimum: float, maximum: float) -> float | None:
    """A number within bounds; None without a value."""
    text = query.get(key)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not minimum <= value <= maximum:
        raise UsageError(f"{key} {_shown(text)}; accepted: a number, {minimum:g} to {maximum:g}")
    return value


def _check_query(request: Request, accepted: Sequence[str]) -> None:
    keys = [key for key, _ in request.query_params.multi_items()]
    for key in keys:
        if key not in accepted:
            raise UsageError(_unknown(f"unknown key {_shown(key)} in the query", key, accepted))
        if keys.count(key) > 1:
            raise UsageError(f"{key} is given {keys.count(key)} times in the query; accepted: once")


def _unknown(problem: str, word: str, accepted: Collection[str]) -> str:
    return f"{problem}{suggest(word[:_MAX_SHOWN], [*accepted])}; accepted: {', '.join(accepted) or 'none'}"


def _shown(text: str) -> str:
    return repr(text[:_MAX_SHOWN])


_KINDS = {list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}
