"""An authentik server made for tests: state, flows, REST, event channel and faults on demand, on loopback."""
