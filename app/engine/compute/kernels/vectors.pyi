PANEL: int
