"""The book of events: one picture an event and better ones, everything bounded, each event closed once."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.types import FrameEvent
from sagelink.stages.nvr.contract import Sighting
from sagelink.stages.nvr.event_book import NO_PICTURE, OVERFLOW, BookLimits, EventBook


class Closed(list[tuple[str, str | None]]):
    def __call__(self, event: FrameEvent, reason: str | None) -> None:
        self.append((event.id, reason))


def seen(event_id: str, score: float = 0.5, ended: bool = False, private: bool = False, picture: bytes | None = None):
    return Sighting(FrameEvent(event_id, "yard", "dog", score, None, private), picture, ended)


def book(closed: Closed, fetches: bool = True, **limits: int) -> EventBook:
    return EventBook(BookLimits(**limits), fetches, closed)


def fetch(events: EventBook, now_s: float = 0.0, data: bytes | None = b"picture") -> str | None:
    wanted = events.next_fetch(now_s)
    if wanted is None:
        return None
    events.fetched(wanted[0].id, data, now_s)
    return wanted[0].id


def test_one_event_from_new_to_end():
    closed = Closed()
    events = book(closed)
    events.observe(seen("a"), 0.0)
    assert fetch(events) == "a"
    assert events.take().data == b"picture"
    events.observe(seen("a", ended=True), 1.0)
    assert closed == []
    events.settled("a", None, 2.0)
    assert closed == [("a", None)]
    assert not events.knows("a")
    assert len(events) == events.waiting == 0


def test_an_ended_event_that_an_earlier_run_answered_gets_no_further_picture():
    closed = Closed()
    events = book(closed)
    events.observe(seen("over", ended=True), 0.0, answered=True)
    assert fetch(events) is None
    assert closed == [("over", NO_PICTURE)]
    events.observe(seen("goes on"), 0.0, answered=True)
    assert fetch(events) == "goes on"


def test_a_further_picture_needs_a_higher_score_and_there_are_at_most_so_many():
    events = book(Closed(), frames=2)
    for score, wanted in ((0.5, "a"), (0.52, None), (0.6, "a"), (0.9, None)):
        events.observe(seen("a", score), 0.0)
        assert fetch(events) == wanted
        if wanted:
            events.take()
            events.settled("a", None, 0.0)


def test_a_better_picture_replaces_the_one_that_waits():
    events = book(Closed(), frames=1)
    events.observe(seen("a", 0.5), 0.0)
    assert fetch(events, data=b"first") == "a"
    events.observe(seen("a", 0.9), 0.0)
    assert fetch(events, data=b"better") == "a"
    ready = events.take()
    assert (ready.data, ready.event.score) == (b"better", 0.9)
    assert events.take() is None


def test_updates_out_of_order_and_repeated_ends_do_not_start_an_event_again():
    closed = Closed()
    events = book(closed)
    events.observe(seen("a", ended=True), 0.0)
    events.observe(seen("a", 0.9), 0.0)  # an update that came late
    assert fetch(events) == "a"
    assert fetch(events) is None
    events.take()
    events.settled("a", None, 0.0)
    assert closed == [("a", None)]
    assert not events.knows("a")


def test_a_missing_picture_is_fetched_again_for_some_time():
    closed = Closed()
    events = book(closed)
    events.observe(seen("a"), 0.0)
    events.observe(seen("a", ended=True), 0.0)
    attempts = [now_s / 10 for now_s in range(400) if fetch(events, now_s / 10, None)]
    assert 5 <= len(attempts) <= 12
    assert attempts[-1] <= 20
    assert closed == [("a", NO_PICTURE)]


def test_an_event_in_progress_without_picture_is_asked_again_at_its_next_news():
    events = book(Closed())
    events.observe(seen("a"), 0.0)
    for now_s in range(30):
        fetch(events, now_s, None)
    assert events.next_fetch(30) is None
    events.observe(seen("a"), 31)
    assert fetch(events, 31) == "a"


def test_a_picture_may_come_a_little_after_the_end_of_its_event():
    closed = Closed()
    events = book(closed, fetches=False)
    events.observe(seen("a", ended=True), 0.0)
    events.observe(seen("b", ended=True), 0.0)
    events.expire(5.0)
    events.observe(seen("a", picture=b"late", ended=True), 5.0)
    assert events.take().data == b"late"
    events.settled("a", None, 5.0)
    events.expire(11.0)
    assert closed == [("a", None), ("b", NO_PICTURE)]


def test_the_same_picture_again_is_no_further_picture():
    events = book(Closed(), fetches=False)
    events.observe(seen("a", picture=b"x"), 0.0)
    events.take()
    events.observe(seen("a", picture=b"x"), 0.0)
    assert events.take() is None
    events.observe(seen("a", picture=b"y"), 0.0)
    assert events.take().data == b"y"


def test_a_storm_is_bounded_and_the_oldest_give_way():
    closed = Closed()
    events = book(closed, waiting=3, events=5)
    for number in range(20):
        events.observe(seen(f"e{number}", ended=number % 2 == 0), 0.0)
        assert events.waiting <= 3
        assert len(events) <= 5
    assert {reason for _, reason in closed} == {OVERFLOW}
    taken = [fetch(events) for _ in range(3)]
    assert taken == ["e17", "e18", "e19"]


def test_pictures_that_wait_are_bounded_in_bytes():
    events = book(Closed(), fetches=False, waiting_bytes=100)
    for number in range(10):
        events.observe(seen(f"e{number}", picture=bytes(40) + bytes([number])), 0.0)
    assert events.waiting == 2


def test_an_event_that_was_private_once_stays_private():
    events = book(Closed())
    events.observe(seen("a", private=True), 0.0)
    events.observe(seen("a", 0.9), 0.0)
    fetch(events)
    assert events.take().event.private
    events.observe(seen("b"), 0.0)
    fetch(events)
    events.observe(seen("b", private=True, ended=True), 0.0)
    assert events.take().event.private


MOVES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("nuehftsx"), st.floats(0, 1)), max_size=80)


@given(MOVES, st.booleans())
def test_whatever_happens_each_event_is_closed_at_most_once_and_nothing_grows(moves, fetches):
    closed = Closed()
    events = book(closed, fetches, events=4, waiting=2, waiting_bytes=50)
    in_graph: list[str] = []
    now_s = 0.0
    for number, move, score in moves:
        event_id = f"e{number}"
        now_s += score
        if move in "nue" and events.knows(event_id):
            picture = bytes([number]) * int(1 + 40 * score) if not fetches else None
            events.observe(seen(event_id, score, ended=move == "e", picture=picture), now_s)
        elif move in "hf":
            fetch(events, now_s, b"x" * int(1 + 40 * score) if move == "f" else None)
        elif move == "t" and (ready := events.take()):
            in_graph.append(ready.event.id)
        elif move in "s" and in_graph:
            events.settled(in_graph.pop(), None, now_s)
        elif move == "x":
            events.expire(now_s)
        assert events.waiting <= 2
        assert len(events) <= 4 + len(in_graph)
    assert max(Counter(event_id for event_id, _ in closed).values(), default=1) == 1


def test_events_that_an_earlier_run_has_answered_do_not_count():
    events = book(Closed())
    events.close_earlier([f"e{number}" for number in range(5000)])
    assert not events.knows("e4999")
    assert events.knows("e0")  # the memory is bounded
    assert events.knows("new")


def test_while_nobody_answers_a_picture_is_fetched_for_an_hour():
    closed = Closed()
    events = book(closed)
    events.observe(seen("a", ended=True), 0.0)
    attempts = 0
    for now_s in range(600):
        if wanted := events.next_fetch(now_s):
            attempts += 1
            events.fetched(wanted[0].id, None, now_s, away=True)
    assert attempts < 40
    assert closed == []
    while events.next_fetch(now_s) is None:
        now_s += 1
    events.fetched("a", b"picture", now_s)
    assert events.oldest()[1] == now_s  # waits for bits from now on
    assert events.take().data == b"picture"
