"""What is measured beside the runs."""
