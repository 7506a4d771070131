"""What holds under load, kills, broken input and change."""
