"""HTTP itself: routing, bodies, replies and refusals, whatever their subject."""
