"""The engine: same state however cases are spread, failures as records, dead workers survived, bugs not swallowed."""

import os
import pickle
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from segcal_cli.core.errors import CaseErrors, FormatError
from segcal_cli.core.observer import Silent
from segcal_cli.execution.engine import Plan, failure_records, results, run_estimator
from segcal_cli.execution.memory import keep_freed_memory
from segcal_cli.execution.processes import _submitted
from segcal_cli.execution.work import Result, SystemRefused, UnforeseenError, Work, WorkerDied


@dataclass(frozen=True)
class Number:
    id: str
    value: int
    folder: str = ""


class Broken(FormatError):
    template = "{0}: broken"


def load(item):
    if item.value < 0:
        raise Broken(f"/somewhere/{item.id}.nii.gz")
    return item


def square(item):
    return item.value**2


def break_on_something(item):
    """Fails because of an error that does not survive pickling."""
    try:
        raise ValueError(lambda: item)
    except ValueError as error:
        raise Broken(item.id) from error


def type_error(item):
    return item.value + "x"


def missing_file(item):
    return Path("/no/such/file").read_bytes()


def die_once(item):
    """The first visit to the case kills the worker; the second finds the mark that the first left."""
    mark = Path(item.folder) / item.id
    if item.value == 3 and not mark.exists():
        mark.touch()
        os._exit(1)
    return item.value


def die_always(item):
    if item.value == 3:
        os._exit(1)
    return item.value


@dataclass(frozen=True)
class SumThenCentre:
    """Two passes: the sum, then the sum of squared distances to it. Integers, so exact."""

    centre: int | None = None

    def empty(self):
        return (0, 0)

    def update(self, state, case):
        term = case.value if self.centre is None else (case.value - self.centre) ** 2
        return state[0] + term, state[1] + 1

    def merge(self, a, b):
        return a[0] + b[0], a[1] + b[1]

    def finish(self, state):
        return SumThenCentre(state[0]) if self.centre is None else {"centre": self.centre, "spread": state[0]}


NUMBERS = [Number(f"case_{value}", value) for value in range(6)]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("items", [NUMBERS, NUMBERS[::-1]], ids=["sorted", "reversed"])
def test_an_estimator_of_two_passes_comes_to_the_same_result_in_any_order_and_any_process(jobs, items):
    result, failures = run_estimator(SumThenCentre(), load, items, Plan(jobs), Silent(), "sum")
    assert result == {"centre": 15, "spread": sum((v - 15) ** 2 for v in range(6))}
    assert failures == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_stop_lists_the_failure_and_returns_nothing(jobs):
    with pytest.raises(CaseErrors) as caught:
        run_estimator(SumThenCentre(), load, [*NUMBERS, Number("bad", -1)], Plan(jobs), Silent(), "sum")
    assert "bad.nii.gz: broken" in str(caught.value)


@pytest.mark.parametrize("jobs", [1, 2])
def test_continue_leaves_the_failed_case_out_of_every_pass(jobs):
    items = [Number("bad", -1), *NUMBERS]
    result, failures = run_estimator(SumThenCentre(), load, items, Plan(jobs, "continue"), Silent(), "sum")
    assert result["centre"] == 15
    assert failure_records(failures) == [
        {"case": "bad", "file": "bad.nii.gz", "error": "Broken", "message": "/somewhere/bad.nii.gz: broken"}
    ]


class Stepwise:
    """A load in two steps, which may take their time. Notes how many cases are in memory, and who took which step."""

    def __init__(self, decoding=0.0, completing=0.0):
        self.seconds = (decoding, completing)
        self.held, self.most, self.decoded, self.completed = 0, 0, [], []
        self.lock = threading.Lock()

    def decode(self, item):
        with self.lock:
            self.held += 1
            self.most = max(self.most, self.held)
            self.decoded.append(threading.current_thread() is threading.main_thread())
        time.sleep(self.seconds[0])
        return load(item)

    def complete(self, item):
        with self.lock:
            self.completed.append(threading.current_thread() is threading.main_thread())
        time.sleep(self.seconds[1])
        if item.value == 99:
            raise Broken(item.id)
        return item

    def __call__(self, item):
        return self.complete(self.decode(item))

    def compute(self, seconds):
        def computed(item):
            time.sleep(seconds)
            with self.lock:
                self.held -= 1
            return square(item)

        return computed


@pytest.mark.parametrize("decoding", [0.0, 0.02])
@pytest.mark.parametrize("completing", [0.0, 0.02])
@pytest.mark.parametrize("computing", [0.0, 0.02])
def test_every_case_comes_once_and_in_order_whoever_does_which_step(decoding, completing, computing):
    steps = Stepwise(decoding, completing)
    done = list(results(Work(steps, steps.compute(computing)), NUMBERS))
    assert [(result.id, result.value) for result in done] == [(n.id, n.value**2) for n in NUMBERS]


def test_a_failure_in_either_step_of_loading_is_a_failed_case():
    steps = Stepwise()
    items = [NUMBERS[0], Number("decode", -1), NUMBERS[1], Number("complete", 99), NUMBERS[2]]
    done = {result.id: result for result in results(Work(steps, square), items)}
    assert {name: type(result.error) for name, result in done.items() if result.error} == {
        "decode": Broken,
        "complete": Broken,
    }
    assert len(done) == 5


def test_two_cases_are_in_memory_while_computing_takes_its_time():
    steps = Stepwise()
    list(results(Work(steps, steps.compute(0.1)), NUMBERS))
    assert steps.most == 2
    assert sum(steps.decoded) <= 1, "the thread that computes decodes at the start alone"


def test_both_threads_decode_where_decoding_takes_longest():
    steps = Stepwise(decoding=0.03)
    list(results(Work(steps, steps.compute(0.0)), NUMBERS))
    assert 1 < sum(steps.decoded) < len(NUMBERS)
    assert steps.most <= 3


def test_the_thread_that_waits_for_a_decoding_does_what_is_left_of_the_loading():
    waited_for = Stepwise(decoding=0.1)
    list(results(Work(waited_for, waited_for.compute(0.07)), NUMBERS))
    assert any(waited_for.completed[2:])
    ahead = Stepwise(decoding=0.02)
    list(results(Work(ahead, ahead.compute(0.1)), NUMBERS))
    assert not all(ahead.completed[2:])


def test_memory_that_was_freed_is_kept_and_workers_keep_it_too():
    """Not what it saves: that the allocator took the order, and that it changes nothing where there is none."""
    keep_freed_memory()
    with mock.patch("ctypes.CDLL", side_effect=OSError):
        keep_freed_memory()
    with mock.patch("ctypes.CDLL", return_value=object()):
        keep_freed_memory()
    library = mock.Mock()
    with mock.patch("ctypes.CDLL", return_value=library), mock.patch("sys.platform", "linux"):
        keep_freed_memory()
    assert library.mallopt.call_count == 2


def test_an_error_travels_without_what_caused_it():
    (result,) = results(Work(load, break_on_something), NUMBERS[:1])
    assert result.error.__cause__ is result.error.__context__ is result.error.__traceback__ is None
    assert str(result.error) == f"{NUMBERS[0].id}: broken"


def test_continue_with_no_good_case_raises():
    with pytest.raises(CaseErrors):
        run_estimator(SumThenCentre(), load, [Number("bad", -1)], Plan(1, "continue"), Silent(), "sum")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bug_is_not_a_failed_case(jobs):
    with pytest.raises(UnforeseenError) as caught:
        list(results(Work(load, type_error), NUMBERS, jobs))
    assert str(caught.value).startswith("TypeError in case_")


def test_an_operating_system_error_names_the_file_and_the_reason():
    (result,) = results(Work(load, missing_file), NUMBERS[:1])
    assert isinstance(result.error, SystemRefused)
    assert str(result.error) == "/no/such/file: no such file or directory"


def test_a_worker_that_dies_once_costs_nothing(tmp_path):
    items = [Number(n.id, n.value, str(tmp_path)) for n in NUMBERS]
    done = {result.id: result.value for result in results(Work(load, die_once), items, 2)}
    assert done == {n.id: n.value for n in NUMBERS}


def test_a_case_that_kills_its_worker_twice_fails_alone():
    outcome = {result.id: result for result in results(Work(load, die_always), NUMBERS, 2)}
    assert isinstance(outcome["case_3"].error, WorkerDied)
    assert str(outcome["case_3"].error) == "case_3: worker died twice (out of memory?)"
    good = {result.id: result.value for result in outcome.values() if result.error is None}
    assert good == {n.id: n.value for n in NUMBERS if n.value != 3}


def test_results_stops_reading_when_closed():
    seen = []

    def counting(item):
        seen.append(item.id)
        return item

    stream = results(Work(counting, square), NUMBERS)
    next(stream)
    stream.close()
    assert len(seen) <= 3


def test_errors_survive_the_way_between_processes():
    error = pickle.loads(pickle.dumps(Broken("a.nii.gz")))
    assert (type(error), str(error)) == (Broken, "a.nii.gz: broken")
    assert pickle.loads(pickle.dumps(Result("a", error=error))).id == "a"


def held_back(_):
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return signal.SIGINT in held, signal.SIGTERM in held


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be held back here")
def test_workers_never_get_the_interrupt_of_a_terminal_and_can_be_terminated():
    assert {result.value for result in results(Work(load, held_back), NUMBERS, 2)} == {(True, False)}


def test_an_interrupt_while_a_worker_is_started_waits_until_it_is():
    class Pool:
        started = False

        def submit(self, *_):
            os.kill(os.getpid(), signal.SIGINT)
            self.started = True

    pool = Pool()
    with pytest.raises(KeyboardInterrupt):
        _submitted(pool, Work(load, square), NUMBERS[0])
    assert pool.started
