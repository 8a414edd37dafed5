"""Tools for method authors and maintainers: each is a verb of the command line."""
