# cython: language_level=3, auto_pickle=False
"""One compiled directory and the views of it that were asked for."""
cimport cython

from collections import OrderedDict

__all__ = ("VIEWS", "Shelf")

VIEWS = 4096


@cython.final
cdef class Shelf:
    def __init__(self, snapshot not None):
        self.snapshot = snapshot
        self.full = snapshot.full_view()
        self.own = OrderedDict()

    cdef object view_of(self, object identity):
        if identity.can_search:
            return self.full
        pk = identity.user_pk
        if pk in self.own:
            self.own.move_to_end(pk)
            return self.own[pk]
        view = self.own[pk] = self.snapshot.own_view(pk)
        if len(self.own) > VIEWS:
            self.own.popitem(last=False)
        return view

    def view(self, identity):
        return self.view_of(identity)
