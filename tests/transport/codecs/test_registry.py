"""The codec registry, by name and by number."""

from __future__ import annotations

import pytest

from sagelink.pipeline.errors import UsageError
from sagelink.transport import codecs
from sagelink.transport.codecs import codec_by_name, codec_by_number, codec_names, register_codec
from sagelink.transport.codecs.raw import RawZstd
from sagelink.transport.envelope import MalformedMessage


def test_codec_numbers_are_unique():
    numbers = {codec_by_name(name).number for name in codec_names()}
    assert len(numbers) == len(codec_names())
    assert all(codec_by_number(number).number == number and 1 <= number <= 255 for number in numbers)


def test_numbers_never_change():
    numbers = {name: codec_by_name(name).number for name in codec_names()}
    assert numbers == {
        "raw-zstd": 1,
        "token-zstd": 2,
        "webp": 3,
        "avif": 4,
        "webp-frame": 5,
        "jpeg-frame": 6,
        "avif-frame": 7,
    }


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"encode\.codec: unknown codec 'raw-zst' \(did you mean 'raw-zstd'\?\)"):
        codec_by_name("raw-zst")
    with pytest.raises(UsageError, match="accepted: .*raw-zstd"):
        codec_by_name("")


@pytest.mark.parametrize("number", [0, 10, 200, 255])
def test_an_unknown_number_is_malformed(number):
    with pytest.raises(MalformedMessage, match=f"unknown codec {number}"):
        codec_by_number(number)


def test_a_codec_can_be_registered_once_per_number(monkeypatch):
    class Other(RawZstd):
        number = 99

    monkeypatch.setattr(codecs, "_CODECS", dict(codecs._CODECS))
    other = Other()
    register_codec("other", other)
    assert codec_by_name("other") is codec_by_number(99) is other
    with pytest.raises(ValueError, match="99 is taken"):
        register_codec("third", Other())
