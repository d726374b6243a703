"""What all parts of a harvest share, so that merging them needs no model."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lit_attr.errors import StorageError, few, naming, reason, shown
from lit_attr.files.limits import check_content, check_plain, check_records
from lit_attr.files.publish import reading
from lit_attr.files.seal import check_open_seal, publish_sealed
from lit_attr.parts.generations import Generation
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.layout import Layout
from lit_attr.topology.shards import deal
from lit_attr.topology.words import HEADER_FILE

_MOST = 1 << 31


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

    def layout(self, generation: Generation) -> Layout:
        """The sums that the parts of a generation hold.

        Args:
            generation: A generation of the harvest, which is of one of its target shards.
        """
        plan = generation.plan
        layout = Layout.of(self.topology, self.alive, plan.metrics, plan.squares_dtype)
        return deal(layout, plan.target_shards)[generation.shard]

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
            nbytes = os.fstat(file.fileno()).st_size
            try:
                check_records(file, nbytes)
                file.seek(0)
                content = torch.load(file, weights_only=True)
                check_content(content, nbytes)
            except Exception as error:  # torch raises many kinds for a damaged file
                raise StorageError(f"{path} is damaged, or no header of a harvest: {reason(error)}") from error
        try:
            stored = content["topology"]
            counts = {str(layer): int(count) for layer, count in stored["n_components"].items()}
            sources = {str(target): tuple(map(str, names)) for target, names in stored["sources"].items()}
            inputs = {str(target): str(name) for target, name in stored["inputs"].items()}
            widths = {str(name): int(width) for name, width in stored["widths"].items()}
            topology = Topology(counts, sources, int(stored["vocab_size"]), int(stored["d_model"]), inputs, widths)
            header = cls(
                topology, content["alive"], content["w_unembed"], float(content["ci_threshold"]), content["provenance"]
            )
            problem = header._problem()
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise StorageError(f"{path} was written by another version: {reason(error)}") from error
        with naming(path):
            check_plain(header.provenance, "its provenance")
        if problem is not None:
            raise StorageError(f"{path} is damaged: {problem}")
        return header

    def _problem(self) -> str | None:
        """What does not belong together, in words."""
        layers = self.topology.n_components
        linked = {*self.topology.sources, *(name for names in self.topology.sources.values() for name in names)}
        if unknown := linked - {*layers, EMBED, OUTPUT}:
            return f"its graph has layers without components: {few(sorted(map(shown, unknown)))}"
        inputs, widths = self.topology.inputs, self.topology.widths
        if inputs.keys() != self.topology.sources.keys() or {*inputs.values()} != widths.keys():
            return "its targets' inputs are not those of its graph"
        if any(not 0 < width < _MOST for width in widths.values()) or widths.get(OUTPUT) != self.topology.d_model:
            return f"its inputs have widths {shown(dict(widths))}"
        if {layer: _kind(mask) for layer, mask in self.alive.items()} != {
            layer: ((count,), torch.bool, True) for layer, count in layers.items()
        }:
            return "its targets are not those of its graph"
        shape, dtype, is_whole = _kind(self.w_unembed)
        if shape != (self.topology.d_model, self.topology.vocab_size) or not dtype.is_floating_point or not is_whole:
            return f"its unembedding is {dtype} of shape {shape}, which does not fit its graph"
        return None if isinstance(self.provenance, Mapping) else "its provenance is no mapping"


def _kind(tensor: Tensor) -> tuple[tuple[int, ...], torch.dtype, bool]:
    """Shape and dtype of a tensor, and whether each of its numbers has a place of its own."""
    is_dense = tensor.is_contiguous() or (tensor.ndim == 2 and tensor.T.is_contiguous())
    return tuple(tensor.shape), tensor.dtype, is_dense
