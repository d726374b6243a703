"""Run references: the strings that name a decomposition or pretraining run on wandb, and the folders that cache it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lit_attr.errors import ReferenceFormatError
from lit_attr.files.roots import input_roots

_DEFAULT_ENTITY = "goodfire"
# Kind of run to the project that is meant where none is named.
_DEFAULT_PROJECTS = {"s": "spd", "p": "param-decomp"}

_RUN_ID = r"(?:[a-z0-9]-)?[a-z0-9]{8}"
_BARE = re.compile(r"([sp])-[a-z0-9]{8}")
_NAME = r"[^/\s]+"
_COMPACT = re.compile(rf"({_NAME})/({_NAME})/({_RUN_ID})")
_WITH_RUNS = re.compile(rf"({_NAME})/({_NAME})/runs/({_RUN_ID})")
_URL = re.compile(rf"https://wandb\.ai/([^/]+)/([^/]+)/runs/({_RUN_ID})(?:/[^?]*)?(?:\?.*)?")

_FORMS = "'s-xxxxxxxx', 'p-xxxxxxxx', 'entity/project/RUN_ID', 'entity/project/runs/RUN_ID' or 'https://wandb.ai/entity/project/runs/RUN_ID'"


@dataclass(frozen=True)
class RunReference:
    """A run on wandb.

    Attributes:
        entity: User or team.
        project: Project name.
        run_id: Eight characters of `[a-z0-9]`, with a letter and a hyphen before them where the run has a kind.
    """

    entity: str
    project: str
    run_id: str

    @classmethod
    def parse(cls, text: str) -> "RunReference":
        """Read a reference in any of its forms.

        Raises:
            ReferenceFormatError: If the text has none of them.

        Example:
            >>> RunReference.parse("wandb:goodfire/spd/runs/t-9d2b8f02")
            RunReference(entity='goodfire', project='spd', run_id='t-9d2b8f02')
        """
        reference = cls.match(text)
        if reference is None:
            raise ReferenceFormatError(
                f"{text!r} is not a run reference: expected {_FORMS}, with or without 'wandb:' before it"
            )
        return reference

    @classmethod
    def match(cls, text: str) -> "RunReference | None":
        """Read a reference in any of its forms; None for other texts, and for paths like `./x`, `../x` and `~`."""
        text = text.strip().removeprefix("wandb:")
        if text.startswith(("./", "../", "~")):
            return None
        if bare := _BARE.fullmatch(text):
            return cls(_DEFAULT_ENTITY, _DEFAULT_PROJECTS[bare[1]], text)
        for form in (_COMPACT, _WITH_RUNS, _URL):
            if parts := form.fullmatch(text):
                return cls(*parts.groups())
        return None

    @property
    def folder(self) -> str:
        """Name of the run's folder in a cache."""
        return f"{self.project}-{self.run_id}"

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/runs/{self.run_id}"


def run_id_of_folder(folder: Path) -> str:
    """The run id that a run's folder stands for.

    The whole name where it is a run id; else the part behind the earliest hyphen that leaves one (`<project>-<id>`,
    wandb's `run-<time>-<id>`); else the whole name. Of wandb's `<name>/files` it is `<name>` that counts.
    """
    folder = Path(os.path.abspath(folder))  # `..` is no name
    name = folder.parent.name if folder.name == "files" else folder.name
    parts = name.split("-")
    for start in range(len(parts)):
        candidate = "-".join(parts[start:])
        if re.fullmatch(_RUN_ID, candidate):
            return candidate
    return name


def run_folders(reference: RunReference) -> list[Path]:
    """The folders in which a decomposition run may be; downloads go into the first.

    goodfire-ai/spd downloads into `runs/<project>-<id>`, and trains in `spd/<id>`; goodfire-ai/param-decomp downloads
    into `runs/<id>`, and has trained there, and in `param_decomp/<id>` and `decompositions/<id>`.
    """
    run_id = reference.run_id
    of_spd = [f"runs/{reference.folder}", f"spd/{run_id}"]
    of_successor = [f"runs/{run_id}", f"param_decomp/{run_id}", f"decompositions/{run_id}"]
    names = [*of_successor, *of_spd] if run_id.startswith("p-") else [*of_spd, *of_successor]
    return [root / name for root in input_roots() for name in names]


def target_folders(reference: RunReference, run_folder: Path) -> list[Path]:
    """The folders in which the target model of a run may be, the likeliest first; downloaded ones go into the last.

    Args:
        reference: The target model's pretraining run.
        run_folder: The decomposition run's folder, or a link to it: `<root>/runs/<run>` or `<root>/spd/<run>`. Its own
            root comes before the configured one.
    """
    own_roots = (*run_folder.parents[:2], *run_folder.resolve().parents[:2])
    roots = dict.fromkeys((*own_roots, *input_roots()[1:], input_roots()[0]))
    return [root / "pretrain_cache" / reference.folder for root in roots]
