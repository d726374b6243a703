"""Where the cache tree keeps decomposition runs and target models; goodfire-ai/spd keeps them in the same places."""

from pathlib import Path

from lit_attr.decomposition.reference import RunReference
from lit_attr.files.roots import output_root


def run_folders(reference: RunReference) -> list[Path]:
    """The folders in which a decomposition run may be: downloads go into the first, training writes the second."""
    root = output_root()
    return [root / "runs" / reference.folder, root / "spd" / reference.run_id]


def target_folders(reference: RunReference, run_folder: Path) -> list[Path]:
    """The folders in which the target model of a run may be, the likeliest first; downloaded ones go into the last.

    Args:
        reference: The target model's pretraining run.
        run_folder: The decomposition run's folder, or a link to it: `<root>/runs/<run>` or `<root>/spd/<run>`. Its own
            root comes before the configured one.
    """
    own_roots = dict.fromkeys((*run_folder.parents[:2], *run_folder.resolve().parents[:2]))
    return [root / "pretrain_cache" / reference.folder for root in (*own_roots, output_root())]
