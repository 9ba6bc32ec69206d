"""fluobook.lab"""
