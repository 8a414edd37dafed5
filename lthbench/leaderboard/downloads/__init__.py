"""Bundles fetched from addresses that strangers name."""
