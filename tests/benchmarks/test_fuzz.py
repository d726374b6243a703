import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzzing import worker
from benchmarks.fuzzing.kinds import KINDS
from benchmarks.fuzzing.worker import Reading, outcome_of
from lit_attr.errors import StorageError


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    reading = Reading(tmp_path_factory.mktemp("fuzz"))
    yield reading
    reading.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_damaged_files_are_read_or_refused(kind, reading, tmp_path):
    """In bounded memory and time, with an exception of the package's own that names the file."""
    kind.make(tmp_path)
    good = kind.place(tmp_path).read_bytes()
    assert [outcome.verdict for outcome in reading.read(kind.name, good)] == ["read"] * len(kind.readers)

    @settings(
        **{"max_examples": 20 + 5 * kind.weight, "derandomize": True, "database": None, "deadline": None},
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def check(random):
        outcomes = reading.read(kind.name, kind.damage(random, good))
        assert not [outcome for outcome in outcomes if outcome.verdict == "failed"]

    check()


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("reader", "verdict", "message"),
    [
        (lambda folder: None, "read", ""),
        (lambda folder: fail(StorageError(f"{folder}/x.json is damaged")), "refused", "x.json is damaged"),
        (lambda folder: fail(StorageError("it is damaged")), "failed", "does not name the file"),
        (lambda folder: fail(StorageError("x.json" * 1000)), "failed", "message of 6000 characters"),
        (lambda folder: fail(KeyError("n_batches")), "failed", "KeyError: 'n_batches'"),
        (lambda folder: [0] * 10**7, "failed", "MB of memory"),
        (lambda folder: [0 for _ in iter(int, 1)], "failed", "took more than 0.1 s"),
    ],
)
def test_what_counts_as_a_failure(reader, verdict, message, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "MEMORY", 50)
    monkeypatch.setattr(worker, "SECONDS", 0.1)
    outcome = outcome_of(reader, tmp_path, tmp_path / "x.json")
    assert outcome.verdict == verdict
    assert message in outcome.message
