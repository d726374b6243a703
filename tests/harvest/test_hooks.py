"""The order in which Lightning calls what the package defines, and its table."""

import inspect

import lightning.pytorch as pl
import pytest

import lit_attr.harvest
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.progress import HarvestProgress
from lit_attr.harvest.writer import StorageWriter
from tests.harvest.runs import QUIET, small_run
from tests.toys import write_tokens

BASES = {
    TokenDataModule: pl.LightningDataModule,
    AttributionHarvester: pl.LightningModule,
    StorageWriter: pl.Callback,
    HarvestProgress: pl.Callback,
}
STEP = ("predict_step", "on_predict_batch_end")


def table():
    """Hook and object of each line."""
    lines = [line.split("|")[1:3] for line in (lit_attr.harvest.__doc__ or "").splitlines() if line.startswith("| ")]
    return [(hook.strip(), owner.strip()) for hook, owner in lines[1:]]


@pytest.fixture
def called(monkeypatch):
    """Every hook that the package defines and Lightning calls, as it is called."""
    called = []

    def record(cls, name, method):
        def recorded(*args, **kwargs):
            called.append((name, cls.__name__))
            return method(*args, **kwargs)

        recorded.__signature__ = inspect.signature(method)
        monkeypatch.setattr(cls, name, recorded)

    for cls, base in BASES.items():
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and not name.startswith("_") and hasattr(base, name):
                record(cls, name, method)
    return called


def test_the_table_is_the_order_of_calls(called, tmp_path):
    run, tokens = small_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", n_rows=6)
    callbacks = [HarvestProgress(), StorageWriter(tmp_path)]
    trainer = pl.Trainer(**{**QUIET, "enable_progress_bar": True}, callbacks=callbacks)
    trainer.predict(AttributionHarvester(run), datamodule=TokenDataModule(tokens, 2))
    step = [line for line in table() if line[0] in STEP]
    before, after = table()[: table().index(step[0])], table()[table().index(step[-1]) + 1 :]
    assert called == [*before, *step * 3, *after]


def test_an_exception_takes_the_place_of_the_end(called, tmp_path):
    class Bad(pl.Callback):
        def on_predict_batch_start(self, *_):
            raise KeyError

    run, tokens = small_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", n_rows=6)
    trainer = pl.Trainer(**QUIET, callbacks=[Bad(), StorageWriter(tmp_path)])
    with pytest.raises(KeyError):
        trainer.predict(AttributionHarvester(run), datamodule=TokenDataModule(tokens, 2))
    assert called[-2:] == [("on_predict_epoch_start", "StorageWriter"), ("on_exception", "StorageWriter")]


@pytest.mark.parametrize("cls", BASES)
def test_attributes_are_born_in_the_constructor(cls, called, tmp_path):
    """No hook adds one, and nobody else does; Lightning's own aside."""
    objects = [HarvestProgress(), StorageWriter(tmp_path / "out")]
    run, tokens = small_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", n_rows=6)
    objects += [AttributionHarvester(run), TokenDataModule(tokens, 2)]
    (mine,) = (thing for thing in objects if type(thing) is cls)
    before = set(vars(mine))
    trainer = pl.Trainer(**{**QUIET, "enable_progress_bar": True}, callbacks=objects[:2])
    trainer.predict(objects[2], datamodule=objects[3])
    lightnings = {"log", "log_dict"}  # put on callbacks by the trainer
    assert set(vars(mine)) - before - lightnings <= {"spec", "_seed"}, "cached properties"
