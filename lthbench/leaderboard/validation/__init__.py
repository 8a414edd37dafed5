"""Level 0: the checks on records and bundles that take seconds and need no torch."""
