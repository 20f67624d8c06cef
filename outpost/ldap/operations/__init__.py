"""What each operation does, without I/O: a request in, an `Outcome` out."""
