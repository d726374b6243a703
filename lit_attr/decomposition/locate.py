"""Finding the files of a run: in a given place, or in a cache that answers a reference."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lit_attr.assets import DEMO, run_folder
from lit_attr.decomposition.download import download_run, download_target
from lit_attr.decomposition.reference import RunReference, run_folders, run_id_of_folder, target_folders
from lit_attr.decomposition.run_files import MODEL_CONFIG, RUN_CONFIGS, newest_checkpoint, run_config
from lit_attr.errors import RunFormatError, RunNotFoundError
from lit_attr.files.roots import user_path


@dataclass(frozen=True)
class RunFiles:
    """The files of a decomposition run.

    Attributes:
        run_id: Id under which results are stored.
        config: The run's configuration, of one of the names in `RUN_CONFIGS`.
        checkpoint: The run's newest checkpoint, or the one that was asked for.
    """

    run_id: str
    config: Path
    checkpoint: Path


def locate_run(run: str | os.PathLike[str]) -> RunFiles:
    """Find a decomposition run; download it where no cache answers a reference.

    Args:
        run: A run directory, a checkpoint file, a wandb reference, or `demo`. A text that has the form of a reference
            is one; write `./` before a relative path of that form, or of that name.

    Raises:
        RunNotFoundError: If there is no such path, or neither a cache nor wandb answers the reference.
        RunFormatError: If the directory holds no configuration or no checkpoint.
    """
    reference = RunReference.match(run) if isinstance(run, str) else None
    if reference is not None:
        return _locate_reference(reference)
    path = run_folder() if run == DEMO else user_path(run).absolute()
    if path.is_dir():
        if (path / "config.json").is_file() and not has_config(path):
            raise RunFormatError(
                f"no {RUN_CONFIGS[0]} in {path}, but a config.json: a language model that nobody has decomposed needs "
                "--model.decomposition Svd, or Neurons, or one of your own"
            )
        return _complete(path, run_id_of_folder(path))
    if path.is_file():
        if not has_config(path.parent):  # a link to a checkpoint: the rest is beside the real one
            path = path.resolve()
        return RunFiles(run_id_of_folder(path.parent), _config(path.parent), path)
    raise RunNotFoundError(
        f"no run at {str(run)!r}: expected a run directory, a checkpoint file, or a wandb reference such as "
        "'s-xxxxxxxx' or 'entity/project/runs/RUN_ID', or 'demo'"
    )


def locate_config(run: str | os.PathLike[str]) -> Path:
    """Find the configuration of a decomposition run; arguments and errors as for `locate_run`.

    A run directory needs no checkpoint: one may describe a run that is not at hand.
    """
    is_reference = isinstance(run, str) and (run == DEMO or RunReference.match(run) is not None)
    folder = user_path(run).absolute()
    return _config(folder) if not is_reference and has_config(folder) else locate_run(run).config


def _locate_reference(reference: RunReference) -> RunFiles:
    places = run_folders(reference)
    looked_in = []
    for place in places:
        try:
            return _complete(place, reference.run_id)
        except RunFormatError as error:
            # Incomplete, such as an interrupted copy: another place, or wandb, may have the whole run.
            looked_in.append(str(place) if not place.is_dir() else f"{place}: {error}")
    try:
        download_run(reference, places[0])
    except RunNotFoundError as error:
        raise RunNotFoundError(
            f"no cache holds the run {reference} (looked in {'; '.join(looked_in)}), and {error}"
        ) from error
    return _complete(places[0], reference.run_id)


def _complete(folder: Path, run_id: str) -> RunFiles:
    config = _config(folder)  # says of a run of another kind what it is
    return RunFiles(run_id, config, latest_checkpoint(folder))


def has_config(folder: Path) -> bool:
    """Whether a folder holds the configuration of a run."""
    return any((folder / name).is_file() for name in RUN_CONFIGS)


def _config(folder: Path) -> Path:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return folder / run_config(names, str(folder))


def latest_checkpoint(folder: Path) -> Path:
    """The checkpoint with the greatest step among `model*.pth` and `model*.pt` of a folder.

    Raises:
        RunFormatError: If there is none, or if there are several and one carries no step.
    """
    files = (path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else ()
    return folder / newest_checkpoint(files, str(folder))


def locate_model_config(name: str | None, folder: Path) -> Path:
    """Find the architecture of a decomposition's target model; download it where no cache answers a reference.

    The weights are in the decomposition's own checkpoint.

    Args:
        name: The run's `pretrained_model_name`: a reference, or a local checkpoint or folder; None where it has none.
        folder: The decomposition run's folder, the first to be searched.

    Raises:
        RunNotFoundError: If no place holds a `model_config.yaml`, and wandb has none.
    """
    places = list(_model_config_places(name, folder))
    for place in places:
        if (place / MODEL_CONFIG).is_file():
            return place / MODEL_CONFIG
    reference = RunReference.match(name) if name else None
    looked_in = f"looked in {', '.join(str(place) for place in places)}"
    if reference is None:
        raise RunNotFoundError(f"no {MODEL_CONFIG} for the target model {name!r}; {looked_in}")
    cache = target_folders(reference, folder)[-1]
    try:
        download_target(reference, cache)
    except RunNotFoundError as error:
        raise RunNotFoundError(f"no {MODEL_CONFIG} for the target model {name!r} ({looked_in}), and {error}") from error
    return cache / MODEL_CONFIG


def _model_config_places(name: str | None, folder: Path) -> Iterable[Path]:
    reference = RunReference.match(name) if name else None
    if reference is not None:
        yield from target_folders(reference, folder)
        yield folder
    elif name:
        for base in dict.fromkeys((folder, Path.cwd())):
            path = base / user_path(name)
            # A checkpoint's configuration is beside it, or above the checkpoints/ folder that it is in.
            yield from (path, path.parent, path.parent.parent)
    else:
        yield folder
