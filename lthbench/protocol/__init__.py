"""What is measured: tasks, their data and splits."""
