"""A result in the formats of other tools: safetensors, parquet, GraphML."""
