"""The registry of evidence codecs, which encode selected units of a picture as payload bytes. See docs/codec.md."""

from __future__ import annotations

from sagelink.pipeline.errors import UsageError, suggest
from sagelink.transport.codecs import av1, jpeg, vp8
from sagelink.transport.codecs.contract import Canvas, Codec, CodecFailed, Patches, Tokens, cut_units
from sagelink.transport.codecs.images import Stripped, WholeFile
from sagelink.transport.codecs.raw import RawZstd
from sagelink.transport.codecs.tokens import TokenZstd
from sagelink.transport.envelope import MalformedMessage

__all__ = [
    "Canvas",
    "Codec",
    "CodecFailed",
    "Patches",
    "Tokens",
    "codec_by_name",
    "codec_by_number",
    "codec_names",
    "cut_units",
    "register_codec",
]

_CODECS: dict[str, Codec] = {
    "raw-zstd": RawZstd(),
    "token-zstd": TokenZstd(),
    "webp": Stripped(3, vp8),
    "avif": Stripped(4, av1),
    "webp-frame": WholeFile(5, vp8),
    "jpeg-frame": WholeFile(6, jpeg),
    "avif-frame": WholeFile(7, av1),
}


def codec_names() -> list[str]:
    return [*_CODECS]


def register_codec(name: str, codec: Codec) -> None:
    """Adds a codec under its name and number; both sides must register it. Raises ValueError if the number is taken."""
    if any(codec.number == known.number for known in _CODECS.values()):
        raise ValueError(f"codec number {codec.number} is taken")
    _CODECS[name] = codec


def codec_by_name(name: str) -> Codec:
    """The codec with this name. Raises UsageError for an unknown name."""
    if name not in _CODECS:
        raise UsageError(
            f"encode.codec: unknown codec {name!r}{suggest(name, [*_CODECS])}; accepted: {', '.join(_CODECS)}"
        )
    return _CODECS[name]


def codec_by_number(number: int) -> Codec:
    """The codec with this number. Raises MalformedMessage for an unknown number."""
    for codec in _CODECS.values():
        if codec.number == number:
            return codec
    raise MalformedMessage(f"unknown codec {number}")
