"""Words that all rooms share: metrics, signs, directions, and the names of a harvest's files. Imports nothing."""

from typing import Literal

AttrMetric = Literal["attr", "attr_abs"]
METRICS: tuple[AttrMetric, ...] = ("attr", "attr_abs")
# What a harvest sums: `attr` alone, or both metrics.
Harvested = Literal["attr", "both"]
HARVESTED: tuple[Harvested, ...] = ("attr", "both")

Sign = Literal["positive", "negative"]
SIGNS: tuple[Sign, ...] = ("positive", "negative")
# `both` ranks by magnitude.
AnySign = Literal["positive", "negative", "both"]
ANY_SIGNS: tuple[AnySign, ...] = (*SIGNS, "both")

Direction = Literal["sources", "targets"]
# How a subgraph grows from its keys; `both` goes each way by itself.
Ways = Literal["upstream", "downstream", "both"]
WAYS: tuple[Ways, ...] = ("upstream", "downstream", "both")

# One number for a pair of layers: the sum of its edges' absolute values, or their mean.
Statistic = Literal["mass", "mean"]
STATISTICS: tuple[Statistic, ...] = ("mass", "mean")
# Lists of the strongest edges: so many of each pair of layers, or of all.
EdgeOrder = Literal["pair", "strength"]
EDGE_ORDERS: tuple[EdgeOrder, ...] = ("pair", "strength")
# Tables of the strongest edges: so many of each pair of layers, or of each target.
Per = Literal["pair", "target"]
PER: tuple[Per, ...] = ("pair", "target")

# Whether a result is written in the original's format: where it is small, always, or never.
DenseChoice = Literal["auto", "always", "never"]
# How a result holds sums of edges into components: in four bytes each, or in two.
ResultDtype = Literal["float32", "bfloat16"]

# What standard errors of a result say. Of rows in random order: how values would move on other text of the same kind.
# Of rows in the order of a file: that holds for the text as it lies there alone.
ErrorBasis = Literal["random order", "file order", "not harvested"]
# By what the edges of a list rank: their values, or the ends of their 95 % intervals that are nearer to zero.
SortBy = Literal["value", "lower"]
SORTS: tuple[SortBy, ...] = ("value", "lower")

# When a harvest ends before all its batches are done.
StopWhen = Literal["settled"]

# Where the folders of a run's harvests lie under the root of results: as those of goodfire-ai/spd, in
# `dataset_attributions/<run_id>`, or as those of goodfire-ai/param-decomp, in `runs/<run_id>/dataset_attributions`.
ResultLayout = Literal["spd", "param_decomp"]
RESULT_LAYOUTS: tuple[ResultLayout, ...] = ("spd", "param_decomp")

# In the folder of a harvest.
MERGED_FILE = "dataset_attributions.pt"
# The strongest edges alone.
STRONGEST_FILE = "dataset_attributions.strongest"
PARTIAL_FILE = "dataset_attributions.partial.pt"
# The same in the compact form; a harvest has its result in one form or the other.
COMPACT_FILE = "dataset_attributions.compact.pt"
COMPACT_PARTIAL_FILE = "dataset_attributions.compact.partial.pt"
RESULT_FILES = (MERGED_FILE, COMPACT_FILE)
PARTIAL_FILES = (PARTIAL_FILE, COMPACT_PARTIAL_FILE)
PLAN_FILE = "plan.json"
HEADER_FILE = "harvest.pt"
READ_VECTORS_FILE = "read_vectors.pt"
GENERATION_LOCK = "generation.lock"
LOOKS_FILE = "looks.json"
PARTS_FOLDER = "worker_states"
# The number of the shard follows.
SHARD_FOLDER = "target_shard_"
