"""Processes that meet on one harvest: small scenarios for the tests, larger ones for `benchmarks/protocol.py`."""

from collections.abc import Mapping

from tests.protocol.explore import Scenario
from tests.protocol.files import Behaviour
from tests.protocol.programs import deleter, grid, merger, trainer, worker
from tests.protocol.replay import Program

PLAIN = Behaviour()
COPIES = Behaviour(links=False)
NO_LOCKS = Behaviour(locks=False)
CLAIMS = Behaviour(claims=True)
REPEATS = Behaviour(repeats=2)
FULL = Behaviour(fails=1)
NETWORK = Behaviour(repeats=1, stale=1)


MERGER: Mapping[str, Program] = {"m": merger(allow_partial=False)}


def _workers(name: str, world_size: int, n_batches: int) -> dict[str, Program]:
    return {f"{name}{rank}": worker(rank, world_size, n_batches) for rank in range(world_size)}


def _restart(behaviour: Behaviour = PLAIN) -> Scenario:
    """One worker is followed by the first of two."""
    return Scenario({"a0": worker(0, 1, 2), "b0": worker(0, 2, 2)}, 2, behaviour)


SMALL: Mapping[str, Scenario] = {
    "two workers": Scenario(_workers("a", 2, 4), 4),
    "as many again": Scenario(
        {"a0": worker(0, 1, 2, pauses=True), "b0": worker(0, 1, 2, pauses=True)}, 2, doubles=True
    ),
    "more": _restart(),
    "more, without links": _restart(COPIES),
    "more, without locks": _restart(NO_LOCKS),
    "more, with locks that outlive their holder": _restart(CLAIMS),
    "more, with repeated requests": _restart(REPEATS),
    "more, on a full disk": _restart(FULL),
    "more, with stale lists": _restart(NETWORK),
    "more, both at once": Scenario({"a0": worker(0, 1, 1), **_workers("b", 2, 1)}, 1),
    "one, two and three at once": Scenario({"a0": worker(0, 1, 1), "b0": worker(0, 2, 1), "c0": worker(0, 3, 1)}, 1),
    "more batches": Scenario({"a0": worker(0, 1, 1), "b0": worker(0, 1, 3)}, 3),
    "merging meanwhile": Scenario({"a0": worker(0, 1, 2), "b0": worker(0, 2, 2), "m": merger(allow_partial=False)}, 2),
    "merging some meanwhile": Scenario(
        {"a0": worker(0, 1, 2), "b0": worker(0, 2, 2), "m": merger(allow_partial=True)}, 2
    ),
    "trainers": Scenario({"t1": trainer(1, 2), "t2": trainer(2, 2)}, 2),
    "a deleted part": Scenario({"a0": worker(0, 1, 2), "b0": worker(0, 2, 2), "user": deleter(0)}, 2, deletes=True),
    "a deleted part of two workers": Scenario(
        {"a0": worker(0, 1, 2), "b0": worker(0, 1, 2), "user": deleter(0)}, 2, deletes=True, doubles=True
    ),
    "two shards": Scenario({"a0": worker(0, 1, 1), "b0": worker(0, 1, 1, shard=1), **MERGER}, 1, n_shards=2),
    "two shards, more of one": Scenario(
        {"a0": worker(0, 1, 2), "a1": worker(0, 2, 2), "b0": worker(0, 1, 2, shard=1)}, 2, n_shards=2
    ),
    "two shards, more batches": Scenario(
        {"a0": worker(0, 1, 1), "b0": worker(0, 1, 2, shard=1), "m": merger(allow_partial=True)}, 2, n_shards=2
    ),
    "a grid, and more of one shard": Scenario({"t": grid(1, 2, 1), "b0": worker(0, 2, 1, shard=1)}, 1, n_shards=2),
}

# Some minutes each.
LARGE: Mapping[str, Scenario] = {
    "more, both at once, with two batches": Scenario({"a0": worker(0, 1, 2), **_workers("b", 2, 2)}, 2),
    "two workers, then one": Scenario({**_workers("a", 2, 3), "b0": worker(0, 1, 3)}, 3),
    "two workers, then one, without links": Scenario({**_workers("a", 2, 3), "b0": worker(0, 1, 3)}, 3, COPIES),
    "two workers, then one, without locks": Scenario({**_workers("a", 2, 3), "b0": worker(0, 1, 3)}, 3, NO_LOCKS),
    "one, two, and one with more batches": Scenario(
        {"a0": worker(0, 1, 2), "b0": worker(0, 2, 2), "c0": worker(0, 1, 3)}, 3
    ),
    "one, two, and one with more batches, without locks": Scenario(
        {"a0": worker(0, 1, 2), "b0": worker(0, 2, 2), "c0": worker(0, 1, 3)}, 3, NO_LOCKS
    ),
    "one, two and three at once, with locks that outlive their holder": Scenario(
        {"a0": worker(0, 1, 1), "b0": worker(0, 2, 1), "c0": worker(0, 3, 1)}, 1, CLAIMS
    ),
    "one, two and three, with a repeated request": Scenario(
        {"a0": worker(0, 1, 1), "b0": worker(0, 2, 1), "c0": worker(0, 3, 1)}, 1, Behaviour(repeats=1)
    ),
    "two restarts by one, both of rank 0, and one by two": Scenario(
        {"a0": worker(0, 1, 2), "b0": worker(0, 1, 2), "c0": worker(0, 2, 2)}, 2, doubles=True
    ),
    "both, with a deleted part": Scenario(
        {"a0": worker(0, 1, 2), "b0": worker(0, 1, 2), "c0": worker(0, 2, 2), "user": deleter(0)},
        2,
        deletes=True,
        doubles=True,
    ),
    "merging while two follow one": Scenario(
        {"a0": worker(0, 1, 1), **_workers("b", 2, 1), "m": merger(allow_partial=False)}, 1
    ),
    "merging some while one follows two": Scenario(
        {**_workers("a", 2, 2), "b0": worker(0, 1, 2), "m": merger(allow_partial=True)}, 2
    ),
    "trainers of one, two and three": Scenario({"t1": trainer(1, 3), "t2": trainer(2, 3), "t3": trainer(3, 3)}, 3),
    "more, both at once, with stale lists": Scenario({"a0": worker(0, 1, 1), **_workers("b", 2, 1)}, 1, NETWORK),
    "grids": Scenario({"t1": grid(1, 2, 1), "t2": grid(2, 2, 1)}, 1, n_shards=2),
    "grids, with two batches": Scenario({"t1": grid(1, 2, 2), "t2": grid(2, 2, 2)}, 2, n_shards=2),
    "two shards, each with more": Scenario(
        {f"{name}{shard}": worker(0, n, 1, shard=shard) for name, n in (("a", 1), ("b", 2)) for shard in range(2)},
        1,
        n_shards=2,
    ),
    "merging while one shard follows another": Scenario(
        {"a0": worker(0, 1, 2), "b0": worker(0, 1, 2, shard=1), "b1": worker(0, 2, 2, shard=1), **MERGER}, 2, n_shards=2
    ),
    "four at once": Scenario(
        {"a0": worker(0, 1, 1), "b0": worker(0, 2, 1), "c0": worker(0, 3, 1), "d0": worker(0, 1, 2)}, 2
    ),
}
