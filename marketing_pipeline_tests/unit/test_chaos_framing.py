"""Messages of three protocols are found whole, and named by what they say."""

import pytest

from marketing_pipeline_tests.chaos import framing
from marketing_pipeline_tests.chaos.naming import Talk, is_poll


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + (4 + len(body)).to_bytes(4) + body


STARTUP = (8 + 4).to_bytes(4) + b"\0\3\0\0user"
QUERY = _message(b"P", b"\0-- claim: leases effects.\n") + _message(b"B") + _message(b"S")
ANSWER = _message(b"1") + _message(b"C", b"SELECT 1\0") + _message(b"Z", b"T")
REQUEST = b"POST /mailgun/v3/a.b/messages HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"


def test_a_clients_first_message_has_no_type_and_the_next_ends_at_its_sync() -> None:
    frame = framing.postgres_request()
    assert frame(bytearray(STARTUP + QUERY)) == len(STARTUP)
    assert frame(bytearray(QUERY + QUERY)) == len(QUERY)


def test_a_servers_answer_ends_where_it_is_ready_again() -> None:
    assert framing.postgres_answer()(bytearray(ANSWER + ANSWER)) == len(ANSWER)


def test_a_request_ends_with_its_body() -> None:
    assert framing.http_message()(bytearray(REQUEST * 2)) == len(REQUEST)


@pytest.mark.parametrize(
    ("framer", "whole"),
    [
        (framing.postgres_request, STARTUP),
        (framing.postgres_answer, ANSWER),
        (framing.http_message, REQUEST),
    ],
)
def test_what_has_not_all_arrived_is_no_message(framer: framing.Made, whole: bytes) -> None:
    for length in range(len(whole)):
        assert framer()(bytearray(whole[:length])) == 0


def test_a_commit_is_named_by_what_it_commits_and_an_answer_by_its_question() -> None:
    talk = Talk("postgres")
    assert talk.request(STARTUP) == "postgres > startup"
    assert talk.request(QUERY) == "postgres > claim"
    assert talk.answer(ANSWER) == "postgres < claim"
    assert talk.request(_message(b"Q", b"COMMIT\0")) == "postgres > COMMIT after claim"


def test_calls_and_commands_are_named_too() -> None:
    assert Talk("provider").request(REQUEST) == "provider > POST mailgun messages"
    script = b"*5\r\n$7\r\nEVALSHA\r\n$3\r\nabc\r\n$1\r\n1\r\n$5\r\ngrant\r\n$1\r\n1\r\n"
    assert Talk("valkey").request(script) == "valkey > EVALSHA grant"


def test_only_idle_questions_count_as_polls() -> None:
    assert is_poll("postgres < How many effects of a provider could be claimed now")
    assert not is_poll("postgres < COMMIT after Leases effects and writes their attempts")
