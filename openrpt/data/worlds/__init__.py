"""The laboratory's text: worlds whose next tokens need serial computation.

A problem is a row of cells, and a state is carried from cell to cell; the answer is the last one.
"""
