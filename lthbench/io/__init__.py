"""Files, paths, stores, messages and text: reading, writing and validation."""
