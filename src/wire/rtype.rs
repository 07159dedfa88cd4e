//! Record types (RFC 1035, 3.2.2, and the IANA registry).
