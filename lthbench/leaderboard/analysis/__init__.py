"""What several entries say together: comparisons, evidence, power."""
