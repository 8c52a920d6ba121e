"""Result files to what people look at: one offline page, and the same figures on the terminal.

`result` reads and checks the files, `figures` turns numbers into words, `pictures` draws, `page` and `terminal` lay
out. Nothing here measures, loads a model or knows where a run keeps its files.
"""

from slimrank.report.page import write_report
from slimrank.report.terminal import print_result

__all__ = ["print_result", "write_report"]
