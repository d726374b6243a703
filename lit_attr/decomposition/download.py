"""Downloading runs from wandb into the cache tree."""

import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lit_attr.decomposition.reference import RunReference
from lit_attr.decomposition.run_files import MODEL_CONFIG, RUN_CONFIGS, TOKENIZER, newest_checkpoint, run_config
from lit_attr.errors import RunFormatError, RunNotFoundError
from lit_attr.files.lock import locked
from lit_attr.files.publish import make_folder

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)

# Seconds between attempts, and seconds after which a request without an answer counts as failed.
_PAUSES = (1.0, 2.0, 4.0)
_TIMEOUT = 20
_TARGET_CHECKPOINT = re.compile(r"model_step_(\d+)\.pt")


def download_run(reference: RunReference, folder: Path) -> None:
    """Download a decomposition run: its configuration and its newest checkpoint.

    Args:
        reference: The run's wandb reference.
        folder: Folder that the files go to; those that are there stay.

    Raises:
        RunNotFoundError: If there is no network, no login, or no such run.
        RunFormatError: If the run lacks a file.
    """

    def choose(names: Sequence[str]) -> list[str]:
        if not set(RUN_CONFIGS) & set(names):
            raise RunFormatError(f"run {reference} on wandb has no {' or '.join(RUN_CONFIGS)}; it has {sorted(names)}")
        where = f"run {reference} on wandb"
        return [newest_checkpoint(names, where), run_config(names, where)]

    def is_complete() -> bool:
        return any((folder / name).is_file() for name in RUN_CONFIGS) and any(folder.glob("model*.pt*"))

    _download(reference, folder, choose, is_complete)


def download_target(reference: RunReference, folder: Path) -> None:
    """Download a pretraining run: its configurations, its tokenizer if it has one, and its newest checkpoint.

    The checkpoint is not needed here, since the decomposition's holds the same weights; goodfire-ai/spd looks for it.

    Args:
        reference: The run's wandb reference.
        folder: Folder that the files go to; those that are there stay.

    Raises:
        RunNotFoundError: If there is no network, no login, or no such run.
        RunFormatError: If the run lacks a file.
    """

    def choose(names: Sequence[str]) -> list[str]:
        steps = {int(match[1]): name for name in names if (match := _TARGET_CHECKPOINT.fullmatch(name))}
        wanted = [steps[max(steps)]] if steps else []
        for ending, needed in ((TOKENIZER, False), (RUN_CONFIGS[0], False), (MODEL_CONFIG, True)):
            named = [name for name in names if name.endswith(ending)][:1]
            if needed and not named:
                raise RunFormatError(f"run {reference} on wandb has no {ending}; it has {sorted(names)}")
            wanted += named
        return wanted

    _download(reference, folder, choose, lambda: (folder / MODEL_CONFIG).is_file())


def _download(
    reference: RunReference,
    folder: Path,
    choose: Callable[[Sequence[str]], Iterable[str]],
    is_complete: Callable[[], bool],
) -> None:
    """Download the chosen files, one process at a time, unless another has done it by then."""
    make_folder(folder)
    with locked(folder / ".lock", f"waiting for another process to download {reference}"):
        if not is_complete():
            _fetch(reference, folder, choose)


def _fetch(reference: RunReference, folder: Path, choose: Callable[[Sequence[str]], Iterable[str]]) -> None:
    _log.info(f"downloading {reference} from wandb into {folder}")
    run = _attempt(reference, lambda: _api().run(str(reference).replace("/runs/", "/")))
    files = _attempt(reference, lambda: {file.name: file for file in run.files()})
    for name in choose(list(files)):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RunFormatError(f"run {reference} on wandb has a file whose name leads elsewhere: {name!r}")
        destination = folder / Path(name).name
        if destination.exists():
            continue
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            _attempt(reference, partial(_fetch_file, files[name], Path(temporary)))
            os.replace(Path(temporary) / name, destination)


def _fetch_file(file: Any, folder: Path) -> None:  # noqa: ANN401 - wandb's file
    file.download(str(folder), replace=True).close()
    size = (folder / file.name).stat().st_size
    if size != file.size:
        raise OSError(f"{file.name} broke off: expected {file.size} bytes, found {size}")


def _api() -> Any:  # noqa: ANN401 - wandb.Api
    import wandb  # seconds to import, and only for downloads

    return wandb.Api(timeout=_TIMEOUT)


def _attempt(reference: RunReference, action: Callable[[], _Result]) -> _Result:
    """Try a request; if it fails in a way that may pass, pause and try again."""
    for pause in (*_PAUSES, None):
        try:
            return action()
        except Exception as error:  # wandb raises its own kinds, those of requests, and plain ones
            if pause is None or _is_final(error):
                raise RunNotFoundError(f"cannot download the run {reference} from wandb: {_explain(error)}") from error
            _log.info(f"{reference}: {_first_line(error)}; trying again in {pause:g} s")
            time.sleep(pause)
    raise RunNotFoundError(f"cannot download the run {reference}")


def _is_final(error: Exception) -> bool:
    """Whether asking again cannot help: no login, a refused one, or no such run."""
    import wandb

    message = str(error).lower()
    return isinstance(error, wandb.errors.UsageError | ValueError) or any(
        reason in message for reason in ("invalid credentials", "could not find run", "permission denied", "404")
    )


def _explain(error: Exception) -> str:
    import wandb

    if isinstance(error, wandb.errors.UsageError) or "invalid credentials" in str(error):
        return f"no valid login ({_first_line(error)}); run `wandb login`, or set WANDB_API_KEY"
    return f"{_first_line(error)}. Without network, put the run's files into the cache by hand"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
