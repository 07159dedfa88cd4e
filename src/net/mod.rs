//! Datagram paths and stream transports: bytes in, bytes out, no DNS type.
