"""What is measured: tasks, their data and their splits."""
