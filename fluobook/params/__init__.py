"""fluobook.params"""
