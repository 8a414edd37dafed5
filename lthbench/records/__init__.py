"""The results of an evaluation: the schema, scores, statistics and references. No torch."""
