"""The process: what stays is out of the garbage collector's sight, and still goes with its last user."""

import gc
import weakref

from app.observability.process import settle_heap


class Kept:
    """Something that can be referred to weakly."""


def test_what_is_there_is_not_looked_at_again_and_still_goes_with_its_last_user() -> None:
    kept, garbage = Kept(), Kept()
    vars(garbage)["itself"] = garbage
    seen, lost = weakref.ref(kept), weakref.ref(garbage)
    del garbage
    try:
        settle_heap()
        assert lost() is None, "what was garbage then is gone"
        assert gc.get_freeze_count() > 10_000
        assert not any(found is kept for found in gc.get_objects())
        del kept
        assert seen() is None
    finally:
        gc.unfreeze()
