import re

import transformers
import yaml

from lit_attr.decomposition.untrained import Neurons
from lit_attr.decomposition.untrained.run import load_untrained
from lit_attr.topology.paths import PathTable
from tests.docs.models import PAGE, TABLE, table


def test_the_table_of_models_is_what_the_package_does():
    (written,) = TABLE.findall(PAGE.read_text())
    assert written == table(), "to write it anew: python -m tests.docs.models"


def test_the_table_of_another_class(tmp_path):
    given = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])["model"]["path_table"]
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "head_dim": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    ends = {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}
    transformers.GemmaForCausalLM(transformers.GemmaConfig(**sizes, **heads, **ends)).save_pretrained(tmp_path)
    model = load_untrained(tmp_path, Neurons(), PathTable(**given)).model
    assert model.n_components == {"0.glu.gate": 12, "0.glu.up": 12, "0.glu.down": 12}
