import io
import json
import logging
import sys

import pytest
import structlog

from bridge.web.logs import JsonFormatter, configure_logging, redacted
from tests.web.worlds import a_world


@pytest.fixture
def stream():
    """What is logged while a test runs."""
    found = io.StringIO()
    configure_logging("info", found)
    yield found
    structlog.reset_defaults()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_is_one_object_with_time_level_and_route(stream):
    a_world().deliver()
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["route"]) == ("accepted", "info", "hooks.from_github")
    assert line["time"].endswith("Z")
    assert line["delivery"] == "d-1"


def test_line_breaks_and_terminal_sequences_stay_inside_their_text(stream):
    hostile = 'x\r\n{"event": "forged"}\x1b[2J\x9b31m\u2028\ud800'
    structlog.get_logger().info("told", reason=hostile)
    (line,) = lines(stream)
    assert line["reason"] == hostile
    assert stream.getvalue().isascii()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("field", ["project", "delivery", "title"])
def test_long_texts_are_cut(stream, field):
    structlog.get_logger().info("told", **{field: "x" * 100_000})
    assert len(stream.getvalue()) < 2_000


def test_below_its_level_nothing_is_written(stream):
    configure_logging("warning", stream)
    structlog.get_logger().info("told")
    assert stream.getvalue() == ""


def test_what_one_request_binds_is_gone_with_the_next(stream):
    world = a_world()
    world.deliver()
    world.client.get("/nowhere")
    assert [line["route"] for line in lines(stream)] == ["hooks.from_github", "unknown"]


@pytest.mark.parametrize(
    "text",
    [
        "/simpleevents/v1/brigade-1/hunter2",
        "/cloudevents/v02/brigade-1/hunter2/more",
        "Invalid HTTP request line: 'POST /SimpleEvents/v1/brigade-1/hunter2 HTTP/9'",
        "http://localhost:8080//simpleevents/v1/brigade-1/hunter2?x=1",
        "/simpleevents/v1/brigade-1/%68unter2hunter2",
    ],
)
def test_the_secret_in_a_path_is_redacted_wherever_it_turns_up(text):
    assert "hunter2" not in redacted(text)
    assert "brigade-1" in redacted(text)


def test_gunicorns_own_log_gets_the_same_lines():
    try:
        raise ValueError("quotes a payload")
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord(
        "gunicorn.error",
        logging.ERROR,
        __file__,
        1,
        "Error handling request %s",
        ("/simpleevents/v1/b/hunter2?q=1\r\nx",),
        info,
    )
    text = JsonFormatter().format(record)
    line = json.loads(text)
    assert "\n" not in text
    assert "hunter2" not in text
    assert "quotes" not in text
    assert (line["level"], line["logger"], line["error"]) == ("error", "gunicorn.error", "ValueError")


class _FullDisk(io.StringIO):
    def flush(self):
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_fails_no_delivery():
    configure_logging("info", _FullDisk())
    try:
        assert a_world().deliver().status_code == 202
    finally:
        structlog.reset_defaults()
