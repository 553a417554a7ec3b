"""When replies show that a server answers a model one request at a time, and when they do not. Times are in ms."""

from __future__ import annotations

from service.backend.overlap import Durations, Finding, OverlapWatch, Sending

MODEL, OTHER = "a:latest", "b:latest"
HOUR = 3_600_000
START = 1_700_000_000_000


class Server:
    """A model's replies, of which each is told when it ends; a time is counted from the start."""

    def __init__(self, model: str = MODEL, watch: OverlapWatch | None = None) -> None:
        self.watch = watch or OverlapWatch()
        self.model = model

    def begin(self, sent: int, first: int) -> Sending:
        return self.watch.began(self.model, START + sent, START + first)

    def end(self, reply: Sending, end: int, *, load: int = 0, prompt: int = 0, generation: int = 0) -> Finding | None:
        return self.watch.ended(reply, START + end, Durations(load, prompt, generation))

    def reply(
        self, sent: int, first: int, end: int, *, load: int = 0, prompt: int = 0, generation: int = 0
    ) -> Finding | None:
        return self.end(self.begin(sent, first), end, load=load, prompt=prompt, generation=generation)

    def in_turn(self, count: int, at: int = 0) -> list[Finding | None]:
        """One reply of 2 s, and after it so many that waited: each is asked for when the one before it begins, and
        takes as long, of which the prompt is 100 ms.
        """
        self.reply(at, at + 100, at + 2_000)
        starts = [at + 2_000 * number for number in range(1, count + 1)]
        return [self.reply(start - 2_000, start + 150, start + 2_000, load=40, prompt=100) for start in starts]

    def seats(self, at: int) -> int | None:
        return self.watch.seats(self.model, START + at)


def shows_waiting(server: Server, **reply: int) -> bool:
    """Whether a reply that comes after one of 10 s is one of the five; it is made to be the last of them."""
    server.in_turn(4, at=-20_000)
    server.reply(0, 100, 10_000)
    return server.reply(**reply) is Finding.ONE_AT_A_TIME


def test_five_replies_that_waited_for_each_other_leave_a_model_one_seat_and_four_do_not() -> None:
    server = Server()
    assert server.in_turn(5) == [None] * 4 + [Finding.ONE_AT_A_TIME]
    assert server.seats(12_000) == 1
    server = Server()
    assert server.in_turn(4) == [None] * 4
    assert server.seats(10_000) is None


def test_two_replies_that_send_tokens_at_once_begin_the_count_anew() -> None:
    server = Server()
    server.in_turn(4)
    beside = server.begin(20_000, 20_100)
    assert server.reply(20_000, 20_200, 25_000) is None
    server.end(beside, 26_000)
    assert server.in_turn(4, at=40_000) == [None] * 4
    assert server.reply(48_000, 50_150, 52_000, prompt=100) is Finding.ONE_AT_A_TIME


def test_a_long_reply_beside_the_others_is_seen_before_it_ends() -> None:
    server = Server()
    server.begin(0, 100)
    assert server.in_turn(20, at=1_000) == [None] * 20


def test_a_reply_that_was_broken_off_is_no_longer_beside_the_others() -> None:
    server = Server()
    assert server.watch.ended(server.begin(0, 100), START + 500, None) is None
    assert server.in_turn(5, at=1_000)[-1] is Finding.ONE_AT_A_TIME


def test_only_a_request_that_was_sent_a_second_before_the_other_ended_has_waited() -> None:
    assert shows_waiting(Server(), sent=9_000, first=10_050, end=11_000)
    assert not shows_waiting(Server(), sent=9_001, first=10_050, end=11_000)
    assert not shows_waiting(Server(), sent=10_001, first=10_050, end=11_000)


def test_what_the_prompt_took_is_not_waiting() -> None:
    assert shows_waiting(Server(), sent=1_000, first=15_000, end=16_000, prompt=5_000)
    # Durations are rounded, and two connections are read in any order.
    assert shows_waiting(Server(), sent=1_000, first=10_100, end=16_000, prompt=150)
    assert not shows_waiting(Server(), sent=1_000, first=10_100, end=16_000, prompt=151)
    assert shows_waiting(Server(), sent=1_000, first=15_000, end=16_000, prompt=5_500)
    assert not shows_waiting(Server(), sent=1_000, first=15_000, end=16_000, prompt=5_600)


def test_a_load_that_went_on_when_the_other_had_ended_is_not_waiting() -> None:
    assert shows_waiting(Server(), sent=1_000, first=15_000, end=16_000, load=500, prompt=5_000)
    assert not shows_waiting(Server(), sent=1_000, first=15_000, end=16_000, load=13_000, prompt=1_000)
    assert not shows_waiting(Server(), sent=1_000, first=10_100, end=16_000, load=9_100)


def test_tokens_that_were_held_back_are_not_waiting() -> None:
    # A tool call that Ollama composed in silence, or a proxy that sends all at the end.
    assert not shows_waiting(Server(), sent=1_000, first=15_000, end=15_000, prompt=100, generation=13_000)
    assert shows_waiting(Server(), sent=1_000, first=15_000, end=15_000, prompt=100, generation=4_900)


def test_a_reply_that_tells_no_durations_shows_nothing_by_its_waiting_but_others_may_wait_for_it() -> None:
    server = Server()
    for number in range(10):
        reply = server.begin(1_000 * number, 1_000 * number + 1_100)
        assert server.watch.ended(reply, START + 1_000 * number + 2_000, None) is None
    assert server.watch.limited == {}
    assert server.in_turn(4, at=20_000) == [None] * 4
    server.watch.ended(server.begin(28_000, 30_100), START + 40_000, None)
    assert server.reply(31_000, 40_010, 41_000) is Finding.ONE_AT_A_TIME


def test_bytes_of_two_connections_that_are_read_in_the_wrong_order_are_no_tokens_at_once() -> None:
    server = Server()
    server.in_turn(4)
    server.reply(20_000, 20_100, 25_000)
    assert server.reply(20_000, 24_950, 27_000) is Finding.ONE_AT_A_TIME


def test_after_an_hour_two_are_tried_and_five_more_leave_one_seat_for_another_hour() -> None:
    server = Server()
    server.in_turn(5)
    learned_at = 12_000
    assert (server.seats(learned_at + HOUR - 1), server.seats(learned_at + HOUR)) == (1, 2)
    again = learned_at + HOUR
    # That is no news, and four are no more enough than before.
    assert server.in_turn(4, at=again) == [None] * 4
    assert server.seats(again + 10_000) == 2
    assert server.reply(again + 8_000, again + 10_150, again + 12_000) is None
    assert server.seats(again + 12_000) == 1
    assert server.seats(again + 12_000 + HOUR) == 2


def test_what_still_waited_when_a_model_got_one_seat_does_not_count_for_the_next_try() -> None:
    server = Server()
    server.in_turn(9)
    again = 12_000 + HOUR
    server.in_turn(4, at=again)
    assert server.seats(again + 10_000) == 2


def test_a_try_in_which_tokens_come_at_once_ends_the_limit() -> None:
    server = Server()
    server.in_turn(5)
    again = 12_000 + HOUR
    beside = server.begin(again, again + 100)
    assert server.reply(again, again + 200, again + 5_000) is Finding.AT_ONCE
    assert server.end(beside, again + 6_000) is None
    assert server.seats(again + 6_000) is None
    assert server.in_turn(5, at=again + 10_000)[-1] is Finding.ONE_AT_A_TIME


def test_each_model_is_watched_by_itself() -> None:
    server = Server()
    other = Server(OTHER, server.watch)
    other.begin(0, 100)
    assert server.in_turn(5)[-1] is Finding.ONE_AT_A_TIME
    assert (server.seats(12_000), other.seats(12_000)) == (1, None)


def test_the_watch_forgets_models_rather_than_grow_without_end() -> None:
    watch = OverlapWatch()
    Server(watch=watch).in_turn(5)
    for number in range(300):
        Server(f"{number}:latest", watch).reply(0, 100, 200)
    assert len(watch._models) == 256
    assert watch.limited == {}


def test_a_prompt_that_was_read_beside_another_reply_begins_the_count_anew() -> None:
    server = Server()
    server.in_turn(4)
    server.reply(20_000, 20_100, 25_000)
    assert server.reply(20_000, 26_000, 28_000, prompt=5_000, generation=2_000) is None
    assert server.reply(26_000, 28_100, 30_000, prompt=50) is None
