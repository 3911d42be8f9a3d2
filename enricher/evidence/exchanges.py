"""
Recorded HTTP exchanges: which they are in a decoded HAR file or cassette, and what was answered in each.

Only the answer is looked at. What was asked for holds what people and models said, and is never evidence.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import zstandard

from enricher.evidence import bounded_json, payload
from enricher.evidence.payload import MAX_TEXT, Said
from enricher.semconv import RUN_URL, served_by_azure

if TYPE_CHECKING:
    from collections.abc import Sequence

URL_LIMIT: Final = 2048

API_PATH: Final = re.compile(r"/threads(?:/|\Z)")
"""Paths of the Assistants API, whatever stands before them."""

EVENT: Final = re.compile(r"\s*event: ?thread\.")

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
PIECE: Final = 1 << 16


class ExchangeError(ValueError):
    """The answer is there and cannot be read; `size` bytes were made of it. The text never quotes it."""

    def __init__(self, what: str, size: int = 0) -> None:
        super().__init__(what)
        self.size = size


class Answer(NamedTuple):
    """What the response of one exchange says, which is nothing unless it is the API's."""

    said: Said
    urls: tuple[tuple[str, str], ...] = ()
    azure: bool | None = None
    size: int = 0
    """How much was read for it, after inflation."""
    problem: str = ""
    """Why the API's answer cannot be read."""


def exchanges_of(document: Any) -> tuple[str, Sequence[Any]] | None:
    """Return the exchanges of a HAR file, a cassette, or a plain list, and what one is called; None if it has none."""
    if isinstance(document, dict):
        log = document.get("log")
        if isinstance(log, dict) and isinstance(log.get("entries"), list):
            return "entry", log["entries"]
        if isinstance(document.get("interactions"), list):
            return "interaction", document["interactions"]
        return ("exchange", [document]) if _is_exchange(document) else None
    if isinstance(document, list) and document and all(map(_is_exchange, document)):
        return "exchange", document
    return None


def answer(exchange: Any, room: int) -> Answer:
    """
    Return what the response says if it is the Assistants API's.

    It is where the request's path is the API's, or where the whole body is one of its objects. Of a body at most
    `room` bytes are read.
    """
    if not isinstance(exchange, dict):
        return Answer(Said())
    request = exchange.get("request")
    url = _url(request)
    path = url.partition("?")[0].partition("#")[0]
    local = f"/{path.partition('://')[2].partition('/')[2]}" if "://" in path else path
    # A record that is neither HAR nor a cassette need not say where the request went.
    is_api = API_PATH.search(local) is not None or (isinstance(request, dict) and not {"url", "uri"} & request.keys())
    ids = RUN_URL.search(local)
    urls = ((ids[1], ids[3]),) if ids and ids[3] else ()
    azure = served_by_azure(url) if "://" in url else None
    try:
        body = _text(_body(exchange.get("response")), min(room, MAX_TEXT))
        said = _said(body, is_api=is_api)
    except ExchangeError as error:
        return Answer(Said(), urls, azure, error.size, str(error) if is_api else "")
    return Answer(said, urls, azure, len(body) if isinstance(body, str) else 0)


def _is_exchange(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("request"), dict) and "response" in value


def _url(request: Any) -> str:
    """Return where the request went: `url` in HAR, `uri` in cassettes."""
    if not isinstance(request, dict):
        return ""
    url = request.get("url") or request.get("uri")
    return url if isinstance(url, str) and len(url) <= URL_LIMIT else ""


def _body(response: Any) -> Any:
    """Return the body as it was recorded: text, bytes, or a decoded value."""
    if not isinstance(response, dict) or "object" in response:
        return response
    content = response.get("content")
    if isinstance(content, dict):  # HAR
        text = content.get("text")
        if content.get("encoding") != "base64" or not isinstance(text, str):
            return text
        try:
            return base64.b64decode(text)
        except (binascii.Error, ValueError):
            raise ExchangeError("a body that should be base64 and is not") from None
    # Older versions of vcrpy put what httpx received under `content`. What names neither is the answer itself.
    body = response.get("body", response.get("content", response))
    return body["string"] if isinstance(body, dict) and "string" in body else body


def _text(body: Any, room: int) -> Any:
    """Return bytes as text, inflated; anything else as it is."""
    if isinstance(body, bytes):
        plain = _inflated(body, room)
        try:
            body = plain.decode()
        except UnicodeDecodeError:
            what = "a body that is neither text nor compressed with gzip, deflate or zstd"
            raise ExchangeError(what, len(plain)) from None
    if isinstance(body, str) and len(body) > room:
        raise ExchangeError(f"a body of more than {room} bytes")
    return body


def _inflated(body: bytes, room: int) -> bytes:
    """
    Return a body without its compression, at most `room` bytes and a piece of it.

    Its own first bytes tell: recorders that inflate bodies leave `content-encoding` as it was.
    """
    is_zlib = body[:1] == b"x" and int.from_bytes(body[:2], "big") % 31 == 0  # HTTP's deflate; no text of ours is
    if not body.startswith((GZIP, ZSTD)) and not is_zlib:
        return body
    plain = bytearray()
    try:
        if body.startswith(ZSTD):
            with zstandard.ZstdDecompressor().stream_reader(body) as reader:
                while len(plain) <= room and (piece := reader.read(PIECE)):
                    plain += piece
        else:
            stream = zlib.decompressobj(47)
            plain += stream.decompress(body, PIECE)
            while len(plain) <= room and not stream.eof:
                piece = stream.decompress(stream.unconsumed_tail, PIECE)
                if not piece and not stream.eof:
                    raise ExchangeError("a compressed body that is cut off", len(plain))
                plain += piece
    except (zlib.error, zstandard.ZstdError):
        raise ExchangeError("a compressed body that is damaged", len(plain)) from None
    if len(plain) > room:
        raise ExchangeError(f"a body of more than {room} bytes, inflated", len(plain))
    return bytes(plain)


def _said(body: Any, *, is_api: bool) -> Said:
    """Return what a body says; nothing if it is of something else."""
    if not isinstance(body, str):
        return payload.read_value(body) if is_api or _is_ours(body) else Said()
    if not payload.looks_like_payload(body):
        return Said()
    try:
        data = body.encode("utf-8", "surrogatepass")
        bounded_json.check(data)
        if EVENT.match(body):
            return payload.read(body)
        value = bounded_json.loads(data)
    except bounded_json.BoundedJsonError as error:
        if len(data) > bounded_json.COUNT_FROM:
            raise ExchangeError(str(error), len(data)) from None
        # Events that have no name, or an answer that is cut off.
        return payload.read(body) if is_api else Said()
    return payload.read_value(value) if is_api or _is_ours(value) else Said()


def _is_ours(value: Any) -> bool:
    """Tell whether a value as a whole is an object of the API, or a list of such."""
    if not isinstance(value, dict):
        return False
    if value.get("object") != "list":
        return _is_object(value)
    data = value.get("data")
    return isinstance(data, list) and bool(data) and all(map(_is_object, data))


def _is_object(value: Any) -> bool:
    kind = value.get("object") if isinstance(value, dict) else None
    return isinstance(kind, str) and kind.startswith("thread.")
