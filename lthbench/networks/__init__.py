"""The families of networks, their states, and what follows from their structure."""
