"""The bundle of a submission."""
