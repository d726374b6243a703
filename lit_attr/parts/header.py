"""What all parts of a harvest share, so that merging them needs no model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lit_attr.errors import StorageError
from lit_attr.files.publish import reading
from lit_attr.files.seal import check_open_seal, publish_sealed
from lit_attr.topology.graph import Topology
from lit_attr.topology.words import HEADER_FILE


@dataclass(frozen=True)
class Header:
    """What all parts share.

    Attributes:
        topology: The attribution graph.
        alive: Layer to the components that are targets.
        w_unembed: The unembedding.
        ci_threshold: The threshold that the result records.
        provenance: Where the numbers come from, in plain types.
    """

    topology: Topology
    alive: Mapping[str, Bool[Tensor, " _component"]]
    w_unembed: Float[Tensor, "d_model vocab"]
    ci_threshold: float
    provenance: Mapping[str, Any]

    def publish(self, folder: Path) -> "Header":
        """Write the header of a harvest, unless another worker has: the first one counts.

        Returns:
            The header that counts.

        Raises:
            StorageError: If it cannot be written.
        """
        topology = {**asdict(self.topology), "sources": {t: list(s) for t, s in self.topology.sources.items()}}
        content = {
            "topology": topology,
            "alive": dict(self.alive),
            "w_unembed": self.w_unembed.detach().cpu(),
            "ci_threshold": self.ci_threshold,
            "provenance": dict(self.provenance),
        }
        try:
            write = partial(torch.save, content)
            publish_sealed(folder / HEADER_FILE, write, self.w_unembed.nbytes, replace=False)
        except FileExistsError:
            pass
        return Header.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "Header":
        """Read the header of a harvest.

        Raises:
            StorageError: If it is missing or damaged.
        """
        path = folder / HEADER_FILE
        with reading(path) as file:
            check_open_seal(file, path)
            content = torch.load(file, weights_only=True)
        try:
            topology = content["topology"]
            sources = {target: tuple(names) for target, names in topology["sources"].items()}
            return cls(**{**content, "topology": Topology(**{**topology, "sources": sources})})
        except (KeyError, TypeError) as error:
            raise StorageError(f"{path} was written by another version: {error}") from error
