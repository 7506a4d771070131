"""Items and events: what they are, reading and writing their files."""
