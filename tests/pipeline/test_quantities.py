"""Rates, sizes and durations are parsed and formatted."""

from __future__ import annotations

import pytest

from sagelink.pipeline.quantities import format_rate, parse_duration, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "rate_bps"),
    [
        ("64kbit/s", 64_000),
        ("64 kbit/s", 64_000),
        ("0.5Mbit/s", 500_000),
        (".5Mbps", 500_000),
        ("8kB/s", 64_000),
        ("1GB/s", 8e9),
        ("1e3", 1000),
        ("9600bps", 9600),
        ("2Kbit/s", 2000),
        (64_000, 64_000),
        (0.25, 0.25),
        (1e-7, 1e-7),
        (" 5 ", 5),
        ("unlimited", None),
    ],
)
def test_rates(text, rate_bps):
    assert parse_rate(text) == (rate_bps if rate_bps is None else pytest.approx(rate_bps))


@pytest.mark.parametrize(
    ("text", "size"),
    [("2kB", 2000), ("1.5MB", 1_500_000), ("64KiB", 65_536), ("1MiB", 2**20), ("1GiB", 2**30), ("17", 17), (17, 17)],
)
def test_sizes(text, size):
    parsed = parse_size(text)
    assert parsed == size
    assert isinstance(parsed, int)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("1s", 1), ("2min", 120), ("1h", 3600), ("1d", 86_400), ("250us", 2.5e-4), (3, 3), ("0.25", 0.25)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


MEANINGLESS = ["", "fast", "64 k bit", "64kbit/h", "-5", "-5s", "1,5MB", "5.5.5", "1s2", True, False, [1], {"a": 1}]


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
    with pytest.raises(ValueError, match="500ms, 1s or 2min") as caught:
        parse_duration(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("parse", [parse_rate, parse_size, parse_duration])
@pytest.mark.parametrize("value", ["0", 0, 0.0, "1e999"])
def test_zero_and_infinity_are_refused(parse, value):
    with pytest.raises(ValueError, match="above 0") as caught:
        parse(value)
    assert repr(value) in str(caught.value)


def test_a_size_is_at_least_one_byte():
    with pytest.raises(ValueError, match="0.3"):
        parse_size("0.3")


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
