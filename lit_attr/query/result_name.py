"""Which result answers a question."""

from dataclasses import dataclass
from pathlib import Path

from lit_attr.storage.file_content import Content
from lit_attr.storage.result_folders import is_subrun_id


@dataclass(frozen=True)
class ResultName:
    """Which result answers a question.

    Attributes:
        file: Path of the result's file.
        run_id: Id of the decomposition run; None where the provenance does not say it.
        subrun_id: Id of the harvest, which is the name of its folder; None where the file lies elsewhere.
        newest_of: Number of the run's results, of which this is the newest; None if this one was named.
        checkpoint: File name of the decomposition's checkpoint; None where the provenance does not say it.
        weights_digest: SHA-256 of the checkpoint's tensors; None where the provenance does not say it.
    """

    file: str
    run_id: str | None
    subrun_id: str | None
    newest_of: int | None
    checkpoint: str | None
    weights_digest: str | None

    @classmethod
    def read(cls, path: Path, content: Content, newest_of: int | None = None) -> "ResultName":
        """The name of a result.

        Args:
            path: Path of its file.
            content: What the file holds.
            newest_of: Number of the run's results, if this one was taken since it is the newest.
        """
        folder = path.absolute().parent.name
        recorded = content.recorded
        return cls(
            file=str(path),
            run_id=recorded.run_id,
            subrun_id=folder if is_subrun_id(folder) else None,
            newest_of=newest_of,
            checkpoint=recorded.checkpoint,
            weights_digest=recorded.weights_digest,
        )

    def __str__(self) -> str:
        """One line for the caption of a table."""
        name = f"{self.subrun_id} of {self.run_id or 'an unknown run'}" if self.subrun_id else self.file
        if self.newest_of is not None and self.newest_of > 1:
            name += f" (newest of {self.newest_of})"
        return name if self.checkpoint is None else f"{name}, checkpoint {self.checkpoint}"
