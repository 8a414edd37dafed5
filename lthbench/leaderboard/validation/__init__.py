"""Level 0: what is checked of records and bundles in seconds, without torch."""
