"""fluobook.record"""
