"""Names of the files of a run, and which checkpoint of several is the newest."""

from collections.abc import Iterable

from lit_attr.errors import RunFormatError

RUN_CONFIG = "final_config.yaml"
MODEL_CONFIG = "model_config.yaml"
TOKENIZER = "tokenizer.json"
_CHECKPOINT_ENDINGS = (".pth", ".pt")


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
