"""fluobook.diagnose"""
