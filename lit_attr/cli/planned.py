"""From the words of a command line to a plan."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lit_attr.cli.configuration import build_harvester, read_configuration
from lit_attr.cli.find_result import find_result
from lit_attr.cli.parser import RUN_IS_MISSING
from lit_attr.cli.predict import run_with_dataset
from lit_attr.data.spec import DatasetOptions
from lit_attr.decomposition.widening import keep_bfloat16_
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.memory import free_bytes
from lit_attr.harvest.shape import Shape
from lit_attr.harvest.sources import ModelSource
from lit_attr.harvest.targets import TargetRule
from lit_attr.planning.counts import Counted
from lit_attr.planning.grid import Machine
from lit_attr.planning.live import USUAL_DENSITY, LiveEstimate
from lit_attr.planning.plan import Load, Plan, make_plan
from lit_attr.planning.speeds import gpu_speed, measured_speed
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage

# Where no data is named.
_N_TOKENS, _LONGEST = 1e9, 2048


def plan_of(options: argparse.Namespace, arguments: Sequence[str]) -> Plan:
    """Plan the harvest of a command line.

    Args:
        options: The options of `lit-attr plan`.
        arguments: The words that are those of `lit-attr predict`.

    Raises:
        LitAttrError: If predict would refuse the configuration, or a number makes no sense.
    """
    settings = read_configuration(arguments)
    if settings["model"]["run"] is None:
        raise ConfigurationError(RUN_IS_MISSING)
    harvester = build_harvester(settings["model"])
    source = harvester.source
    if options.components:
        if source.decomposition is not None:
            raise ConfigurationError("--components and --model.decomposition both say what is decomposed: drop one")
        source = ModelSource(source.reference, Counted.parse(options.components), source.table)
    shape = Shape.of(source)
    if options.weights == "bfloat16":
        keep_bfloat16_(shape.model, lambda _: True)
    rule = harvester.target_rule
    if options.harvest_db is not None:
        rule = TargetRule(options.harvest_db, None, 0.0)
    if options.result is not None:
        path = find_result(options.result, None)
        estimate = LiveEstimate.by_result(shape, DatasetAttributionStorage.load(path), str(path))
    elif rule.harvest_db is not None and options.alive_share is None:
        estimate = LiveEstimate.by_database(shape, rule, source.find_run_id())
    else:
        estimate = LiveEstimate.by_share(shape, options.alive_share, rule)
    seq_len, n_tokens = _data(settings, options)
    seq_len = min(seq_len or _LONGEST, shape.model.block_size)
    density = options.ci_density or estimate.density or USUAL_DENSITY
    load = Load(options.n_tokens or n_tokens or _N_TOKENS, seq_len, density)
    mixed = settings["trainer"]["precision"] == "bf16-mixed"
    return make_plan(harvester, shape, estimate, load, _machine(options, mixed=mixed), options.keep)


def _machine(options: argparse.Namespace, *, mixed: bool) -> Machine:
    host = free_bytes(torch.device("cpu")) if options.host_gb is None else options.host_gb * 1e9
    memory = None if options.memory_gb is None else options.memory_gb * 1e9
    if options.device is None:
        return Machine(memory, host, options.workers, measured_speed())
    speed, of_device = gpu_speed(options.device, options.peak_share, mixed=mixed)
    return Machine(memory or of_device, host, options.workers, speed)


def _data(settings: Mapping[str, Any], options: argparse.Namespace) -> tuple[int | None, float | None]:
    """Length of a sequence and number of tokens, where they are known."""
    data = settings["data"]
    if options.seq_len is not None:
        return options.seq_len, None
    run = run_with_dataset(settings["model"]["run"], options.components or settings["model"]["decomposition"])
    dataset = DatasetOptions(**data["dataset"])
    if data["tokens"] is None:
        if run is None and dataset.dataset_name is None:
            return None, None
        spec = TokenDataModule(dataset=dataset, run=run).spec
        return None if spec is None else spec.max_seq_len, None
    tokens = TokenDataModule(**{**data, "dataset": dataset}, run=run)
    tokens.setup()
    return tokens.seq_len, float(tokens.n_rows * tokens.seq_len)
