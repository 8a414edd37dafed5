"""What a method is and may ask: its source, its problem, its process."""
