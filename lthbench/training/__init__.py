"""Training of jobs: recipes, batches, and which engine trains what."""
