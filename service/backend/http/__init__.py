"""HTTP as a client of backends: connections, calls and their deadlines."""
