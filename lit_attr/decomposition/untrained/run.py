"""Loading a Hugging Face model together with a decomposition that needs no training."""

import hashlib
import json
import os

from lit_attr.decomposition.checkpoint import weights_digest
from lit_attr.decomposition.huggingface import load_pretrained, without_weights
from lit_attr.decomposition.load import Run
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.decomposition.sizes import without_numbers
from lit_attr.decomposition.untrained.decompose import decompose
from lit_attr.decomposition.untrained.neurons import Neurons
from lit_attr.decomposition.untrained.rule import Decomposition
from lit_attr.decomposition.untrained.svd import Svd
from lit_attr.decomposition.widening import keep_bfloat16_
from lit_attr.errors import LitAttrError, ShapesUnknownError
from lit_attr.files.roots import user_path
from lit_attr.topology.paths import PathTable

_DIGEST_CHARACTERS = 6


def load_untrained(
    reference: str | os.PathLike[str],
    decomposition: Decomposition,
    table: PathTable | None = None,
) -> Run:
    """Load a language model, and decompose it by a rule.

    Args:
        reference: A local folder, or the model's name on the Hugging Face hub.
        decomposition: The rule.
        table: Path table of the model; None for the package's own table of its class.

    Raises:
        RunNotFoundError: If there is no such model.
        RunFormatError: If its weights are missing or damaged.
        UnsupportedModelError: If its class is not known, or keeps its matrices elsewhere.
        ConfigurationError: If the decomposition does not fit the model.
    """
    target, table = load_pretrained(str(reference), table)
    model = decompose(target, table, decomposition)
    # The digest is of what the factors are computed from, and not of the factors: machines round them differently.
    known = json.dumps([weights_digest(target.state_dict()), decomposition.description], sort_keys=True)
    keep_bfloat16_(model)
    return Run(
        untrained_run_id(reference, decomposition),
        str(reference),
        model,
        hashlib.sha256(known.encode()).hexdigest(),
        decomposition.description,
    )


def untrained_without_numbers(
    reference: str | os.PathLike[str], decomposition: Decomposition, table: PathTable | None = None
) -> DecomposedModel:
    """A language model, decomposed by a rule, without numbers: names, shapes and dtypes, from its configuration alone.

    Args:
        reference: A local folder, or the model's name on the Hugging Face hub; no weights are needed.
        decomposition: The rule.
        table: Path table of the model; None for the package's own table of its class.

    Raises:
        RunNotFoundError: If there is no such model.
        RunFormatError: If its configuration is damaged.
        UnsupportedModelError: If its class is not known, or keeps its matrices elsewhere.
        ConfigurationError: If the decomposition does not fit the model.
        ShapesUnknownError: If a rule that is not the package's own fails without numbers.
    """
    target, known = without_weights(str(reference), table)
    try:
        return without_numbers(lambda: decompose(target, known, decomposition), str(reference))
    except LitAttrError as error:
        if isinstance(decomposition, Svd | Neurons):
            raise
        raise ShapesUnknownError(f"without weights {error}") from error


def untrained_run_id(reference: str | os.PathLike[str], decomposition: Decomposition) -> str:
    """The id under which results are stored: model, decomposition and threshold, such as `gpt2-svd-0.01`.

    Other settings that are given add a digest of all settings, behind the threshold if there is one.

    Args:
        reference: A local folder, whose name becomes part of the id, or the model's whole name on the hub.
        decomposition: The rule.
    """
    path = user_path(reference)
    name = path.resolve().name if path.exists() else str(reference).replace("/", "-")
    settings = decomposition.settings
    parts = [name, type(decomposition).__name__.lower()]
    if "threshold" in settings:
        parts.append(f"{decomposition.threshold:g}")
    if any(value is not None for setting, value in settings.items() if setting != "threshold"):
        known = json.dumps(decomposition.description["init_args"], sort_keys=True)
        parts.append(hashlib.sha256(known.encode()).hexdigest()[:_DIGEST_CHARACTERS])
    return "-".join(parts)
