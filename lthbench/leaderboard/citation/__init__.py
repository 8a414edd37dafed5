"""How to cite the benchmark, a task, an entry."""
