"""Where the tokenizer of a result is, as far as its provenance leads to one; nothing is downloaded."""

from collections.abc import Iterator
from pathlib import Path

from lit_attr.assets import ASSETS, DEMO
from lit_attr.decomposition.reference import RunReference, run_folders, target_folders
from lit_attr.decomposition.run_files import MODEL_CONFIG, RUN_CONFIGS, TOKENIZER
from lit_attr.files.roots import could_be_path, user_path
from lit_attr.query.tokenizer_formats import SENTENCEPIECE, VOCABULARY, can_read, tokenizer_in
from lit_attr.storage.provenance import Provenance


def tokenizer_places(provenance: Provenance) -> Iterator[Path]:
    """Where a tokenizer may be, the likeliest places first.

    A folder without a `tokenizer.json` may have a tokenizer in another form that can be read here.

    Args:
        provenance: What is recorded of a result.
    """
    for place in _places(provenance):
        yield place
        other = tokenizer_in(place.parent) if place.name == TOKENIZER else None
        if other is not None and other != place and can_read(other):
            yield other


def _places(provenance: Provenance) -> Iterator[Path]:
    """Where a `tokenizer.json` may be."""
    yield from _named(provenance.tokenizer)
    run = provenance.run_reference
    if not run:
        return
    if run == DEMO or Path(run).is_relative_to(ASSETS):
        yield ASSETS / TOKENIZER
    elif provenance.decomposition:  # of a language model by itself, rather than a run
        yield from _named(run)
    else:
        yield from _of_run(run)


def _named(name: str | None) -> Iterator[Path]:
    """Places of a tokenizer, or of a model with one, that is named by a path or its name on the Hugging Face hub."""
    if not name or not could_be_path(name):
        return
    path = user_path(name)
    yield from (path, path / TOKENIZER)
    if not path.is_absolute():
        try:
            from huggingface_hub import try_to_load_from_cache
        except ImportError:
            return
        for file in (TOKENIZER, VOCABULARY, SENTENCEPIECE):
            try:
                cached = try_to_load_from_cache(name, file) if name.count("/") <= 1 else None
            except ValueError:  # a name that nothing on the hub can have
                return
            if isinstance(cached, str):
                yield Path(cached).with_name(TOKENIZER)
                return


def _of_run(run: str) -> Iterator[Path]:
    reference = RunReference.match(run)
    if reference is None:
        folder = user_path(run).absolute()
        folders = [folder.parent if folder.is_file() else folder]
    else:
        folders = run_folders(reference)
    for folder in folders:
        yield folder / TOKENIZER
        config = next((folder / name for name in RUN_CONFIGS if (folder / name).is_file()), None)
        if config is not None:
            yield from _of_target(config)


def _of_target(config: Path) -> Iterator[Path]:
    """Places of the tokenizer of a run's target model."""
    from lit_attr.decomposition.run_options import read_run_options  # reading a configuration is not always needed

    options, folder = read_run_options(config), config.parent
    name = options.get("pretrained_model_name") or options.get("pretrained_model_path")
    name = name if isinstance(name, str) and could_be_path(name) else None
    reference = RunReference.match(name) if name else None
    if reference is not None:
        yield from (place / TOKENIZER for place in target_folders(reference, folder))
    elif name:
        places = [folder / name, *(folder / name).parents[:2]]
        yield from (place / TOKENIZER for place in places if (place / MODEL_CONFIG).is_file())
        yield from _named(name)
    if isinstance(options.get("tokenizer_name"), str):
        yield from _named(options["tokenizer_name"])
