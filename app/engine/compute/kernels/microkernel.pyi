PANEL: int
ROWS_MAX: int
