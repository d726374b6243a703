"""The complete configuration of a harvest that is to run elsewhere, checked as far as that is possible from here."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from lit_attr.cli.parser import RUN_IS_MISSING
from lit_attr.cli.predict import build_cli, own_errors, run_with_dataset
from lit_attr.data.spec import DatasetOptions
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.launch.jobs import Harvest
from lit_attr.storage.result_folders import check_subrun_id, run_folder

# What each worker is told by its job, and what these keys are otherwise.
_OF_THE_JOB = {"rank": 0, "world_size": 1, "target_shard": None}


def resolve_harvest(arguments: Sequence[str]) -> Harvest:
    """Read the configuration of a harvest, and find its run and its tokens.

    Args:
        arguments: Words of the command line behind `lit-attr predict`.

    Raises:
        LitAttrError: If predict would refuse them; settings of the trainer aside, which belong to other machines.
    """
    text = _print_configuration(arguments)
    settings = yaml.safe_load(text)
    model, data, writer = settings["model"], settings["data"], settings["writer"]
    if model["run"] is None:
        raise ConfigurationError(RUN_IS_MISSING)
    for name, default in _OF_THE_JOB.items():
        if data[name] != default:
            raise ConfigurationError(f"--data.{name} is given to each worker by its job: drop it, found {data[name]}")
    if writer["subrun_id"] is not None:
        check_subrun_id(writer["subrun_id"])
    source = build_harvester(model).source
    run_id = source.find_run_id()
    run = run_with_dataset(model["run"], model["decomposition"])
    tokens = TokenDataModule(**{**data, "dataset": DatasetOptions(**data["dataset"])}, run=run)
    if data["tokens"] is not None:
        tokens.setup()
    return Harvest(
        configuration=text,
        run_id=run_id,
        results=run_folder(run_id, writer["out_dir"], writer["layout"]),
        out_dir=writer["out_dir"],
        subrun_id=writer["subrun_id"],
        on_cpu=settings["trainer"]["accelerator"] == "cpu",
        target_shards=data["target_shards"],
    )


def build_harvester(settings: Mapping[str, Any]) -> AttributionHarvester:
    """Instantiate a harvester, its class paths included; nothing is loaded.

    Args:
        settings: The section `model` of a configuration.

    Raises:
        LitAttrError: If a setting makes no sense.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(AttributionHarvester, "model")
    with own_errors():
        return parser.instantiate_classes(parser.parse_object({"model": dict(settings)})).model


def read_configuration(arguments: Sequence[str]) -> Mapping[str, Any]:
    """The complete configuration of a harvest, by sections; arguments and errors as for `resolve_harvest`."""
    return yaml.safe_load(_print_configuration(arguments))


def _print_configuration(arguments: Sequence[str]) -> str:
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            build_cli([*arguments, "--print_config"])
    except SystemExit as end:
        if end.code:
            reason = " ".join(err.getvalue().rpartition("error: ")[2].split())
            raise ConfigurationError(f"the configuration is not understood: {reason}") from end
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"a configuration is no text file: {error}") from error
    return out.getvalue()
