"""Result files to what people look at: one offline page, Markdown, pictures, and the same figures on the terminal.

`result` reads and checks the files, `figures` turns numbers into words, `pictures` draws, `page`, `markdown` and
`terminal` lay out, `comparison` does so for two models of anyone. Nothing here measures, loads a model or knows where a
run keeps its files.
"""

from slimrank.report.markdown import write_markdown
from slimrank.report.page import write_report
from slimrank.report.pictures import write_pictures
from slimrank.report.terminal import print_result

__all__ = ["print_result", "write_markdown", "write_pictures", "write_report"]
