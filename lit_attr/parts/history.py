"""What each generation of a harvest was run with, and what a result says of all of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lit_attr.files.json_file import publish_json, read_json
from lit_attr.parts.generations import Generation
from lit_attr.parts.software import Software, distinct
from lit_attr.storage.provenance import SCHEMA

# What a result keeps of every generation; of the newest it keeps all.
_OF_EACH_GENERATION = ("created", "lit_attr_version", "engine")
# What the header's provenance, of the first generation, says of all: found once, and only read afterwards.
_OF_THE_HARVEST = ("created", "diagnostics", "n_alive", "not_targets", "targets")


def record_generation(generation: Generation, provenance: Mapping[str, Any]) -> None:
    """Write down what a generation is run with, unless one of its workers has committed: the first who did counts.

    A worker that ended before its first commit does not count: nothing of what it computed is in the result. One of a
    harvest that has ended as settled computes nothing.

    Args:
        generation: The generation, just begun.
        provenance: What is known before its first batch, in plain types.

    Raises:
        StorageError: If it cannot be written.
    """
    known = {name: value for name, value in provenance.items() if name == "created" or name not in _OF_THE_HARVEST}
    path = _record_path(generation, generation.number)
    if not generation.is_settled and not generation.ranks_with_parts():
        path.unlink(missing_ok=True)
    with suppress(FileExistsError):
        publish_json(path, known, replace=False)


def record_settled(newest: Generation, n_batches: int, data_digest: str) -> None:
    """Write down that what a generation was run with is that of the next one, with fewer batches.

    Args:
        newest: The newest generation, whose harvest is to end with its first batches.
        n_batches: How many.
        data_digest: Digest of their data.

    Raises:
        StorageError: If it cannot be written.
    """
    path = _record_path(newest, newest.number)
    known = read_json(path) if path.exists() else {}
    shape = [n_batches * newest.plan.entries["batch_size"], newest.plan.entries["seq_len"]]
    known |= {"data_digest": data_digest, "data_shape": shape}
    publish_json(_record_path(newest, newest.number + 1), known, replace=True)


def recorded_provenance(
    newest_of_shards: Sequence[Generation], first: Mapping[str, Any], software: Iterable[Software]
) -> dict[str, Any]:
    """The provenance of a harvest: of its newest generation, with a line for each generation.

    Args:
        newest_of_shards: The newest of each target shard.
        first: The provenance in the harvest's header.
        software: The versions that the parts were written by.

    Raises:
        StorageError: If a file is damaged.
    """
    lines: list[dict[str, Any]] = []
    newest = dict(first)
    for generation in newest_of_shards:
        shard = {"target_shard": generation.shard} if generation.plan.target_shards > 1 else {}
        for number, content in _generations(generation):
            path = _record_path(generation, number)
            record = read_json(path) if path.exists() else {}  # the version before wrote none
            if number > 1 and not record:
                newest.pop("data_shape", None)  # would be that of a generation before, which may have had fewer batches
            newest |= {name: value for name, value in record.items() if name not in _OF_THE_HARVEST}
            known = record or (first if number == 1 else {})
            entries = {name: known.get(name) for name in _OF_EACH_GENERATION}
            lines.append({"generation": number, **shard, **content, **entries})
    return {"schema": SCHEMA, **newest, "software": distinct(software), "generations": lines}


def _generations(generation: Generation) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of each generation, with how many batches and workers it had."""
    for number in range(1, generation.number + 1):
        path = generation.path_of(number)
        content = read_json(path) if path.exists() else {}
        settled = {"is_settled": True} if content.get("is_settled") else {}
        yield number, {**{name: content.get(name) for name in ("n_batches", "world_size")}, **settled}


def _record_path(generation: Generation, number: int) -> Path:
    return generation.place / f"generation_{number}_provenance.json"
