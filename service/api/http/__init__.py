"""HTTP itself: routing, bodies, replies and refusals, whatever they are about."""
