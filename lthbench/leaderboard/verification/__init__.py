"""Levels 1 to 3: artefacts, retrained cells, repeated searches."""
