"""Exit codes of all commands."""

from __future__ import annotations

DONE, PARTLY, USAGE, ERROR, INTERRUPTED = 0, 1, 2, 3, 130

EXIT_CODES = {
    DONE: "done",
    PARTLY: "index: done, but some of the photos cannot be read\n"
    "       encode: a photo could not be read\n"
    "       search: no match, or no face in the query\n"
    "       enroll: a photo has no face for its name\n"
    "       import: a name was refused, or found no face\n"
    "       export: a name or a photo could not be written\n"
    "       check: problems found\n"
    "       verify: two different people\n"
    "       identify: a face is unknown, or there is no face\n"
    "       forget: traces are left in the files of the gallery\n"
    "       upgrade: photos are missing, so the gallery keeps its model\n"
    "       compare: an encoder could not be measured",
    USAGE: "the command line is wrong",
    ERROR: "an error; stderr says what to do (FACE2VEC_DEBUG=1 adds the traceback)",
    INTERRUPTED: "stopped by Ctrl-C, or not confirmed; finished work is kept",
}
EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {EXIT_CODES[code]}" for code in EXIT_CODES)
