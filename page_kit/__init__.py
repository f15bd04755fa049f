"""What the project's HTML pages share: one look, one policy for what may load and run, charts, tables, safe text.

A page is one file that needs nothing else: styles, scripts, charts and pictures are in it, it makes no request, and
nothing of what it shows can run. This package imports nothing of the project, so that every part may have its pages.
"""
