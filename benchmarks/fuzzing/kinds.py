"""The kinds of files that commands read: a good one of each, how it is damaged, and who reads it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.fuzzing import readers
from benchmarks.fuzzing.archives import damaged_archive
from benchmarks.fuzzing.mutations import broken_bytes, damaged_json
from benchmarks.fuzzing.texts import (
    damaged_database,
    damaged_index,
    damaged_part,
    damaged_tokens,
    damaged_weights,
    damaged_yaml,
    truncated_numbers,
    write_database,
)
from lit_attr.assets import ASSETS
from lit_attr.parts.merge import merge_harvest
from lit_attr.parts.worker_record import WorkerRecord
from lit_attr.query.index_build import build_index
from lit_attr.query.tokenizer_formats import MERGES, VOCABULARY
from lit_attr.topology.words import READ_VECTORS_FILE
from tests.parts.harvests import begin, commit, complete_harvest

_BEFORE = Path(__file__).parents[2] / "tests" / "before"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: What it is called in tables.
        file: The damaged file in its folder, as a pattern.
        make: Fills an empty folder with good files.
        damage: Makes a damaged file of a good one.
        readers: What reads it; each gets the folder.
        weight: How often it is tried, compared with others.
    """

    name: str
    file: str
    make: Callable[[Path], object]
    damage: Callable[[Random, bytes], bytes]
    readers: tuple[Callable[[Path], None], ...]
    weight: int = 2

    def place(self, folder: Path) -> Path:
        """The file in a folder."""
        (path,) = folder.glob(self.file)
        return path


def _finished(folder: Path) -> None:
    shutil.copytree(_BEFORE / "finished", folder, dirs_exist_ok=True)
    shutil.copyfile(folder / readers.RESULT, folder / readers.OTHER_RESULT)
    (folder / "dataset_attributions.index").unlink()


def _indexed(folder: Path) -> None:
    _finished(folder)
    build_index(folder / readers.RESULT)


def _stopped(folder: Path) -> None:
    first = begin(folder, 2)
    commit(first, 0)
    second = begin(folder, 1)
    commit(second, 0, second.assigned(0)[:1].tolist())
    provenance = {"version": "0.1.0", "engine": "exact", "configuration": {"model": {"run": "x"}}, "n_workers": 1}
    (folder / "generation_2_provenance.json").write_text(json.dumps(provenance))
    WorkerRecord.of_this_process().write(folder / _RECORD)


def _merged(folder: Path) -> None:
    complete_harvest(folder, 1)
    merge_harvest(folder)


def _language_model(folder: Path) -> None:
    import transformers  # takes seconds

    from tests.huggingface_toys import huggingface_config

    transformers.LlamaForCausalLM(huggingface_config("llama")).save_pretrained(folder)


def _tokenizer(folder: Path) -> None:
    content = json.loads((ASSETS / readers.TOKENIZER).read_text())
    content["model"]["vocab"] = dict(list(content["model"]["vocab"].items())[:30])
    (folder / readers.TOKENIZER).write_text(json.dumps(content))


def _vocabulary(folder: Path) -> None:
    (folder / VOCABULARY).write_text(json.dumps({"\u0120": 0, "a": 1, "b": 2, "\u0120a": 3, "ab": 4}))
    (folder / MERGES).write_text("#version: 0.2\n\u0120 a\na b\n", encoding="utf-8")


def _claim(folder: Path) -> None:
    claim = {"host": "a", "pid": 1, "user": "b", "since": "c", "has_locks": True, "machine": "d", "token": "e"}
    (folder / "lock.holder").write_text(json.dumps(claim))


def _copied(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copytree(_BEFORE / name, folder, dirs_exist_ok=True)


def _cache(folder: Path) -> None:
    readers.fill_cache(folder, 4)


def _database(folder: Path) -> None:
    write_database(folder / readers.DATABASE)


_RESULT = (
    *(readers.load_result, readers.verify_result, readers.query_result),
    *(readers.view_result, readers.export_result, readers.merge_results, readers.index_result),
)
_HARVEST = (readers.harvest_status, readers.merge_parts, readers.continue_harvest)
_OF_HARVEST = (readers.load_result, readers.verify_result, readers.harvest_status)
_QUERIES = (readers.query_result, readers.view_result)
_LANGUAGE_MODEL = (readers.read_language_model,)
_TOKENIZER = (readers.tokenizer_texts, readers.tokenize)
_PART = "worker_states/dataset_attributions_rank_0_generation_2.pt"
_RECORD = "worker_states/worker_0_generation_2.json"
_bare_archive = partial(damaged_archive, is_sealed=False)

KINDS = (
    Kind("result", readers.RESULT, _finished, damaged_archive, _RESULT, 12),
    Kind("result of a harvest", readers.RESULT, _merged, damaged_archive, _OF_HARVEST, 4),
    Kind("index", "dataset_attributions.index", _indexed, damaged_index, _QUERIES, 6),
    Kind("plan.json", "plan.json", _stopped, damaged_json, _HARVEST, 6),
    Kind("generation", "generation_2.json", _stopped, damaged_json, _HARVEST, 8),
    Kind("generation's provenance", "generation_2_provenance.json", _stopped, damaged_json, _HARVEST, 2),
    Kind("worker's record", _RECORD, _stopped, damaged_json, (readers.harvest_status,), 8),
    Kind("harvest.pt", "harvest.pt", _stopped, damaged_archive, _HARVEST, 6),
    Kind("read vectors", READ_VECTORS_FILE, _stopped, damaged_archive, (readers.merge_parts,), 6),
    Kind("part", _PART, _stopped, damaged_part, _HARVEST, 8),
    Kind("token file", readers.TOKENS, _copied("."), damaged_tokens, (readers.read_tokens,), 16),
    Kind("cache's progress", "*/progress.json", _cache, damaged_json, (readers.read_cache,), 12),
    Kind("cache's tokens", "*/tokens.bin", _cache, truncated_numbers, (readers.read_cache,), 4),
    Kind("harvest.db", readers.DATABASE, _database, damaged_database, (readers.read_database,), 16),
    Kind("run's configuration", "final_config.yaml", _copied("run"), damaged_yaml, (readers.read_run,), 8),
    Kind("target's configuration", "model_config.yaml", _copied("run"), damaged_yaml, (readers.read_run,), 8),
    Kind("checkpoint", "model_10.pth", _copied("run"), _bare_archive, (readers.read_run,), 8),
    Kind("tokenizer", readers.TOKENIZER, _tokenizer, damaged_json, _TOKENIZER, 12),
    Kind("vocabulary", VOCABULARY, _vocabulary, damaged_json, (readers.vocabulary_texts,), 4),
    Kind("merges", MERGES, _vocabulary, broken_bytes, (readers.vocabulary_texts,), 2),
    Kind("lock's claim", "lock.holder", _claim, damaged_json, (readers.wait_for_lock,), 6),
    Kind("language model", "config.json", _language_model, damaged_json, _LANGUAGE_MODEL, 1),
    Kind("language model's weights", "model.safetensors", _language_model, damaged_weights, _LANGUAGE_MODEL, 1),
)
