"""The controller's loop: which runs it looks at and when, and that no run's trouble is another's."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from bridge.core.runs import Attempt, Kind, Phase, with_attempt, with_report_put_off
from bridge.errors import Misconfigured, Unavailable
from bridge.flows.acting import act
from bridge.flows.controlling import SWEEP_SECONDS, TROUBLE_SECONDS, Controlling
from bridge.flows.counting import Counting
from bridge.flows.fencing import NotLeading
from tests.fakes import FakeClock, some_run

PATIENCE_SECONDS = 60


class Looks:
    """In place of Reconciling: notes who is looked at, and does what a test says about it."""

    retention_seconds = None

    def __init__(self):
        self.clock = FakeClock()
        self.counting = Counting()
        self.at = []
        self.forgotten = []
        self.does = {}
        self._lock = threading.Lock()

    def reconcile(self, run):
        with self._lock:
            self.at.append(run)
        return self.does.get(run, lambda: None)()

    def forget_old(self, run):
        self.forgotten.append(run)


class Index:
    """Which runs there are, by hand."""

    def __init__(self, *runs):
        self.runs = list(runs)
        self.olds = []
        self.trouble = None

    def open(self):
        if self.trouble is not None:
            raise self.trouble
        return list(self.runs)

    def old(self, *, now, retention_seconds):
        if self.trouble is not None:
            raise self.trouble
        return list(self.olds)


class Loop:
    """A loop that goes round when a test says so."""

    def __init__(self, *runs, **settings):
        self.looks = Looks()
        self.index = Index(*runs)
        known = {"poll_seconds": 60.0, "resync_seconds": 20.0, "index": self.index}
        self.controlling = Controlling(self.looks, **{**known, **settings})
        self.pool = ThreadPoolExecutor(4)

    def look(self, *, seconds=0.0):
        """One round, after so long; who was looked at in it."""
        self.looks.clock.advance(seconds)
        before = len(self.looks.at)
        self.controlling.look(self.pool)
        until(lambda: all(one.done() for one in self.controlling._in_flight.values()))
        return sorted(self.looks.at[before:])


def until(holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s"
        time.sleep(0.005)


def raising(error):
    def act():
        raise error

    return act


def running(controlling):
    """The loop in a thread of its own, and what ends it."""
    stop = threading.Event()
    thread = threading.Thread(target=controlling.run_forever, args=(stop,), daemon=True)
    thread.start()

    def end():
        stop.set()
        # The end is noticed at the next poll, or when something happens.
        controlling.wake("")
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()

    return end


def test_every_open_run_is_looked_at_and_then_only_who_is_woken_or_due():
    loop = Loop("a", "b")
    assert loop.look() == ["a", "b"]
    assert loop.look(seconds=1) == []
    loop.controlling.wake("b")
    assert loop.look(seconds=1) == ["b"]
    assert loop.look(seconds=18.5) == ["a"]
    assert loop.look(seconds=1.5) == ["b"]


def test_without_a_resync_every_round_looks_at_all():
    loop = Loop("a", "b", resync_seconds=0.0)
    assert [loop.look(), loop.look()] == [["a", "b"]] * 2


def test_a_run_that_is_not_open_is_not_looked_at_though_it_is_woken():
    loop = Loop("a")
    loop.controlling.wake("closed")
    assert loop.look() == ["a"]


def test_a_run_that_is_opened_again_is_new():
    loop = Loop("a")
    loop.look()
    loop.index.runs = []
    assert loop.look() == []
    loop.index.runs = ["a"]
    assert loop.look() == ["a"]


def test_what_wakes_a_run_during_its_look_makes_another_look():
    loop = Loop("a")
    going, go_on = threading.Event(), threading.Event()

    def hold():
        going.set()
        assert go_on.wait(PATIENCE_SECONDS)

    loop.looks.does["a"] = hold
    loop.controlling.look(loop.pool)
    assert going.wait(PATIENCE_SECONDS)
    loop.controlling.wake("a")
    loop.controlling.look(loop.pool)
    go_on.set()
    until(lambda: all(one.done() for one in loop.controlling._in_flight.values()))
    assert loop.look() == ["a"]
    assert loop.looks.at == ["a", "a"]


def test_a_run_whose_status_waits_is_looked_at_as_soon_as_it_may_be_posted():
    loop = Loop("a", "b")
    begun = with_attempt(some_run("a"), Attempt(1, Kind.FIRST, 1, 0.0))
    waits = with_report_put_off(begun, error="429", until=loop.looks.clock.now() + 7)
    loop.looks.does["a"] = lambda: waits
    assert loop.look() == ["a", "b"]
    assert loop.look(seconds=6) == []
    assert loop.look(seconds=1) == ["a"]
    # It was time, and it was not posted: a newer run speaks. Time alone changes nothing any more.
    assert loop.look(seconds=1) == []
    assert loop.look(seconds=12) == ["b"]


def test_a_run_in_trouble_rests_for_longer_each_time_and_hinders_no_other(caplog):
    loop = Loop("a", "b", resync_seconds=1000.0)
    loop.looks.does["a"] = raising(Misconfigured("it cannot be read"))
    assert loop.look() == ["a", "b"]
    assert "run a: it cannot be read (looking again in 5 s)" in caplog.text
    loop.controlling.wake("a")
    assert loop.look(seconds=1) == []
    assert loop.look(seconds=TROUBLE_SECONDS) == ["a"]
    assert loop.look(seconds=TROUBLE_SECONDS) == []
    assert loop.look(seconds=TROUBLE_SECONDS) == ["a"]
    loop.looks.does.clear()
    assert loop.look(seconds=60) == ["a"]
    loop.looks.does["a"] = raising(Misconfigured("it cannot be read"))
    loop.controlling.wake("a")
    assert loop.look() == ["a"]
    assert loop.look(seconds=TROUBLE_SECONDS) == ["a"], "after a look that went well it begins anew"


def test_a_defect_that_one_run_meets_is_told_and_stops_nothing(caplog):
    loop = Loop("a", "b")
    loop.looks.does["a"] = raising(ZeroDivisionError("a defect"))
    assert loop.look() == ["a", "b"]
    assert "run a could not be looked at" in caplog.text
    assert loop.look(seconds=TROUBLE_SECONDS) == ["a"]


def test_who_does_not_lead_any_more_leaves_a_run_without_a_word(caplog):
    loop = Loop("a")
    loop.looks.does["a"] = raising(NotLeading("left to the other"))
    loop.look()
    loop.controlling.wake("a")
    assert loop.look() == ["a"], "it does not rest"
    assert caplog.text == ""


def test_a_world_that_does_not_answer_costs_few_lines_however_many_runs_there_are(caplog):
    caplog.set_level(logging.INFO)
    runs = [f"r{number}" for number in range(100)]
    loop = Loop(*runs)
    loop.looks.does = dict.fromkeys(runs, raising(Unavailable("nobody answers")))
    for _ in range(5):
        loop.look(seconds=TROUBLE_SECONDS)
    assert len(caplog.records) == 1
    assert "nobody answers" in caplog.text
    loop.look(seconds=60)
    assert len(caplog.records) == 2
    assert "more of the kind since the last line" in caplog.text


def test_an_index_that_does_not_answer_is_asked_again():
    loop = Loop("a")
    loop.index.trouble = Unavailable("the database is locked")
    assert loop.look() == []
    loop.index.trouble = None
    assert loop.look() == ["a"]


def test_old_runs_are_forgotten_now_and_then():
    loop = Loop()
    loop.index.olds = ["old"]
    loop.look()
    loop.look(seconds=SWEEP_SECONDS - 1)
    assert loop.looks.forgotten == ["old"]
    loop.look(seconds=1)
    assert loop.looks.forgotten == ["old", "old"]


def test_what_is_known_of_a_run_in_trouble_goes_with_the_run():
    loop = Loop("a")
    loop.looks.does["a"] = raising(Misconfigured("it cannot be read"))
    loop.look()
    loop.index.runs = []
    loop.look()
    loop.index.runs = ["a"]
    assert loop.look() == ["a"]


def test_who_does_not_lead_looks_at_nothing_and_at_everything_once_it_leads():
    leads = threading.Event()
    asked = []
    loop = Loop("a", poll_seconds=0.01, leads=lambda: asked.append(1) or leads.is_set())
    end = running(loop.controlling)
    loop.controlling.wake("a")
    until(lambda: len(asked) > 3)
    assert loop.looks.at == []
    leads.set()
    until(lambda: loop.looks.at == ["a"])
    end()


def test_who_waits_to_lead_does_not_spin_on_what_wakes_it():
    rounds = []
    loop = Loop("a", leads=lambda: rounds.append(1) is not None)
    end = running(loop.controlling)
    until(lambda: rounds)
    loop.controlling.wake("a")
    until(lambda: len(rounds) == 2)
    time.sleep(0.3)
    assert len(rounds) == 2
    end()


def test_a_woken_run_is_looked_at_long_before_the_next_poll():
    loop = Loop("a", poll_seconds=PATIENCE_SECONDS * 2)
    end = running(loop.controlling)
    until(lambda: loop.looks.at == ["a"])
    loop.controlling.wake("a")
    until(lambda: loop.looks.at == ["a", "a"])
    end()
    assert loop.controlling.looks == len(loop.looks.at)


def test_what_is_under_way_is_finished_at_the_end():
    loop = Loop("a", poll_seconds=0.01)
    going, ended = threading.Event(), []

    def slow():
        going.set()
        time.sleep(0.2)
        ended.append("a")

    loop.looks.does["a"] = slow
    end = running(loop.controlling)
    assert going.wait(PATIENCE_SECONDS)
    end()
    assert ended == ["a"]


def test_one_machine_lists_its_open_runs_and_its_old_ones():
    from bridge.flows.controlling import ListedIndex
    from tests.fakes import FakeRuns

    runs = FakeRuns()
    for number, phase in enumerate([Phase.RUNNING, Phase.CLOSED, Phase.ACCEPTED]):
        closed = 100.0 if phase is Phase.CLOSED else None
        runs.add(some_run(f"r{number}", phase=phase, closed=closed, accepted=float(number)))
    index = ListedIndex(runs)
    assert index.open() == ["r0", "r2"]
    assert index.old(now=200.0, retention_seconds=99.0) == ["r1"]
    assert index.old(now=200.0, retention_seconds=101.0) == []
    assert index.old(now=200.0, retention_seconds=None) == []
    act(runs, "r0", Kind.CANCEL, request="q", who="", source="", now=1.0)
    assert index.open() == ["r0", "r2"]
