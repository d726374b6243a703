"""`lit-attr predict`: the harvest, on Lightning's command line."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_attr.cli.find_result import as_argument, next_commands
from lit_attr.cli.parser import HarvestParser, one_line
from lit_attr.errors import ConfigurationError, LitAttrError
from lit_attr.harvest.allocation import slurm_correction
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.preemption import stopping_at_once
from lit_attr.harvest.processes import leaving_groups
from lit_attr.harvest.progress import HarvestProgress
from lit_attr.harvest.trainer_settings import check_launcher
from lit_attr.harvest.writer import StorageWriter


class PredictCLI(LightningCLI):
    """Lightning's command line with the one command that a harvest needs, and the writer's keys."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The command, and the parameters of `Trainer.predict` that are not the user's to set."""
        return {"predict": {"model", "dataloaders", "datamodule", "return_predictions", "ckpt_path", "weights_only"}}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:  # noqa: ANN401 - Lightning's own signature
        """Build the parser: Lightning's, but for an error message."""
        parser = super().init_parser(**kwargs)
        parser.__class__ = HarvestParser  # Lightning offers no other way to another class
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the `--writer.*` keys, and let the data know the run."""
        parser.add_lightning_class_args(StorageWriter, "writer")
        parser.link_arguments(("model.run", "model.decomposition"), "data.run", compute_fn=run_with_dataset)

    def instantiate_classes(self) -> None:
        """Instantiate model, data and trainer.

        Raises:
            LitAttrError: If a setting makes no sense, or a class that the user names cannot be instantiated.
        """
        try:
            with own_errors():
                super().instantiate_classes()
        except LitAttrError:
            raise
        except ValueError as error:  # jsonargparse's, of whatever a class of the user's raises
            raise ConfigurationError(one_line(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - Lightning's own signature
        """Build the trainer, with a progress bar unless the user has another or wants none.

        Raises:
            ConfigurationError: If its settings do not go together, or not with this machine.
        """
        settings = self._get(self.config_init, "trainer", default={})
        callbacks = _listed(settings.get("callbacks"))
        wants_bar = settings.get("enable_progress_bar") is not False and not settings.get("barebones")
        if wants_bar and not any(isinstance(callback, ProgressBar) for callback in callbacks):
            kwargs["callbacks"] = [*callbacks, HarvestProgress()]
        plugins = _listed(settings.get("plugins"))
        try:
            if not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
                correction = slurm_correction(settings.get("num_nodes", 1))
                if correction is not None:
                    kwargs["plugins"] = [*plugins, correction]
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError, ImportError, RuntimeError) as error:
            raise ConfigurationError(f"the trainer cannot be built with these settings: {error}") from error

    def _run_subcommand(self, subcommand: str) -> None:
        check_launcher(self.trainer)
        writer: StorageWriter = self._get(self.config_init, "writer")
        writer.join_in_time(self.trainer)
        try:
            with stopping_at_once(self.trainer):
                super()._run_subcommand(subcommand)
        except RuntimeError as error:  # of torch, which has lost another process in one of Lightning's conversations
            if writer.interruption is None:
                raise
            raise writer.interruption from error

    def after_predict(self) -> None:
        """Say how to ask the result, or what is left to do."""
        writer: StorageWriter = self._get(self.config_init, "writer")
        if not self.trainer.is_global_zero:
            return
        if writer.path is not None:
            print(f"harvest stored in {writer.path}\n{next_commands(writer.path)}")
        elif writer.folder is not None:
            print(f"this worker is done; once all are: lit-attr merge {as_argument(writer.folder)}")


def _listed(setting: Any) -> list[Any]:  # noqa: ANN401 - of the trainer
    """A setting that is one object, some, or none."""
    if setting is None:
        return []
    return setting if isinstance(setting, list) else [setting]


def run_with_dataset(run: str | Path, decomposition: object) -> str | Path | None:
    """The run whose dataset is harvested where no tokens are given: none, if a language model is decomposed.

    Args:
        run: Run or language model of the `AttributionHarvester`.
        decomposition: Rule that decomposes a language model; None for a run that was trained.
    """
    return run if decomposition is None else None


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    """Whether something that Lightning logs is about the user's harvest."""
    return not record.getMessage().startswith(("GPU available:", "TPU available:", "HPU available:", "💡 Tip:"))


@contextmanager
def own_errors() -> Iterator[None]:
    """Let the package's own errors out of those that jsonargparse wraps them in where a class is instantiated."""
    try:
        yield
    except ValueError as error:
        inner: BaseException | None = error
        while inner is not None and not isinstance(inner, LitAttrError):
            inner = inner.__cause__
        raise inner or error from error.__cause__


def build_cli(arguments: Sequence[str], *, run: bool = True) -> PredictCLI:
    """Parse arguments, instantiate model, data and trainer, and harvest.

    Args:
        arguments: Words of the command line behind `predict`.
        run: Whether to harvest, or to stop before.
    """
    with warnings.catch_warnings():
        # The arguments are those of the process less the command's name, which Lightning would parse as well.
        warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended")
        # Whoever harvests without srun in a job, or on a login node, has a reason.
        warnings.filterwarnings("ignore", "The `srun` command is available on your system but is not used")
        # Lightning's own use of torch 2.13; nothing that a user could change.
        warnings.filterwarnings("ignore", ".*treespec, LeafSpec", FutureWarning)
        return PredictCLI(
            AttributionHarvester,
            TokenDataModule,
            save_config_callback=None,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            trainer_defaults={
                "logger": False,
                "enable_checkpointing": False,
                "enable_model_summary": False,
                "inference_mode": False,
            },
            parser_kwargs={"prog": "lit-attr"},
            args=[*(["predict"] if run else []), *arguments],
            run=run,
        )


def run(arguments: Sequence[str]) -> None:
    """Harvest.

    Args:
        arguments: Words of the command line behind `predict`.

    Raises:
        LitAttrError: If anything the user gave makes no sense.
    """
    if os.getcwd() not in sys.path:  # for the user's own classes; last, so that nothing else is hidden by it
        sys.path.append(os.getcwd())
    log = logging.getLogger("lit_attr")
    log.setLevel(logging.INFO)
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("lit_attr: %(message)s"))
        log.addHandler(handler)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)
    try:
        with leaving_groups(), own_errors():
            build_cli(arguments)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"a configuration is no text file: {error}") from error
