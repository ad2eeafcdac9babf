"""How bytes become ASGI requests: HTTP/1.1 and HTTP/2 on one port, in the clear and over TLS."""
