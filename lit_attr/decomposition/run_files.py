"""Names of the files of a run, and which checkpoint of several is the newest."""

from collections.abc import Collection, Iterable

from lit_attr.errors import RunFormatError

# Of goodfire-ai/spd, and of goodfire-ai/param-decomp while it was written in torch; the first that is there counts.
RUN_CONFIGS = ("final_config.yaml", "run_meta.yaml", "experiment_config.yaml")
MODEL_CONFIG = "model_config.yaml"
TOKENIZER = "tokenizer.json"
_CHECKPOINT_ENDINGS = (".pth", ".pt")
# What runs of later versions of param-decomp have instead, whose checkpoints are those of orbax.
_JAX_RUN = ("launch_config.yaml", "ckpts")


def run_config(names: Collection[str], where: str) -> str:
    """The name of a run's configuration.

    Args:
        names: Names of the files and folders in one folder.
        where: Name of the place, for messages.

    Raises:
        RunFormatError: If there is none.
    """
    if (found := next((name for name in RUN_CONFIGS if name in names), None)) is not None:
        return found
    if odd := [name for name in _JAX_RUN if name in names]:
        raise RunFormatError(
            f"{where} has {odd[0]}: it is a run of param-decomp in JAX, which cannot be read; expected "
            f"{' or '.join(RUN_CONFIGS)} beside a checkpoint of torch"
        )
    raise RunFormatError(f"no configuration of a run ({' or '.join(RUN_CONFIGS)}) in {where}")


def newest_checkpoint(names: Iterable[str], where: str) -> str:
    """The checkpoint with the greatest step among `model*.pth`, or, where there is none of them, `model*.pt`.

    Args:
        names: Names of the files in one folder.
        where: Name of the place, for messages.

    Raises:
        RunFormatError: If there is no checkpoint, or if there are several and one carries no step.
    """
    candidates = sorted(name for name in names if name.startswith("model"))
    checkpoints = next(filter(None, ([n for n in candidates if n.endswith(e)] for e in _CHECKPOINT_ENDINGS)), [])
    if not checkpoints:
        raise RunFormatError(f"no checkpoint (model_<step>.pth) in {where}")
    if len(checkpoints) == 1:
        return checkpoints[0]
    steps = {name: name.partition(".pt")[0].rpartition("_")[2] for name in checkpoints}
    if odd := [name for name, step in steps.items() if not step.isdecimal()]:
        raise RunFormatError(
            f"several checkpoints in {where}, of which {odd} carry no step (model_<step>.pth): name the file to load"
        )
    return max(checkpoints, key=lambda name: int(steps[name]))
