"""Files, paths, stores, messages and text: what is read and written, and how it is checked."""
