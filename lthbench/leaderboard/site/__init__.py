"""The leaderboard as a static site: built, and served locally."""
