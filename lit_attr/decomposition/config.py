"""A decomposition run's `final_config.yaml`: the entries that loading needs, old spellings included."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lit_attr.decomposition.ci.sigmoid import SIGMOIDS
from lit_attr.decomposition.run_options import IS_REBUILT, read_run_options
from lit_attr.decomposition.sizes import MAX_WIDTH
from lit_attr.errors import RunFormatError, UnsupportedModelError, shown

_SAMPLINGS = ("continuous", "binomial")
_PAIRS = "a list of pairs of paths, or null"
_OLD_CI_KEYS = {"ci_fn_type": "vector_mlp", "ci_fn_hidden_dims": [8], "use_global_ci": False}


@dataclass(frozen=True)
class RunConfig:
    """What a run's configuration says about the model.

    Attributes:
        architecture: Class name of the target model.
        pretrained_name: Reference, folder or name that the target model came from; None if the configuration has none.
        module_patterns: `fnmatch` patterns of the decomposed matrices with their numbers of components, in order.
        ci: Options of the causal-importance function.
        sigmoid: Name of the sigmoid, a key of `SIGMOIDS`.
        sampling: `continuous`, or `binomial` for random causal importances.
        tied_weights: Pairs of paths of decomposed matrices; the second's components are the first's, transposed.
        is_rebuilt: Whether the target has the shape and weights of a model of `transformers` of that name.
    """

    architecture: str
    pretrained_name: str | None
    module_patterns: tuple[tuple[str, int], ...]
    ci: Mapping[str, Any]
    sigmoid: str
    sampling: Literal["continuous", "binomial"]
    tied_weights: tuple[tuple[str, str], ...] = ()
    is_rebuilt: bool = False

    @classmethod
    def load(cls, path: Path) -> "RunConfig":
        """Read a run's configuration; entries that loading does not need are ignored.

        Raises:
            RunFormatError: If an entry is missing or not understood.
            UnsupportedModelError: If the run has inserted identity matrices.
        """
        return cls.from_options(read_run_options(path), str(path))

    @classmethod
    def from_options(cls, options: Mapping[str, Any], where: str) -> "RunConfig":
        """Understand the entries of a `final_config.yaml`; those that loading does not need are ignored.

        Args:
            options: The entries.
            where: Name of the file, for messages.

        Raises:
            RunFormatError: If an entry is missing or not understood.
            UnsupportedModelError: If the run has inserted identity matrices.
        """
        options = _migrate(options)

        def entry(name: str, default: object, allowed: Callable[[Any], bool], expected: str) -> Any:  # noqa: ANN401
            value = options.get(name, default)
            if not allowed(value):
                raise RunFormatError(f"{where}: {name} must be {expected}, found {shown(value)}")
            return value

        if options.get("identity_module_info"):
            raise UnsupportedModelError(
                f"{where}: the run decomposes inserted identity matrices (identity_module_info: "
                f"{options['identity_module_info']}), which have no canonical address in the attribution graph"
            )
        class_path = entry("pretrained_model_class", None, lambda v: isinstance(v, str), "a dotted class path")
        modules = entry("module_info", None, _is_module_info, "a list of {module_pattern: text, C: positive integer}")
        return cls(
            architecture=class_path.rpartition(".")[2],
            pretrained_name=entry("pretrained_model_name", None, _is_text_or_none, "text or null")
            or entry("pretrained_model_path", None, _is_text_or_none, "text or null"),
            module_patterns=tuple((info["module_pattern"], info["C"]) for info in modules),
            ci=entry("ci_config", None, lambda v: isinstance(v, Mapping), "a mapping"),
            sigmoid=entry(
                "sigmoid_type", "leaky_hard", lambda v: isinstance(v, str) and v in SIGMOIDS, f"one of {list(SIGMOIDS)}"
            ),
            sampling=entry("sampling", "continuous", lambda v: v in _SAMPLINGS, f"one of {list(_SAMPLINGS)}"),
            is_rebuilt=bool(options.get(IS_REBUILT)),
            tied_weights=tuple(map(tuple, entry("tied_weights", None, _is_pairs, _PAIRS) or ())),
        )


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_pairs(value: object) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(isinstance(pair, list | tuple) and len(pair) == 2 and set(map(type, pair)) == {str} for pair in value)
    )


def _is_module_info(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(info, Mapping)
            and isinstance(info.get("module_pattern"), str)
            and isinstance(info.get("C"), int)
            and not isinstance(info["C"], bool)
            and 0 < info["C"] <= MAX_WIDTH
            for info in value
        )
    )


def _migrate(options: Mapping[str, Any]) -> dict[str, Any]:
    """The entries with old spellings that matter for loading rewritten in today's form."""
    options = dict(options)
    if "target_module_patterns" in options:
        count = options.pop("C", None)
        for old, new in (
            ("target_module_patterns", "module_info"),
            ("identity_module_patterns", "identity_module_info"),
        ):
            patterns = options.pop(old, None)
            options[new] = [{"module_pattern": p, "C": count} for p in patterns] if patterns else None
    if _OLD_CI_KEYS.keys() & options.keys():
        fn_type, hidden, use_global = (options.pop(key, default) for key, default in _OLD_CI_KEYS.items())
        if use_global and not fn_type.startswith("global_"):
            fn_type = "global_shared_mlp"
        mode = "global" if fn_type.startswith("global_") else "layerwise"
        options["ci_config"] = {"mode": mode, "fn_type": fn_type, "hidden_dims": hidden}
    if "pretrained_model_name_hf" in options:
        options["pretrained_model_name"] = options.pop("pretrained_model_name_hf")
    return options
