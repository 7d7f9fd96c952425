PANEL: int
ROWS_MAX: int
IN_PAIRS: bool
ROOM: int
