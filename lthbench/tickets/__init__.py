"""Masks and tickets: counts, origins, controls, and transfer to other depths."""
