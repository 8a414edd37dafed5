"""The leaderboard as a site of files: built anew or in part, and shown on this machine."""
