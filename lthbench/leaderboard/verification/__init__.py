"""Levels 1 to 3: artefacts, cells trained again, searches run again."""
