"""A stored harvest in the formats of other tools: safetensors, parquet, GraphML."""
