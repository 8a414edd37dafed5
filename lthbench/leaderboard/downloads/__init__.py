"""Download of bundles from untrusted addresses."""
