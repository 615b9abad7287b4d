"""DamoFD (ICLR 2023): SCRFD with a searched backbone."""
