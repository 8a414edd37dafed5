"""Joint analysis of several entries: comparisons, evidence, power."""
