"""Words that all rooms share: metrics, signs, directions, and the names of a harvest's files. Imports nothing."""

from typing import Literal

AttrMetric = Literal["attr", "attr_abs"]
METRICS: tuple[AttrMetric, ...] = ("attr", "attr_abs")

Sign = Literal["positive", "negative"]
SIGNS: tuple[Sign, ...] = ("positive", "negative")
# `both` ranks by magnitude.
AnySign = Literal["positive", "negative", "both"]

Direction = Literal["sources", "targets"]

# In the folder of a harvest.
MERGED_FILE = "dataset_attributions.pt"
PARTIAL_FILE = "dataset_attributions.partial.pt"
PLAN_FILE = "plan.json"
HEADER_FILE = "harvest.pt"
PARTS_FOLDER = "worker_states"
