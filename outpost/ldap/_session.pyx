# cython: language_level=3, auto_pickle=False
"""Who is at the other end of a connection."""
cimport cython

__all__ = ("Session",)


@cython.final
cdef class Session:
    def __init__(self, str address not None, *, bint is_secure):
        self.address = address
        self.is_secure = is_secure
        self.bind_dn = b""
        self.pages = {}

    @property
    def app(self):
        return self.provider.application_slug if self.provider is not None else ""

    def forget(self):
        self.bind_dn, self.provider, self.identity = b"", None, None
        self.pages.clear()

    def drop_pages(self, double now):
        for cookie in [cookie for cookie, page in self.pages.items() if now > page.expires_at]:
            del self.pages[cookie]

    def become(self, bytes bind_dn not None, provider not None, identity not None):
        self.bind_dn, self.provider, self.identity = bind_dn, provider, identity
