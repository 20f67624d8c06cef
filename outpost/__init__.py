"""LDAP and RADIUS appliance for authentik."""

__version__ = "0.1.0"
