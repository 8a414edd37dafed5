"""From a finished evaluation to a pull request."""
