"""Beginning a generation: one worker freezes what is there, while the others wait for it."""

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from lit_attr.data.batch_ids import Ranges, count, show
from lit_attr.errors import StorageError
from lit_attr.files.identity import FileIdentity
from lit_attr.files.json_file import publish_json
from lit_attr.files.lock import locked
from lit_attr.files.publish import keep, make_folder, sync_folder
from lit_attr.files.seal import check_seal
from lit_attr.parts.generations import Generation, newest_generation, read_generation, shard_folder
from lit_attr.parts.ledger import read_ledger
from lit_attr.parts.plan import Plan
from lit_attr.topology.words import GENERATION_LOCK, PARTS_FOLDER

_log = logging.getLogger(__name__)
# Digests are of bytes that are read from a disk or a network, several files at once.
_THREADS = 8


def current_generation(
    folder: Path,
    plan: Plan,
    world_size: int,
    n_batches: int,
    digest: Callable[[int], str] | None = None,
    shard: int = 0,
) -> Generation:
    """The generation in which so many workers go on; a new one where the newest does not fit.

    Safe if several workers call it at once. The lock only saves them from all doing the same work; that a generation's
    file is created exclusively decides between them, also where a file system has no locks. Whoever has begun one goes
    on in it, though others may have begun another since: two commands that disagree would begin one after another for
    ever.

    Args:
        folder: The harvest's folder.
        plan: Its plan.
        world_size: Number of workers.
        n_batches: Batches of the harvest.
        digest: Number of batches to the digest of the data of so many; None where there is no data to be compared.
        shard: Which target shard they work on.

    Raises:
        StorageError: If a part that would be frozen is damaged, or the newest generation has more batches, or others.
    """
    while True:
        newest = newest_generation(folder, plan, shard)
        if newest is not None and _fits(newest, world_size, n_batches, digest):
            return newest
        make_folder(shard_folder(folder, plan, shard) / PARTS_FOLDER)
        if newest is None:
            first = Generation(folder, plan, 1, world_size, n_batches, [], digest and digest(n_batches), shard)
            with suppress(FileExistsError):  # another worker was faster: its generation counts
                _publish(first)
                return first
            continue
        with _others_waiting(newest.place):
            newest = newest_generation(folder, plan, shard)
            if newest is not None and not _fits(newest, world_size, n_batches, digest):
                begun = _begin_after(newest, world_size, n_batches, digest and digest(n_batches))
                if begun is not None:
                    return begun


def settled_generation(newest: Generation, n_batches: int, data_digest: str) -> Generation:
    """Let a harvest end with the batches that are committed: a last generation of these alone, which are all frozen.

    Args:
        newest: The newest generation, whose workers have committed the first `n_batches` batches and do no more.
        n_batches: Their number.
        data_digest: Digest of their data.

    Raises:
        StorageError: If a part is damaged, or another generation was begun meanwhile.
    """
    with _others_waiting(newest.place):
        ended = _begin_after(newest, newest.world_size, n_batches, data_digest)
    if ended is None:
        raise StorageError(f"{newest.place}: the harvest was continued by others while it was ended, as settled")
    return ended


@contextmanager
def _others_waiting(place: Path) -> Iterator[None]:
    """Hold the lock of the worker that freezes, or go on without it where it cannot be had."""
    with ExitStack() as lock:
        try:
            lock.enter_context(
                locked(place / GENERATION_LOCK, f"waiting for another worker to freeze what is committed in {place}")
            )
        except StorageError as error:  # where the system has no locks, that of a killed worker stays
            _log.warning(f"{error}. Going on without the lock, which only saves work")
        yield


def _fits(newest: Generation, world_size: int, n_batches: int, digest: Callable[[int], str] | None) -> bool:
    if newest.n_batches > n_batches:
        raise StorageError(
            f"{newest.place}: the harvest has {newest.n_batches} batches, this command {n_batches}: a harvest can "
            "grow, but not shrink"
        )
    if digest and newest.data_digest not in (None, digest(newest.n_batches)):
        raise StorageError(
            f"{newest.place}: the data of this command is not that of the {newest.n_batches} batches of the harvest: "
            f"expected the digest {newest.data_digest}, found {digest(newest.n_batches)}"
        )
    return (newest.world_size, newest.n_batches) == (world_size, n_batches)


def _publish(generation: Generation) -> None:
    names = ("world_size", "n_batches", "frozen", "data_digest", "is_settled")
    publish_json(generation.path, {name: getattr(generation, name) for name in names}, replace=False)


def _begin_after(newest: Generation, world_size: int, n_batches: int, data_digest: str | None) -> Generation | None:
    """Begin the next generation; None if another worker was faster, without a lock, or has committed more."""
    frozen = _freeze(newest)
    if sum(count(ranges) for _, ranges in frozen) > n_batches:
        _unlink(newest.place, [name for name, _ in frozen[len(newest.frozen) :]])
        return None
    number = newest.number + 1
    begun = replace(
        newest,
        number=number,
        world_size=world_size,
        n_batches=n_batches,
        frozen=frozen,
        data_digest=data_digest,
        is_settled=n_batches < newest.n_batches or (newest.is_settled and n_batches == newest.n_batches),
    )
    try:
        _publish(begun)
    except (FileExistsError, StorageError) as error:  # another's generation counts, and its links; or the disk is full
        # Asked for by name, since network file systems may list a folder as it was before. It may be this worker's own,
        # too: if such a file system has asked for its creation twice, or failed when it was written.
        is_there = isinstance(error, FileExistsError) or FileIdentity.of(begun.path) is not None
        winner = read_generation(newest.folder, newest.plan, number, newest.shard) if is_there else newest
        counting = {name for name, _ in winner.frozen}
        _unlink(newest.place, [name for name, _ in frozen if name not in counting])
        if isinstance(error, FileExistsError):
            return None
        raise
    for path in (newest.part_path, newest.record_path):
        _unlink(newest.place, [path(rank).name for rank in range(newest.world_size)])
    return begun


def _freeze(generation: Generation) -> list[tuple[str, Ranges]]:
    """Give the parts of a generation names that no worker writes to; what they hold counts from now on."""
    linked: list[tuple[int, Path]] = []
    try:
        for rank in range(generation.world_size):
            part = generation.part_path(rank)
            # Unique, since without locks several workers may try to begin the same generation.
            link = part.with_name(f"frozen_generation_{generation.number}_rank_{rank}_{uuid.uuid4().hex[:8]}.pt")
            with suppress(FileNotFoundError):  # that worker has not committed anything
                keep(part, link)
                linked.append((rank, link))
        sync_folder(generation.place / PARTS_FOLDER)
        with ThreadPoolExecutor(_THREADS) as threads:
            batches = list(threads.map(partial(_checked_batches, generation), *zip(*linked, strict=True)))
    except BaseException as error:
        _unlink(generation.place, [link.name for _, link in linked])
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise StorageError(f"cannot link the parts in {generation.place / PARTS_FOLDER}: {error}") from error
        raise
    frozen = [(link.name, ranges) for (_, link), ranges in zip(linked, batches, strict=True)]
    return [*generation.frozen, *frozen]


def _checked_batches(generation: Generation, rank: int, link: Path) -> Ranges:
    """The batches of a part that was just linked.

    Raises:
        StorageError: If it is damaged or foreign.
    """
    try:
        check_seal(link)
        ledger = read_ledger(link)
        generation.check_ledger(link, rank, ledger)
    except StorageError as error:
        problem = str(error).replace(str(link), str(generation.part_path(rank)))
        batches = show(generation.assigned(rank))
        raise StorageError(f"{problem}; without this file its batches are done again: {batches}") from error
    return ledger.batches


def _unlink(place: Path, names: Sequence[str]) -> None:
    for name in names:
        (place / PARTS_FOLDER / name).unlink(missing_ok=True)
