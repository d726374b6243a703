"""`lit-attr predict` and `submit` of language models that are decomposed without training, as documented."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lit_attr.cli.configuration import resolve_harvest
from lit_attr.cli.main import main
from lit_attr.errors import ConfigurationError, RunNotFoundError, UnsupportedModelError
from lit_attr.query.attribution_repo import AttributionRepo
from lit_attr.storage.result_folders import run_folder
from tests.huggingface_toys import huggingface_target
from tests.toys import write_tokens

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "decompositions.md").read_text()
EXAMPLE = re.search(r"<!-- test: own decomposition -->\n```python\n(.*?)```", DOCS, re.DOTALL)[1]
COMMANDS = re.findall(r"```bash\n(lit-attr predict .*?)```", DOCS, re.DOTALL)
CPU = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a model, tokens, and the class of the documentation."""
    huggingface_target("gpt2", torch.float32).save_pretrained(tmp_path / "gpt2")
    write_tokens(tmp_path / "TOKENS.npy", 3)
    (tmp_path / "mine.py").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine", None)


def provenance(run_id):
    """Of the one result whose id begins so."""
    (folder,) = run_folder(run_id).parent.glob(f"{run_id}*")
    return AttributionRepo.open(folder.name).get_attributions().provenance


def test_the_example_is_short():
    assert len(EXAMPLE.splitlines()) <= 40


@pytest.mark.usefixtures("folder")
def test_the_commands_of_the_documentation():
    """On a model of two blocks."""
    by_svd, own = (shlex.split(command.replace("\\\n", "")) for command in COMMANDS)
    by_svd = [argument.replace("8.attn", "0.attn").replace("9.*", "1.*") for argument in by_svd]
    for command in (by_svd, own):
        assert main([*command[1:], *CPU]) == 0
    found = provenance("gpt2-svd-0.01")
    assert list(found["n_alive"]) == [
        "0.attn_fused.o",
        *(f"1.{matrix}" for matrix in ("attn_fused.qkv", "attn_fused.o", "mlp.up", "mlp.down")),
    ]
    found = provenance("gpt2-strongest")
    assert found["decomposition"]["class_path"] == "mine.Strongest"
    assert found["decomposition"]["init_args"] == {"k": 8, "matrices": None}


def test_the_example_takes_the_strongest(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    from mine import Strongest

    activations, norms = torch.tensor([[1.0, -3.0, 2.0, 0.5]]), torch.tensor([1.0, 1.0, 1.0, 9.0])
    assert Strongest(2).importance(activations, norms).tolist() == [[0, 1, 0, 1]]
    assert Strongest().factors("0.attn.q", torch.eye(3)) is None


def test_yaml(folder):
    table = yaml.safe_load(re.search(r"```yaml\n(.*?)```", DOCS, re.DOTALL)[1])["model"]["path_table"]
    table |= {
        "architecture": "GPT2LMHeadModel",
        "embed": "transformer.wte",
        "blocks": {"mlp.up": "transformer.h.{block}.mlp.c_fc"},
    }
    decomposition = {"class_path": "mine.Strongest", "init_args": {"k": 2}}
    config = {"model": {"run": "gpt2", "decomposition": decomposition, "path_table": table}}
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["predict", "--config", "c.yaml", "--data.tokens", "TOKENS.npy", *CPU]) == 0
    found = provenance("gpt2-strongest")
    assert list(found["n_alive"]) == ["0.mlp.up", "1.mlp.up"]
    assert found["configuration"]["model"]["path_table"] == table


@pytest.mark.usefixtures("folder")
def test_texts_and_the_models_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["<|endoftext|>", *"abcdefghij"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "gpt2" / "tokenizer.json"))
    (folder / "texts.txt").write_text("a b c d\ne f g h\n" * 9)
    dataset = {"dataset_name": "texts.txt", "column_name": "text", "tokenizer": "gpt2", "max_seq_len": "6"}
    options = [item for key, value in dataset.items() for item in (f"--data.dataset.{key}", value)]
    assert main(["predict", "--model.run", "gpt2", "--model.decomposition", "Neurons", *options, *CPU]) == 0
    assert provenance("gpt2-neurons-0.01")["data_shape"][1] == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--model.decomposition", "Svd"],
            "which a decomposition without training has not: give --data.tokens FILE.npy",
        ),
        (["--model.decomposition", "Svd", "--model.decomposition.threshold", "1"], "Svd: threshold must be at least 0"),
        (
            ["--model.decomposition", "Svd", "--data.tokens", "TOKENS.npy", "--model.run", "./none"],
            "no model at './none'",
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_mistakes_end_in_one_line(options, message, capfd):
    assert main(["predict", "--model.run", "gpt2", *options, *CPU]) == 2
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("lit-attr: error:"))
    assert message in line


@pytest.mark.parametrize("name", ["svd", "Nothing"])
@pytest.mark.usefixtures("folder")
def test_unknown_names(name, capfd):
    with pytest.raises(SystemExit) as end:
        main(["predict", "--model.run", "gpt2", "--model.decomposition", name])
    assert end.value.code == 2
    expected = (
        f"model.decomposition: no class '{name}': expected Svd, Neurons, or the dotted path of a class of your own"
    )
    assert expected in capfd.readouterr().err


@pytest.mark.usefixtures("folder")
def test_submit_knows_where_results_go():
    options = ["--model.run", "gpt2", "--model.decomposition", "Svd", "--model.decomposition.threshold", "0.5"]
    harvest = resolve_harvest([*options, "--data.tokens", "TOKENS.npy", *CPU])
    with pytest.raises(ConfigurationError, match=r"^Svd: threshold must be at least 0 and below 1"):
        resolve_harvest([*options, "--model.decomposition.threshold", "1", *CPU])
    assert harvest.run_id == harvest.results.name == "gpt2-svd-0.5"
    assert yaml.safe_load(harvest.configuration)["model"]["decomposition"]["init_args"]["threshold"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["OPTForCausalLM"]}, "unknown target model class 'OPTForCausalLM': no table says where"),
        (None, "no model at '.*gpt2': expected a local folder"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_before_jobs_are_submitted(folder, monkeypatch, change, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = folder / "gpt2" / "config.json"
    if change is None:
        config.unlink()
    else:
        config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    arguments = ["--config", str(ROOT / "configs" / "svd.yaml"), "--model.run", str(folder / "gpt2")]
    with pytest.raises((UnsupportedModelError, RunNotFoundError), match=message):
        resolve_harvest([*arguments, "--data.tokens", "TOKENS.npy", *CPU])
