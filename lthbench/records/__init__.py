"""What an evaluation leaves: the schema, scores, statistics and references. No torch."""
