"""From faces to people: who is the same, and who somebody is."""
