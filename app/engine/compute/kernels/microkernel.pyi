ROWS_MAX: int
