"""What people and programs do that do not wish the service well: bounded attacks, on loopback only."""
