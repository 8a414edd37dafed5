"""The board: bundles, validation, ranks, verification, analysis, the site."""
