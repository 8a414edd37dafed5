"""Citations of the benchmark, a task or an entry."""
