"""Where the tokenizer of a result is sought."""

from pathlib import Path

from lit_attr.query.tokenizer_file import tokenizer_places
from lit_attr.storage.provenance import Provenance
from tests.toys import write_run


def test_a_linked_run_has_the_tokenizer_of_its_target_beside_the_real_folder(tmp_path: Path):
    run = write_run(tmp_path / "tree" / "runs" / "run", pretrained_model_name="wandb:goodfire/spd/runs/t-9d2b8f02")
    link = tmp_path / "links" / "mine"
    link.parent.mkdir()
    link.symlink_to(run, target_is_directory=True)
    places = list(tokenizer_places(Provenance({"run_reference": str(link)})))
    assert places[0] == link / "tokenizer.json"
    assert tmp_path / "tree" / "pretrain_cache" / "spd-t-9d2b8f02" / "tokenizer.json" in places
