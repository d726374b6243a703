"""Exports of the compact form of a result are those of the dense one."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_attr.export.graph import export_graphml
from lit_attr.export.table import export_parquet
from lit_attr.export.tensors import named_tensors
from lit_attr.topology.words import METRICS, PER
from tests.query.forms import both_forms, sparse_storages

few = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@few
@given(sparse_storages(), st.sampled_from(PER), st.integers(1, 9))
def test_tables_and_graphs(storage, per, k):
    with both_forms(storage) as explorers, TemporaryDirectory() as folder:
        for metric in METRICS:
            one, other = (
                export_parquet(explorer, Path(folder) / f"{n}.{metric}", k=k, per=per, metric=metric)
                for n, explorer in enumerate(explorers)
            )
            tables = parquet.read_table(one), parquet.read_table(other)
            metadata = [dict(table.schema.metadata) for table in tables]
            assert [about.pop(b"form") for about in metadata] == [b"dense", b"compact"]
            assert metadata[0] == metadata[1]
            assert tables[0].equals(tables[1])
        one, other = (
            export_graphml(explorer, Path(folder) / f"{n}.graphml", explorer.subgraph(["embed:0"], k=k)).read_text()
            for n, explorer in enumerate(explorers)
        )
        assert one == other.replace(">compact<", ">dense<")


@few
@given(sparse_storages())
def test_tensors_have_what_has_a_place(storage):
    with both_forms(storage) as (dense, compact):
        tensors, full = (dict(named_tensors(explorer.storage)) for explorer in (compact, dense))
        live = {name: tensors.pop(name) for name in list(tensors) if name.startswith("live/")}
        assert tensors.keys() == full.keys()
        for name, tensor in tensors.items():
            key, *layers = name.split("/")
            rows = live.get(f"live/targets/{layers[0]}") if layers else None
            source = "embed" if key.startswith("embed") else layers[-1] if layers else ""
            columns = live.get(f"live/sources/{source}") if tensor.ndim == 2 and key != "w_unembed" else None
            expected = full[name]
            if columns is not None:
                expected = expected[:, columns]
                expected = expected if key.startswith(("unembed", "embed_unembed")) else expected[rows]
            assert tensor.tolist() == expected.tolist()
