"""The demo: plays a file of events through a whole stack and checks what came out of it."""
