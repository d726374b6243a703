"""Finding the files of a run: in a given place, or in a cache that answers a reference."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lit_attr.decomposition.reference import RunReference, run_id_of_folder
from lit_attr.errors import RunFormatError, RunNotFoundError
from lit_attr.storage.roots import output_root

RUN_CONFIG = "final_config.yaml"
MODEL_CONFIG = "model_config.yaml"
_CHECKPOINT_SUFFIXES = (".pth", ".pt")


@dataclass(frozen=True)
class RunFiles:
    """The files of a decomposition run.

    Attributes:
        run_id: Under which results are stored.
        config: Its `final_config.yaml`.
        checkpoint: Its newest checkpoint, or the one that was asked for.
    """

    run_id: str
    config: Path
    checkpoint: Path


def locate_run(run: str | os.PathLike[str]) -> RunFiles:
    """Find a decomposition run.

    Args:
        run: A run directory, a checkpoint file, or a wandb reference. A text that has the form of a reference is one;
            write `./` before a relative path of that form.

    Raises:
        RunNotFoundError: If there is no such path, or no cache answers the reference.
        RunFormatError: If the directory holds no configuration or no checkpoint.
    """
    reference = RunReference.match(run) if isinstance(run, str) else None
    if reference is not None:
        return _locate_reference(reference)
    path = Path(run).expanduser().absolute()
    if path.is_dir():
        return _complete(path, run_id_of_folder(path), latest_checkpoint(path))
    if path.is_file():
        return _complete(path.parent, run_id_of_folder(path.parent), path)
    raise RunNotFoundError(
        f"no run at {str(run)!r}: expected a run directory, a checkpoint file, or a wandb reference such as "
        "'s-xxxxxxxx' or 'entity/project/runs/RUN_ID'"
    )


def _locate_reference(reference: RunReference) -> RunFiles:
    root = output_root()
    # The second is where training writes; both hold a run in the same form.
    places = [root / "runs" / reference.folder, root / "spd" / reference.run_id]
    problems = []
    for place in places:
        if not place.is_dir():
            problems.append(f"{place} (not there)")
            continue
        try:
            return _complete(place, reference.run_id, latest_checkpoint(place))
        except RunFormatError as error:
            problems.append(f"{place} ({error})")
    raise RunNotFoundError(
        f"no cache holds the run {reference}; looked in {'; '.join(problems)}. "
        "Put its final_config.yaml and model_<step>.pth there, or set LIT_ATTR_OUT_DIR to the folder above"
    )


def _complete(folder: Path, run_id: str, checkpoint: Path) -> RunFiles:
    config = folder / RUN_CONFIG
    if not config.is_file():
        raise RunFormatError(f"no {RUN_CONFIG} in {folder}")
    return RunFiles(run_id, config, checkpoint)


def latest_checkpoint(folder: Path) -> Path:
    """The checkpoint with the greatest step among `model*.pth` and `model*.pt` of a folder.

    Raises:
        RunFormatError: If there is none, or if there are several and one carries no step.
    """
    found = sorted(p for p in folder.iterdir() if p.name.startswith("model") and p.suffix in _CHECKPOINT_SUFFIXES)
    # A decomposition's own checkpoints end in .pth; a target's .pt beside them is not one of them.
    found = [p for p in found if p.suffix == ".pth"] or found
    if not found:
        raise RunFormatError(f"no checkpoint (model_<step>.pth) in {folder}")
    if len(found) == 1:
        return found[0]
    steps = {path: path.name.split(path.suffix)[0].rpartition("_")[2] for path in found}
    if odd := [path.name for path, step in steps.items() if not step.isdecimal()]:
        raise RunFormatError(
            f"several checkpoints in {folder}, of which {odd} carry no step (model_<step>.pth): name the file to load"
        )
    return max(found, key=lambda path: int(steps[path]))


def locate_model_config(name: str | None, run_folder: Path) -> Path:
    """Find the architecture of a decomposition's target model; its weights are in the decomposition's checkpoint.

    Args:
        name: The run's `pretrained_model_name`: a reference, or a local checkpoint or folder; None where it has none.
        run_folder: The decomposition run's folder, the first to be searched.

    Raises:
        RunNotFoundError: If no place holds a `model_config.yaml`.
    """
    places = list(_model_config_places(name, run_folder))
    for place in places:
        if (place / MODEL_CONFIG).is_file():
            return place / MODEL_CONFIG
    raise RunNotFoundError(
        f"no {MODEL_CONFIG} for the target model {name!r}; looked in {', '.join(str(place) for place in places)}"
    )


def _model_config_places(name: str | None, run_folder: Path) -> Iterable[Path]:
    reference = RunReference.match(name) if name else None
    if reference is not None:
        # The tree that the run lies in (<root>/runs/<run>, <root>/spd/<run>) comes before the configured root.
        for root in (*run_folder.parents[:2], output_root()):
            yield root / "pretrain_cache" / reference.folder
        yield run_folder
    elif name:
        for base in dict.fromkeys((run_folder, Path.cwd())):
            path = base / Path(name).expanduser()
            # A checkpoint's configuration is beside it, or above the checkpoints/ folder that it is in.
            yield from (path, path.parent, path.parent.parent)
    else:
        yield run_folder
