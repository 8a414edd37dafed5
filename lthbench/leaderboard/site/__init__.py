"""The leaderboard as a static site: built fully or incrementally, and served locally."""
