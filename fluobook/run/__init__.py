"""fluobook.run"""
