"""fluobook.show"""
