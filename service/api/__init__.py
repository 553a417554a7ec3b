"""Everything that is spoken over HTTP: the dialects, the websocket, the pages, and what stands around all of them."""
