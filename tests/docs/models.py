"""The table of docs/models.md, made from tiny models of every class: `python -m tests.docs.models` writes it."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import choose_engines
from lit_attr.decomposition.model import DecomposedModel
from lit_attr.topology.paths import PATH_TABLES
from tests.huggingface_toys import VARIANTS, huggingface_model
from tests.toys import ARCHITECTURES, toy_model

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
TABLE = re.compile(r"(?<=<!-- table -->\n)(.*?)(?=<!-- end of table -->)", re.DOTALL)
PARTS = {
    "every matrix (SPD runs, `Svd`)": ["*"],
    "only MLPs (`Neurons`)": ["*.mlp.*", "*.glu.*"],
    "only attention": ["*.attn.*", "*.attn_fused.*"],
}
_LABELS = {"closed_form": "closed form", "forward_mode": "forward mode", "autograd": "gradients"}


def table() -> str:
    """The table, as Markdown."""
    header = ["model class", "matrices of a block", *PARTS]
    rows = [header, ["---"] * len(header), *_rows()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows() -> Iterator[list[str]]:
    variants = {architecture: name for name, (architecture, _) in reversed(VARIANTS.items())}
    for architecture, paths in PATH_TABLES.items():
        cells = []
        for patterns in PARTS.values():
            if architecture in ARCHITECTURES:
                chosen = [
                    path.replace("{block}", "*")
                    for matrix, path in paths.blocks.items()
                    if any(fnmatchcase(f"0.{matrix}", pattern) for pattern in patterns)
                ]
                model = toy_model(architecture, module_info=[{"module_pattern": path, "C": 3} for path in chosen])
            else:
                model = huggingface_model(variants[architecture], patterns=patterns)
            cells.append(_engines(model))
        yield [f"`{architecture}`", ", ".join(f"`{matrix}`" for matrix in paths.blocks), *cells]


def _engines(model: DecomposedModel) -> str:
    blocks = choose_engines("auto", model, trace_topology(model)).blocks
    if len(blocks) == 1:
        return _LABELS[next(iter(blocks))]
    total = sum(map(len, blocks.values()))
    return ", ".join(f"{_LABELS[name]} for {len(found)} of {total}" for name, found in blocks.items())


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text()))
