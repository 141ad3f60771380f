"""Rates, sizes and durations are parsed and formatted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sagelink.pipeline.quantities import (
    Duration,
    Rate,
    Size,
    format_duration,
    format_rate,
    parse_duration,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "rate_bps"),
    [
        ("64kbit/s", 64_000),
        ("64 kbit/s", 64_000),
        ("0.5Mbit/s", 500_000),
        (".5Mbps", 500_000),
        ("8kB/s", 64_000),
        ("1GB/s", 8e9),
        ("1e3bit/s", 1000),
        ("9600bps", 9600),
        ("2Kbit/s", 2000),
        (64_000, 64_000),
        (0.25, 0.25),
        (1e-7, 1e-7),
        (" 5 bps ", 5),
        ("unlimited", None),
    ],
)
def test_rates(text, rate_bps):
    assert parse_rate(text) == (rate_bps if rate_bps is None else pytest.approx(rate_bps))


@pytest.mark.parametrize(
    ("text", "size"),
    [("2kB", 2000), ("1.5MB", 1_500_000), ("64KiB", 65_536), ("1MiB", 2**20), ("1GiB", 2**30), ("17B", 17), (17, 17)],
)
def test_sizes(text, size):
    parsed = parse_size(text)
    assert parsed == size
    assert isinstance(parsed, int)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1s", 1),
        ("2min", 120),
        ("1h", 3600),
        ("1d", 86_400),
        ("250us", 2.5e-4),
        (3, 3),
        ("0.25s", 0.25),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


MEANINGLESS = [
    "",
    "fast",
    "64 k bit",
    "64kbit/h",
    "-5",
    "-5s",
    "1,5MB",
    "5.5.5",
    "1s2",
    "1e5x",
    True,
    False,
    [1],
    {"a": 1},
]


@pytest.mark.parametrize("value", [*MEANINGLESS, "64mbit/s", "2kB", "1s", "nan", float("nan")])
def test_an_invalid_rate_names_accepted_values(value):
    with pytest.raises(ValueError, match="64kbit/s, 0.5Mbit/s, 8kB/s or unlimited") as caught:
        parse_rate(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [*MEANINGLESS, None, "64kbit/s", "1s", "2KB/s", "inf", float("inf")])
def test_an_invalid_size_names_accepted_values(value):
    with pytest.raises(ValueError, match="2kB, 1.5MB or 64KiB") as caught:
        parse_size(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [*MEANINGLESS, None, "64kbit/s", "2kB", "unlimited"])
def test_an_invalid_duration_names_accepted_values(value):
    with pytest.raises(ValueError, match="500ms, 1s, 2min, 1h or 1d") as caught:
        parse_duration(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(("parse", "unit"), [(parse_rate, "bit/s"), (parse_size, "B"), (parse_duration, "s")])
@pytest.mark.parametrize("value", ["0", 0, 0.0, "1e999"])
def test_zero_and_infinity_are_refused(parse, unit, value):
    value = value + unit if isinstance(value, str) else value
    with pytest.raises(ValueError, match="above 0") as caught:
        parse(value)
    assert repr(value) in str(caught.value)


def test_a_size_is_at_least_one_byte():
    with pytest.raises(ValueError, match="0.3"):
        parse_size("0.3B")


@pytest.mark.parametrize(
    ("rate_bps", "text"),
    [
        (None, "unlimited"),
        (64_000, "64 kbit/s"),
        (500, "500 bit/s"),
        (1.5e6, "1.5 Mbit/s"),
        (2e9, "2 Gbit/s"),
        (0, "0 bit/s"),
    ],
)
def test_formatted_rates_can_be_parsed(rate_bps, text):
    assert format_rate(rate_bps) == text
    if rate_bps:
        assert parse_rate(text) == rate_bps


# Text without a unit could mean several things


@pytest.mark.parametrize(
    ("parse", "text", "meant"),
    [
        (parse_rate, "64", "64kbit/s, 64Mbit/s or 64bit/s?"),
        (parse_rate, " 0.5 ", "0.5kbit/s, 0.5Mbit/s or 0.5bit/s?"),
        (parse_size, "256", "256kB, 256MB or 256B?"),
        (parse_duration, "10", "10s, 10min or 10h?"),
    ],
)
def test_text_without_a_unit_is_refused_with_its_likely_meanings(parse, text, meant):
    with pytest.raises(ValueError, match="units: ") as caught:
        parse(text)
    assert str(caught.value).endswith(f"got {text!r} without a unit: did you mean {meant}")
    for meaning in meant.removesuffix("?").replace(" or ", ", ").split(", "):
        assert parse(meaning) > 0


@pytest.mark.parametrize(
    ("parse", "units"),
    [
        (parse_rate, "units: bit/s, kbit/s, Mbit/s, Gbit/s, B/s, kB/s, MB/s, GB/s"),
        (parse_size, "units: B, kB, MB, GB, KiB, MiB, GiB"),
        (parse_duration, "units: s, us, ms, min, h, d"),
    ],
)
def test_an_error_lists_every_unit(parse, units):
    with pytest.raises(ValueError, match=units):
        parse("5 furlongs")
    for unit in units.removeprefix("units: ").split(", "):
        assert parse(f"5{unit}") > 0


def test_a_unit_with_a_typing_error_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'Mbit/s'"):
        parse_rate("64mbit/s")


# A dumped configuration holds quantities with their units, exactly


class Quantities(BaseModel):
    rate: Rate
    size: Size
    duration: Duration


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ((64_000.0, 256_000, 0.5), ("64kbit/s", "256kB", "500ms")),
        ((1e6, 65_536, 120.0), ("1Mbit/s", "64KiB", "120s")),
        ((None, 17, 0.1), ("unlimited", "17B", "100ms")),
        ((0.1, 10**9, 1 / 3), ("0.1bit/s", "1GB", "0.3333333333333333s")),
    ],
)
def test_a_dump_is_written_with_units(value, texts):
    rate, size, duration = value
    quantities = Quantities.model_construct(rate=rate, size=size, duration=duration)
    assert tuple(quantities.model_dump().values()) == texts


@given(
    rate=st.none() | st.floats(1e-3, 1e12),
    size=st.integers(1, 10**12),
    duration=st.floats(1e-9, 1e9),
)
def test_a_dump_loses_nothing(rate, size, duration):
    quantities = Quantities.model_construct(rate=rate, size=size, duration=duration)
    assert Quantities.model_validate(quantities.model_dump(mode="json")) == quantities


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1 s"), (42.4, "42 s"), (150, "2 min"), (5400, "90 min"), (7800, "2 h 10 min")]
)
def test_formatted_durations(seconds, text):
    assert format_duration(seconds) == text
