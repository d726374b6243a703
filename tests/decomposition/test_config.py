import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.load import load_run
from lit_attr.decomposition.targets import build_target
from lit_attr.decomposition.yaml_file import read_yaml
from lit_attr.errors import RunFormatError, UnsupportedModelError
from tests.toys import ARCHITECTURES, MODEL_OPTIONS, run_options, write_run

KNOWN = "LlamaSimpleMLP, LlamaSimple, GPT2Simple"
MODULE_INFO = "module_info must be a list of {module_pattern: text, C: positive integer}, found "
SIGMOIDS = "['normal', 'hard', 'leaky_hard', 'upper_leaky_hard', 'swish_hard']"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained_model_class": None}, "pretrained_model_class must be a dotted class path, found None"),
        ({"pretrained_model_class": 3}, "pretrained_model_class must be a dotted class path, found 3"),
        ({"pretrained_model_name": 3}, "pretrained_model_name must be text or null, found 3"),
        ({"pretrained_model_path": ["a"]}, "pretrained_model_path must be text or null, found ['a']"),
        ({"module_info": None}, MODULE_INFO + "None"),
        ({"module_info": []}, MODULE_INFO + "[]"),
        ({"module_info": {"module_pattern": "a", "C": 1}}, MODULE_INFO + "{'C': 1, 'module_pattern': 'a'}"),
        ({"module_info": ["h.*"]}, MODULE_INFO + "['h.*']"),
        ({"module_info": [{"C": 1}]}, MODULE_INFO + "[{'C': 1}]"),
        ({"module_info": [{"module_pattern": "a"}]}, MODULE_INFO + "[{'module_pattern': 'a'}]"),
        ({"module_info": [{"module_pattern": "a", "C": 0}]}, MODULE_INFO + "[{'C': 0, 'module_pattern': 'a'}]"),
        ({"module_info": [{"module_pattern": "a", "C": 1.5}]}, MODULE_INFO + "[{'C': 1.5, 'module_pattern': 'a'}]"),
        ({"ci_config": None}, "ci_config must be a mapping, found None"),
        ({"ci_config": "mlp"}, "ci_config must be a mapping, found 'mlp'"),
        ({"sigmoid_type": "soft"}, f"sigmoid_type must be one of {SIGMOIDS}, found 'soft'"),
        ({"sampling": "bernoulli"}, "sampling must be one of ['continuous', 'binomial'], found 'bernoulli'"),
    ],
)
def test_entry_that_is_not_understood_is_refused_with_file_entry_and_value(changes: dict[str, Any], message: str):
    with pytest.raises(RunFormatError) as caught:
        RunConfig.from_options(run_options(**changes), "some.yaml")
    assert str(caught.value) == f"some.yaml: {message}"


def test_identity_matrices_are_refused():
    info = [{"module_pattern": "h.*.attn.q_proj", "C": 3}]
    with pytest.raises(UnsupportedModelError) as caught:
        RunConfig.from_options(run_options(identity_module_info=info), "some.yaml")
    assert str(caught.value) == (
        f"some.yaml: the run decomposes inserted identity matrices (identity_module_info: {info}), "
        "which have no canonical address in the attribution graph"
    )


def test_absent_entries_have_the_defaults_of_the_specification():
    options = run_options()
    for name in ("sigmoid_type", "sampling", "pretrained_model_name"):
        del options[name]
    config = RunConfig.from_options(options, "some.yaml")
    assert (config.sigmoid, config.sampling, config.pretrained_name) == ("leaky_hard", "continuous", None)


def test_entries_that_loading_does_not_need_are_ignored():
    changes = {"seed": 4, "an_entry_of_tomorrow": {"a": 1}, "identity_module_info": None}
    plain, more = (RunConfig.from_options(run_options(**c), "some.yaml") for c in ({}, changes))
    assert plain == more


@pytest.mark.parametrize("name", ["final_config.yaml", "model_config.yaml"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "cannot read {}: while parsing a flow sequence"),
        (b"a: \xff", "cannot read {}: 'utf-8' codec can't decode byte 0xff"),
        (b"a: !!python/object:os.system {}", "cannot read {}: could not determine a constructor"),
        (b"- a\n- b\n", "{}: expected a mapping, found list"),
        (b"", "{}: expected a mapping, found NoneType"),
    ],
)
def test_malformed_file_of_a_run_is_refused_with_its_path(tmp_path: Path, name: str, content: bytes, message: str):
    run = write_run(tmp_path / "run")
    (run / name).write_bytes(content)
    with pytest.raises(RunFormatError, match=f"^{re.escape(message.format(run / name))}"):
        load_run(run)


@pytest.mark.parametrize(
    "content",
    [
        "a: " + "[" * 100_000,
        "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]" for n in range(1, 12))]),
        "\n".join(
            ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12))]
        ),
        "a: &a [*a]",
        "a: " + "9" * 20_000,
    ],
    ids=["nested", "aliases", "merged aliases", "circle", "digits"],
)
def test_yaml_that_is_more_than_any_configuration(tmp_path: Path, content: str):
    (tmp_path / "some.yaml").write_text(content)
    with pytest.raises(RunFormatError, match=r"some\.yaml: expected a run's configuration, of at most 20,000 entries"):
        read_yaml(tmp_path / "some.yaml")


def test_missing_file_is_refused_with_its_path(tmp_path: Path):
    path = tmp_path / "some.yaml"
    with pytest.raises(RunFormatError, match=f"^cannot read {re.escape(str(path))}: .*No such file"):
        read_yaml(path)


@pytest.mark.parametrize("class_path", ["spd.pretrain.models.llama.Llama", "GPT2"])
def test_unknown_architecture_is_refused_with_the_known_ones(tmp_path: Path, class_path: str):
    run = write_run(tmp_path / "run")
    options = run_options(pretrained_model_class=class_path)
    (run / "final_config.yaml").write_text(yaml.safe_dump(options))
    name = class_path.rpartition(".")[2]
    with pytest.raises(UnsupportedModelError, match=f"unknown target model class '{name}': .* known are {KNOWN}, "):
        load_run(run)


def test_target_of_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(UnsupportedModelError, match=f"^unknown target model class 'Llama'; known are: {KNOWN}$"):
        build_target("Llama", {})


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("LlamaSimple", {"dropout": 0.1, "abc": 1}, "unknown entries ['abc', 'dropout'] for LlamaSimple; known are ["),
        ("GPT2Simple", {"n_ctx": 8}, "unknown entries ['n_ctx'] for GPT2Simple; known are ['block_size', "),
        ("LlamaSimple", {"n_embd": "8"}, "n_embd must be of type int, found '8'"),
        ("LlamaSimple", {"n_embd": 8.0}, "n_embd must be of type int, found 8.0"),
        ("GPT2Simple", {"n_layer": None}, "n_layer must be of type int, found None"),
        ("LlamaSimpleMLP", {"mlp_bias": 1}, "mlp_bias must be of type bool, found 1"),
        ("LlamaSimpleMLP", {"rms_norm_eps": "1e-6"}, "rms_norm_eps must be of type float, found '1e-6'"),
    ],
)
def test_entry_of_the_target_that_is_not_understood_is_refused(
    architecture: str, options: dict[str, Any], message: str
):
    with pytest.raises(RunFormatError, match=f"^model_config.yaml: {re.escape(message)}"):
        build_target(architecture, MODEL_OPTIONS[architecture] | options)


def test_contradictory_model_type_is_refused():
    message = "model_config.yaml says model_type 'GPT2Simple', the run's configuration 'LlamaSimple'"
    with pytest.raises(RunFormatError, match=f"^{message}$"):
        build_target("LlamaSimple", MODEL_OPTIONS["LlamaSimple"] | {"model_type": "GPT2Simple"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_embd": 10}, "n_head (4) must divide n_embd (10), and n_key_value_heads (2) n_head"),
        ({"n_key_value_heads": 3}, "n_head (4) must divide n_embd (8), and n_key_value_heads (3) n_head"),
    ],
)
def test_head_counts_that_do_not_divide_are_refused(options: dict[str, int], message: str):
    with pytest.raises(RunFormatError, match=f"^{re.escape(message)}$"):
        build_target("LlamaSimple", MODEL_OPTIONS["LlamaSimple"] | options)


def test_whole_number_stands_for_a_float_entry():
    assert build_target("LlamaSimple", MODEL_OPTIONS["LlamaSimple"] | {"rotary_base": 300}).config.rotary_base == 300


@pytest.mark.parametrize(("architecture", "width"), [("LlamaSimpleMLP", 3072), ("LlamaSimple", 2048)])
def test_absent_width_has_the_default_of_the_architecture(architecture: str, width: int):
    options = {name: value for name, value in MODEL_OPTIONS[architecture].items() if name != "n_intermediate"}
    assert build_target(architecture, options).config.n_intermediate == width


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_absent_model_type_is_that_of_the_run(architecture: str):
    assert type(build_target(architecture, MODEL_OPTIONS[architecture])).__name__ == architecture
