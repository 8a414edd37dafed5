"""Masks and tickets: counts, origins, controls, and tickets at other depths."""
