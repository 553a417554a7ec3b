"""Jobs as they are watched: their shape, their events, and who is told of a change."""
