"""How fast the work of a harvest is done: measured on this machine, or by the figures of a GPU."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import get_args

import torch

from lit_attr.attribution.closed_form.engine import ClosedFormEngine
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import choose_engines
from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.load import decompose_by_config
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.targets import build_target
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.needs import Live
from lit_attr.harvest.shape import Shape
from lit_attr.planning.flops import Density, Kind, Work, work_per_token
from lit_attr.topology.paths import path_table
from lit_attr.topology.sums import Sums

_ARCHITECTURE = "LlamaSimpleMLP"
_TOY = {"n_layer": 2, "n_embd": 128, "n_intermediate": 512, "n_head": 4, "n_key_value_heads": 2, "vocab_size": 2000}
_MATRICES = ("mlp.c_fc", "mlp.down_proj", "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj")
_SEQ_LEN, _N_ROWS, _N_COMPONENTS, _DENSITY = 128, 4, 400, 0.02
_WORKSPACE = 1 << 29
_ROUNDS = 3


@dataclass(frozen=True)
class Speed:
    """How fast work is done.

    Attributes:
        flops: Kind of work to floating-point operations in a second.
        bytes: Bytes of memory that are read or written in a second.
        origin: Where the figures are from, for people.
    """

    flops: Mapping[Kind, float]
    bytes: float
    origin: str

    def seconds(self, work: Work, abs_share: float) -> tuple[float, float]:
        """Time of one token.

        Args:
            work: The work.
            abs_share: Share of the tokens from which `attr_abs` is taken.

        Returns:
            Seconds of the forwards, which every worker pays, and of the engine, which target shards divide.
        """
        engine = sum(flops / self.flops[kind] for kind, flops in work.flops.items() if kind != "forwards")
        engine += abs_share * sum(flops / self.flops[kind] for kind, flops in work.abs_flops.items())
        numbers = work.table_numbers + abs_share * work.abs_table_numbers
        return work.flops["forwards"] / self.flops["forwards"], engine + 4 * numbers / self.bytes


# The makers' figures: memory in 10^9 bytes; float32 without tensor cores, and bfloat16 with them, in 10^12 operations a
# second; memory in 10^12 bytes a second.
_GPUS = {
    "A100": (80, 19.5, 312.0, 2.0),
    "H100": (80, 67.0, 989.0, 3.35),
    "H200": (141, 67.0, 989.0, 4.8),
    "L40S": (48, 91.6, 362.0, 0.86),
    "RTX4090": (24, 82.6, 165.0, 1.0),
}


def gpu_speed(name: str, share: float, *, mixed: bool) -> tuple[Speed, float]:
    """The speed of a GPU by its maker's figures, and its memory in bytes.

    Args:
        name: Name of the GPU, such as `H100`.
        share: Share of the peak that is reached.
        mixed: Whether the forwards are in bfloat16.

    Raises:
        ConfigurationError: If it is not known.
    """
    if name not in _GPUS:
        raise ConfigurationError(f"unknown device {name!r}: known are {', '.join(_GPUS)}")
    memory, teraflops, of_forwards, terabytes = _GPUS[name]
    forwards = f", {of_forwards:g} of the forwards (bfloat16)" if mixed else ""
    origin = (
        f"an estimate: {share:.0%} of the {teraflops:g} TFLOP/s (float32){forwards} and {terabytes:g} TB/s of an {name}"
    )
    rates = dict.fromkeys(get_args(Kind), share * teraflops * 1e12)
    if mixed:
        rates["forwards"] = share * of_forwards * 1e12
    return Speed(rates, share * terabytes * 1e12, origin), memory * 1e9


def measured_speed() -> Speed:
    """The speed of this machine's processor, from the closed forms on a toy: some seconds."""
    model = _toy()
    topology = trace_topology(model)
    live = Live.all(topology)
    choice = choose_engines("closed_form", model, topology)
    density = Density(_DENSITY, _SEQ_LEN, _N_ROWS)
    work = work_per_token(Shape(model, topology), choice, live, density)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.vocab_size, (_N_ROWS, _SEQ_LEN), generator=generator)
    ci = {
        layer: (torch.rand(*tokens.shape, count, generator=generator) < _DENSITY).float()
        for layer, count in topology.n_components.items()
    }
    capture = model.component_forward(tokens, graph=False)
    layout = live.layout(topology, "both", None)
    sums = Sums.zeros(layout, torch.float32)

    def forwards() -> None:
        model.causal_importance(tokens)
        model.component_forward(tokens, graph=False)

    rates: dict[Kind, float] = {"forwards": work.flops["forwards"] * density.n_positions / _seconds(forwards)}
    for kind in dict.fromkeys(edge.kind for edge in choice.closed_form):
        edges = [edge for edge in choice.closed_form if edge.kind == kind]
        engine = ClosedFormEngine(model, layout, edges, _WORKSPACE)
        seconds = _seconds(partial(engine.add_, sums, capture, ci))
        rates[kind] = (work.flops[kind] + work.abs_flops[kind]) * density.n_positions / seconds
    rates["jvp"] = rates["forwards"]
    numbers = torch.ones(1 << 24)
    written = _seconds(lambda: numbers.add_(1.0))
    return Speed(rates, 2 * numbers.nbytes / written, f"measured on this processor, {torch.get_num_threads()} threads")


def _seconds(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times)


def _toy() -> DecomposedModel:
    """A small model with random weights whose every matrix is decomposed."""
    config = {
        "pretrained_model_class": _ARCHITECTURE,
        "module_info": [{"module_pattern": f"h.*.{matrix}", "C": _N_COMPONENTS} for matrix in _MATRICES],
        "ci_config": {"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": [16]},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        target = build_target(_ARCHITECTURE, {**_TOY, "block_size": _SEQ_LEN, "n_ctx": _SEQ_LEN})
        model = decompose_by_config(target, RunConfig.from_options(config, "calibration"), path_table(_ARCHITECTURE))
        for layer in model.paths:
            model.components(layer).V.normal_(std=0.1)
            model.components(layer).U.normal_(std=0.1)
    return model
