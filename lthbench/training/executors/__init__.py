"""Where jobs run: in this process, in others, or on a cluster."""
