"""The memory that a batch takes on its device beside weights and sums, from shapes alone: nothing is computed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.attribution.batch import add_batch_
from lit_attr.attribution.closed_form.batch import Count
from lit_attr.attribution.closed_form.counts import PairCounts
from lit_attr.attribution.closed_form.engine import ClosedFormEngine
from lit_attr.attribution.engine import CombinedEngine, Gathered, Whole
from lit_attr.attribution.engine_choice import EngineChoice, build_engine
from lit_attr.decomposition.model import Capture, DecomposedModel
from lit_attr.decomposition.sizes import running_without_numbers
from lit_attr.harvest.memory import PeakMemory
from lit_attr.topology.layout import Layout
from lit_attr.topology.sums import Sums


@dataclass(frozen=True)
class BatchBytes:
    """Bytes that a batch takes beside weights and sums.

    Attributes:
        forwards: The most while the two forwards run, with what the engine has taken of them so far.
        taken: What the engine works with, beside its workspace: pairs, activations of targets, streams, and outputs
            inside sublayers; or the whole capture.
    """

    forwards: int
    taken: int


def batch_bytes(
    model: DecomposedModel,
    choice: EngineChoice,
    layout: Layout,
    n_rows: int,
    seq_len: int,
    density: float,
    device: torch.device,
) -> BatchBytes:
    """The memory of some sequences: a harvest goes through them as ever, but without numbers.

    Under `bf16-mixed` it is less: this is that of `32-true`. What passes of `autograd` and of forward mode take beside
    the capture is not in it: how many fit is tried when a harvest begins.

    Args:
        model: Decomposed model without numbers, its tensors in the dtypes in which they are kept.
        choice: Engines of the edge blocks; with none at all, the least that any engine needs.
        layout: The sums that are asked for, of a whole harvest or of a shard; its targets are what is taken.
        n_rows: Number of sequences.
        seq_len: Positions of a sequence.
        density: Share of causal importances that are not zero, from 0 to 1.
        device: Where the batch would be.
    """

    def expected(ci: Mapping[str, Float[Tensor, "batch seq _"]], layers: Collection[str]) -> PairCounts:
        for layer in layers:
            torch.empty_like(ci[layer], dtype=torch.float32)  # the temporary of counting
        return PairCounts({layer: np.array([[round(density * ci[layer].numel())]]) for layer in layers}, {}, {})

    with running_without_numbers(), PeakMemory() as memory:
        engine = build_engine(choice, model, layout, 1, 1)
        sums = Sums.zeros(Layout(layout.topology, (), layout.targets), model.dtype, "meta")
        before = memory.live
        watched = _Watched(_taking(engine, sums, expected, device), memory, needs_graph=engine.needs_graph)
        memory.peak = memory.live
        add_batch_(sums, model, layout.topology, watched, torch.zeros((n_rows, seq_len), dtype=torch.int64))
    return BatchBytes(memory.peak - before, watched.taken - before)


def _taking(engine: CombinedEngine, sums: Sums, expected: Count, device: torch.device) -> Gathered:
    """What takes of a batch as much as an engine does."""
    engines = list(engine.engines.values())
    if not engines:
        return _Nothing()
    if len(engines) == 1 and isinstance(closed := engines[0], ClosedFormEngine):
        return closed.expecting(expected, device).gather(sums)
    return Whole(engine, sums)


class _Nothing:
    """What takes nothing of a batch."""

    recorded: Collection[str] = ()

    def take_importances(self, layer: str, ci: Float[Tensor, "batch seq component"]) -> None:
        pass

    def take_activations(self, layer: str, activations: Float[Tensor, "batch seq component"]) -> None:
        pass

    def add_(self, capture: Capture) -> None:
        pass


class _Watched:
    """An engine, and its batch, that takes what another takes, notes how much that is, and adds nothing."""

    reserved_bytes = 0

    def __init__(self, taking: Gathered, memory: PeakMemory, *, needs_graph: bool) -> None:
        self._memory = memory
        self.needs_graph = needs_graph
        self.recorded = taking.recorded
        self.take_importances = taking.take_importances
        self.take_activations = taking.take_activations
        self.taken = 0

    def truncated(self) -> "_Watched":
        return self

    def gather(self, sums: Sums) -> "_Watched":
        return self

    def add_(self, *_: object) -> None:
        self.taken = self._memory.live
