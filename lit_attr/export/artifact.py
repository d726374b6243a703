"""A wandb artifact of a result."""

from pathlib import Path

from lit_attr.errors import StorageError
from lit_attr.export.description import describe
from lit_attr.storage.file_content import Content

# A larger file is not uploaded: the artifact then says where it is, and what its digest was.
UPLOAD_LIMIT = 2 * 10**9
_TYPE = "dataset_attributions"


def export_wandb(content: Content, path: Path, project: str | None = None) -> str:
    """Log the file of a result as a wandb artifact, in a wandb run of its own.

    Args:
        content: What the file holds.
        path: Path of the file.
        project: On wandb; its own default if None.

    Returns:
        The artifact's name and how the file is in it.

    Raises:
        StorageError: If wandb refuses, for example without a login.
    """
    import wandb  # takes seconds

    metadata = describe(content, f"lit_attr.{_TYPE}")
    del metadata["provenance"]  # may be megabytes, and is in the file
    by_reference = path.stat().st_size > UPLOAD_LIMIT
    name = f"{_TYPE}-{metadata['run_id'] or path.parent.name}"
    try:
        artifact = wandb.Artifact(name, _TYPE, metadata=metadata)
        if by_reference:
            artifact.add_reference(path.resolve().as_uri(), name=path.name)
        else:
            artifact.add_file(str(path), policy="immutable", skip_cache=True)  # without a copy of it
        with wandb.init(project=project, job_type="export") as run:
            run.log_artifact(artifact)
    except Exception as error:  # wandb raises its own kinds, those of requests, and plain ones
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise StorageError(f"cannot log {path} as a wandb artifact: {reason}") from error
    return f"{name} ({'by reference' if by_reference else 'the file itself'})"
